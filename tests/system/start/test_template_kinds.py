"""Templates of other machines than the default one, and starts in a row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.system.conftest import Sandbox, booted, nic
from tests.system.vmm.conftest import runtime_with

from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import Runtime

_STARTS = 5


def _is_from_template(sandbox: Sandbox) -> bool:
    pid = load_record(str(sandbox.directory)).pid
    return b"\0-incoming\0defer\0" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _user_of(sandbox: Sandbox) -> int:
    return Path(f"/proc/{load_record(str(sandbox.directory)).pid}").stat().st_uid


def test_starts_in_a_row(runtime: Runtime, unique: Callable[[str], str]) -> None:
    """Starts from one template, two processors each, succeed one after another, each QEMU with a user of its own."""
    wide = runtime_with(runtime, "kinds", "default_vcpus = 2")
    with booted(wide, unique("first")):
        pass
    users = []
    for _ in range(_STARTS):
        with booted(wide, unique("next")) as sandbox:
            on_each = "for mask in 1 2; do taskset $mask cat /proc/sys/kernel/ostype; done"
            assert (_is_from_template(sandbox), sandbox.guest("sh", "-c", on_each).stdout) == (True, "Linux\nLinux\n")
            users.append(_user_of(sandbox))
    assert (len(set(users)), 0 in users) == (_STARTS, False)


def test_private_memory(runtime: Runtime, unique: Callable[[str], str]) -> None:
    """A machine whose memory QEMU does not share boots, makes no template, works, and refuses a vhost-user NIC."""
    private = runtime_with(runtime, "private", "shared_memory = false")
    kept = sorted(path.name for path in (runtime.root / ".templates").glob("[!.]*"))
    with booted(private, unique("private")) as sandbox:
        assert (_is_from_template(sandbox), sandbox.guest("echo", "here").stdout) == (False, "here\n")
        before = sandbox.snapshot()
        refused = sandbox.network("add-iface", nic("vhost0", "eth0", vhostUserSocket="/run/back.sock"))
        assert (refused.returncode, refused.stdout, refused.stderr) == (
            1,
            "null\n",
            (
                f"kata-runtime: container {sandbox.id} cannot have a vhost-user NIC: its memory is not shared; "
                "start it with shared_memory = true in the configuration\n"
            ),
        )
        assert sandbox.snapshot() == before
    assert sorted(path.name for path in (runtime.root / ".templates").glob("[!.]*")) == kept
