"""Sandboxes whose record cannot be read: listed, killed and deleted all the same."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.system.start.conftest import NOTHING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.start.conftest import Fake

_RECORDS = {
    "newer": ('{"version":99}', "is of version 99, this kata-runtime writes {ours}; "),
    "damaged": ("{", "is damaged: "),
    "huge pid": ('{"version":2,"container_id":"bad","nics":[],"pid":99999999999}', "is damaged: "),
}


@contextmanager
def _both(fake: Fake, text: str) -> Iterator[int]:
    """A good sandbox and one with this record; the pid of the latter's QEMU."""
    for name in ("bad", "good"):
        assert fake.run(name) == (0, f"{name}\n", "")
    pid = fake.pid("bad")
    record = fake.root / "bad/record.json"
    whole = record.read_text()
    record.write_text(text)
    try:
        yield pid
    finally:
        if record.exists():
            record.write_text(whole)
        for name in ("bad", "good"):
            fake.cli("delete", "--force", name)


@pytest.mark.parametrize("kind", _RECORDS)
def test_one_unreadable_record_hides_no_other(kind: str, fake: Fake) -> None:
    """List shows every sandbox, the unreadable one with that status and its process, says why, and succeeds."""
    text, reason = _RECORDS[kind]
    with _both(fake, text) as pid:
        status, out, err = fake.cli("list", "--format", "json")
        bad, good = json.loads(out)
        assert (status, good["status"], good["pid"]) == (0, "running", fake.pid("good"))
        assert bad == {
            "ociVersion": "1.0.2", "id": "bad", "status": "unreadable", "pid": pid, "bundle": f"{fake.root}/bad",
        }  # fmt: skip
        version = json.loads((fake.root / "good/record.json").read_text())["version"]
        assert err.startswith(f"kata-runtime: container bad: {fake.root}/bad/record.json {reason.format(ours=version)}")
        assert err.count("\n") == 1
        refused = fake.cli("state", "bad")
        assert (refused[0], refused[1], refused[2].partition("record.json")[2]) == (
            1, "", err.partition("record.json")[2],
        )  # fmt: skip


@pytest.mark.parametrize("kind", _RECORDS)
def test_forced_deletion_finds_qemu(kind: str, fake: Fake) -> None:
    """Delete --force ends what runs of a sandbox whose record cannot be read, and removes all of it."""
    with _both(fake, _RECORDS[kind][0]):
        assert len(fake.processes("bad")) == 2
        refused = fake.cli("delete", "bad")
        assert (refused[0], refused[1], len(fake.processes("bad"))) == (1, "", 2)
        assert fake.cli("delete", "--force", "bad") == (0, "", "")
        assert fake.left("bad") == (["good"], [], [])
        assert len(fake.processes("good")) == 2
    assert fake.left("good") == NOTHING


def test_kill_finds_qemu(fake: Fake) -> None:
    """Kill KILL ends it, too; once nothing runs, and for TERM, the record is what is reported."""
    with _both(fake, "{"):
        assert fake.cli("kill", "bad")[0] == 1
        assert len(fake.processes("bad")) == 2
        assert fake.cli("kill", "bad", "KILL") == (0, "", "")
        assert fake.processes("bad") == []
        status, out, err = fake.cli("kill", "bad", "KILL")
        assert (status, out) == (1, "")
        assert "record.json is damaged" in err


def test_missing_record(fake: Fake) -> None:
    """A sandbox whose record is gone while QEMU runs is deleted only with --force, and then with QEMU."""
    with _both(fake, "{"):
        (fake.root / "bad/record.json").unlink()
        assert fake.cli("delete", "bad") == (
            1, "",
            (
                "kata-runtime: container bad is running; 'kata-runtime kill bad' stops it, 'delete --force' does both\n"
            ),
        )  # fmt: skip
        assert fake.cli("delete", "--force", "bad") == (0, "", "")
        assert fake.left("bad") == (["good"], [], [])


def test_record_of_an_earlier_boot(fake: Fake) -> None:
    """Pid and start time of a record that another boot of the host wrote name nobody: no process is shown or killed."""
    with _both(fake, "{"):
        record = json.loads((fake.root / "good/record.json").read_text())
        old = {**record, "container_id": "bad", "boot_id": "other", "cgroups": fake.cgroups("bad")}
        (fake.root / "bad/record.json").write_text(json.dumps(old))
        state = json.loads(fake.cli("state", "bad")[1])
        assert (state["status"], state["pid"]) == ("stopped", 0)
        assert fake.cli("delete", "--force", "bad") == (0, "", "")
        assert fake.left("bad") == (["good"], [], [])
        assert len(fake.processes("good")) == 2


def test_directory_without_a_record(fake: Fake) -> None:
    """What is left of a start that was killed before it wrote anything is stopped, serves nothing, and is deleted."""
    (fake.root / "web").mkdir(parents=True, mode=0o700)
    fake.root.chmod(0o700)
    assert json.loads(fake.cli("state", "web")[1])["status"] == "stopped"
    status, out, err = fake.cli("list", "--format", "json")
    assert (status, [state["status"] for state in json.loads(out)], err) == (0, ["stopped"], "")
    for words in (("exec", "web", "true"), ("kill", "web"), ("kata-network", "list-ifaces", "web")):
        status, _, err = fake.cli(*words)
        assert (status, err.startswith("kata-runtime: container web "), err.count("\n")) == (1, True, 1), (words, err)
    assert fake.cli("delete", "web") == (0, "", "")
    assert fake.left("web") == NOTHING
