"""Short commands as a user types them: next to Python's own start, and next to the same work without them."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.system.conftest import PROGRAM, nic

from bench.harness import Taken, in_turns, machine, ratio, run, seconds, table, write
from bench.plot import bars
from bench.raw_hotplug import TAP
from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.conftest import Sandbox

_START_ROUNDS = 31
_PLUG_ROUNDS = 11
# Joins the namespace of the commands, so that it can open the TAP.
_RAW = "bench.raw_hotplug"
_FLOOR = "python3 -I -S -c pass"
_WITH_SITE = "python3 -c pass"
_RAW_PLUG = "raw hot-plug, connected"

_TEXT = """# Short commands

{machine} `make bench` writes this file.

Everything is timed from outside, from the start of a process to its end, and takes turns. The raw hot-plug, QMP and
netlink alone, is timed without the start of its process and without connecting.

## Start-up

{start}
![Milliseconds of short commands](start.svg)

## Adding a NIC

{plug}"""


def _start(sandbox: Sandbox, rounds: int) -> Taken:
    """Commands that do little, on a sandbox with a NIC."""

    def typed(*argv: str) -> Callable[[], float]:
        # Without entering the namespace, which would take the same time for both.
        return lambda: seconds(lambda: _started(argv))

    root = ("--root", str(sandbox.root))
    return in_turns(
        {
            _FLOOR: typed(sys.executable, "-I", "-S", "-c", "pass"),
            _WITH_SITE: typed(sys.executable, "-c", "pass"),
            "kata-runtime --version": typed(PROGRAM, "--version"),
            "list-ifaces nosuch": typed(PROGRAM, *root, "kata-network", "list-ifaces", "nosuch"),
            "list-ifaces": typed(PROGRAM, *root, "kata-network", "list-ifaces", sandbox.id),
            "list-routes": typed(PROGRAM, *root, "kata-network", "list-routes", sandbox.id),
        },
        rounds,
    )


def _started(argv: tuple[str, ...]) -> None:
    """Run a program, which may fail: there is no container ``nosuch``."""
    expected = 1 if argv[-1] == "nosuch" else 0
    done = subprocess.run(argv, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != expected:
        raise RuntimeError(f"{argv}: {done.stderr.decode()}")


class _Plugging:
    """``add-iface`` and ``del-iface`` of one NIC."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._document = json.dumps(nic(TAP, "eth0", "10.0.0.3/16")).encode()

    def command(self, verb: str) -> float:
        """Seconds of a command."""
        argv = self._sandbox.runtime.argv("kata-network", verb, self._sandbox.id, "-")
        return seconds(lambda: run(argv, self._document))

    def raw(self) -> float:
        """Seconds of the same without one."""
        namespace = self._sandbox.runtime.namespace
        assert namespace is not None
        argv = [*namespace.prefix, sys.executable, "-m", _RAW, str(self._sandbox.root), self._sandbox.id]
        return float(run(argv))

    def taken(self, rounds: int) -> Taken:
        """Seconds of each."""
        return in_turns(
            {
                _RAW_PLUG: self.raw,
                "add-iface": lambda: self.command("add-iface"),
                "del-iface": lambda: self.command("del-iface"),
            },
            rounds,
        )


@contextmanager
def _plugging(sandbox: Sandbox) -> Iterator[_Plugging]:
    namespace = sandbox.runtime.namespace
    assert namespace is not None
    namespace.tap(TAP, "10.0.0.1/16")
    try:
        yield _Plugging(sandbox)
    finally:
        namespace.run("ip", "link", "delete", TAP)


def _taken(sandbox: Sandbox, start_rounds: int, plug_rounds: int) -> tuple[Taken, Taken]:
    with _plugging(sandbox) as plugging:
        plugging.command("add-iface")
        start = _start(sandbox, start_rounds)
        plugging.command("del-iface")
        return start, plugging.taken(plug_rounds)


def ratios(sandbox: Sandbox) -> dict[str, float]:
    """What ``make bench-check`` bounds."""
    start, plug = _taken(sandbox, 11, 5)
    found = {
        f"{name} / {_FLOOR}": ratio(values, start[_FLOOR]) for name, values in start.items() if "python3" not in name
    }
    return {
        **found,
        f"list-ifaces / {_WITH_SITE}": ratio(start["list-ifaces"], start[_WITH_SITE]),
        "add-iface / raw hot-plug": ratio(plug["add-iface"], plug[_RAW_PLUG]),
    }


def measure(sandbox: Sandbox) -> None:
    """Write docs/benchmarks/start.md."""
    start, plug = _taken(sandbox, _START_ROUNDS, _PLUG_ROUNDS)
    floors = _FLOOR, _WITH_SITE
    rows = [
        [f"`{name}`", _milliseconds(values), *(f"{ratio(values, start[floor]):.1f}" for floor in floors)]
        for name, values in start.items()
    ]
    plugs = [[name, _milliseconds(values), f"{ratio(values, plug[_RAW_PLUG]):.1f}"] for name, values in plug.items()]
    text = _TEXT.format(
        machine=machine(load_record(str(sandbox.directory)).accelerator),
        start=table(["command", "time", *(f"ratio to `{floor}`" for floor in floors)], rows),
        plug=table(["what", "time", "ratio"], plugs),
    )
    write("start.md", text)
    drawn = {name: values for name, values in {**start, **plug}.items() if name != "list-ifaces nosuch"}
    groups = {"": {name: statistics.median(values) * 1000 for name, values in drawn.items()}}
    write("start.svg", bars("Short commands, from the start of a process to its end", "ms", groups))


def _milliseconds(values: list[float]) -> str:
    return f"{statistics.median(values) * 1000:.0f} ms"
