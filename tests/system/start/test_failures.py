"""Why a sandbox does not start: the cause reaches the user, and nothing stays."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.system.start.conftest import NOTHING, SECONDS

from kata_runtime.guest.wire import VERSION

if TYPE_CHECKING:
    from tests.system.start.conftest import Fake

_PANIC = "Kernel panic - not syncing: No working init found."
_CAUSES = {
    "panic": (
        "kata-runtime: guest: [    0.1] Linux\n"
        f"kata-runtime: guest: [    0.2] {_PANIC}\n"
        f"kata-runtime: QEMU ended before the guest was up: {_PANIC}\n"
    ),
    "error": "kata-runtime: QEMU ended before the guest was up: qemu: cannot do this\n",
    "silent": "kata-runtime: QEMU ended before the guest was up: exit status 3, without a message\n",
    "hung": "kata-runtime: the guest's agent did not answer within 5 s of boot\n",
    "old": (
        f"kata-runtime: the agent speaks version {VERSION + 1}, this runtime {VERSION}; "
        "build the guest image again (kata-runtime image build) and restart the container\n"
    ),
}


@pytest.mark.parametrize("mode", _CAUSES)
def test_cause_is_told(mode: str, fake: Fake) -> None:
    """A panic, QEMU's own error, its silence, a hung guest and an agent of another version are distinguished."""
    assert fake.run("web", mode) == (1, "", _CAUSES[mode])
    assert fake.left("web") == NOTHING


def test_qemu_that_is_no_program(fake: Fake) -> None:
    """A QEMU that cannot be executed is named, and nothing stays."""
    (fake.directory / "qemu").write_bytes(b"\x7fELF nothing")
    reason = f"kata-runtime: cannot start {fake.directory}/qemu: Exec format error\n"
    assert fake.run("web") == (1, "", reason)
    assert fake.left("web") == NOTHING


def test_id_that_nobody_can_read_is_undone(fake: Fake) -> None:
    """A sandbox whose ID cannot be printed is removed again, on a full device as on a closed pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    reason = "kata-runtime: cannot write the result to standard output: No space left on device\n"
    try:
        with open("/dev/full", "wb") as full:
            for output, told in ((full.fileno(), reason), (writing, "")):
                done = subprocess.run(
                    fake.argv("run", "--detach"), stdout=output, stderr=subprocess.PIPE, text=True, timeout=SECONDS,
                    check=False,
                )  # fmt: skip
                assert (done.returncode, done.stderr) == (1, told)
                assert list(fake.root.iterdir()) == []
    finally:
        os.close(writing)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_root_that_others_may_write_to(mode: int, fake: Fake) -> None:
    """Every command refuses a root where others could have put records."""
    fake.root.mkdir()
    fake.root.chmod(mode)
    told = (
        f"kata-runtime: {fake.root} has mode {mode:04o}: others could put false records there; "
        f"chmod 0700 {fake.root}, or give another --root\n"
    )
    assert [fake.cli(*words) for words in (("run", "-d", "web"), ("list",), ("delete", "-f", "web"))] == [
        (1, "", told)
    ] * 3
    fake.root.chmod(0o755)
    assert fake.cli("list", "--quiet") == (0, "", "")


def test_root_of_another_user(fake: Fake) -> None:
    """A root that belongs to somebody else is refused."""
    fake.root.mkdir(mode=0o700)
    os.chown(fake.root, 12345, 12345)
    told = f"kata-runtime: {fake.root} belongs to user 12345, who could put false records there; give another --root\n"
    assert fake.cli("list") == (1, "", told)


def test_relative_roots_are_different(fake: Fake) -> None:
    """The same relative root in two directories means two users for QEMU, and bundles are absolute."""
    users, bundles = [], []
    for name in ("a", "b"):
        (fake.directory / name).mkdir()
        argv = ["--root=root" if word == str(fake.root) else word for word in fake.argv("run", "-d", "web")]
        argv.remove("--root")
        subprocess.run(argv, cwd=fake.directory / name, check=True, timeout=SECONDS, stdout=subprocess.DEVNULL)
        fake.root = fake.directory / name / "root"
        users.append(os.stat(f"/proc/{fake.pid('web')}").st_uid)
        bundles.append(fake.cli("state", "web")[1].partition('"bundle":')[2])
        assert fake.cli("delete", "--force", "web") == (0, "", "")
    assert len(set(users)) == 2
    assert bundles == [f'"{fake.directory}/{name}/root/web"}}\n' for name in ("a", "b")]
