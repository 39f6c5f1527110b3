"""Runs a program that is killed before or after the step of a given number.

A step is a call of one of the functions that are given as ``module:function`` or ``module:Class.method``: those that
touch what could be left behind.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.system.conftest import Sandbox

_SECONDS = 120
# Whatever touches the record, QEMU, the guest or the host.
_NETWORK_STEPS = (
    "kata_runtime.sandbox.session:Session.save",
    "kata_runtime.vmm.monitor:Monitor._execute",
    "kata_runtime.guest.channel:AgentChannel.exchange",
    "kata_runtime.guest.subscription:Subscription.wait",
    "kata_runtime.netlink.local:LocalTransport.exchange",
)
_COUNTED = """
import os, signal, sys
from functools import wraps
from pkgutil import resolve_name

at, moment = int(sys.argv.pop(1)), sys.argv.pop(1)
count = 0

def step(path):
    place, _, name = path.rpartition("." if "." in path.partition(":")[2] else ":")
    owner = resolve_name(place)
    original = getattr(owner, name)
    @wraps(original)
    def counted(*args, **kwargs):
        global count
        count += 1
        mine = count
        if mine == at and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return original(*args, **kwargs)
        finally:
            if mine == at and moment == "after":
                os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, counted)

"""
_COMMAND = """
from kata_runtime.cli.main import main
sys.exit(main())
"""


def killed_program(steps: Sequence[str], at: int, moment: str, code: str, *arguments: str) -> list[str]:
    """The command line of Python ``code`` that is killed at step ``at``; its arguments are in sys.argv[1:]."""
    script = _COUNTED + "".join(f"step({path!r})\n" for path in steps) + code
    return [sys.executable, "-c", script, str(at), moment, *arguments]


def killed_command(argv: Sequence[str], steps: Sequence[str], at: int, moment: str) -> list[str]:
    """``Runtime.argv(...)``, but killed at step ``at``."""
    program = argv.index("--root") - 1
    return [*argv[:program], *killed_program(steps, at, moment, _COMMAND), *argv[program + 1 :]]


def is_killed(argv: Sequence[str], stdin: str = "") -> bool:
    """Run such a command line; whether it lived long enough to be killed, or else succeeded."""
    done = subprocess.run(argv, input=stdin.encode(), capture_output=True, check=False, timeout=_SECONDS)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode == -9


def network_command_is_killed(
    sandbox: Sandbox, at: int, moment: str, verb: str, document: object, *options: str
) -> bool:
    """Whether a kata-network command about ``sandbox`` lived long enough to be killed at step ``at``."""
    argv = sandbox.runtime.argv("kata-network", verb, sandbox.id, "-", *options)
    return is_killed(killed_command(argv, _NETWORK_STEPS, at, moment), json.dumps(document))
