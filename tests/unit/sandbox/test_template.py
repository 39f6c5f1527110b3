"""Templates on disk: whole or not there, unreadable for others, checked before they are used."""

from __future__ import annotations

import json
import os
import resource
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from kata_runtime.errors import HostError, QemuError
from kata_runtime.sandbox import template as module
from kata_runtime.sandbox.guest_memory import create_memory, load_memory
from kata_runtime.sandbox.lock import LockFile
from kata_runtime.sandbox.template import TemplateStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MIB = 1024 * 1024
_STATE = b"state of devices"


@pytest.fixture
def memory() -> Iterator[int]:
    """4 MiB of guest memory with something in it."""
    made = create_memory(4 * _MIB)
    os.pwrite(made, b"kernel", 1 * _MIB)
    yield made
    os.close(made)


@pytest.fixture
def store(tmp_path: Path) -> TemplateStore:
    """A store whose directory is not there yet."""
    return TemplateStore(tmp_path / "templates")


def _save_devices(file: int) -> None:
    os.write(file, _STATE)


def _save(store: TemplateStore, memory: int, key: str = "key") -> None:
    with store.making(key) as is_ours:
        assert is_ours
        store.save(key, memory, _save_devices)


def _names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "templates").iterdir() if not path.name.endswith(".lock"))


def _loads(store: TemplateStore, key: str = "key") -> tuple[bytes, bytes] | None:
    """What the template gives: the state, and the memory's filled page."""
    with store.opened(key) as template:
        if template is None:
            return None
        fresh = create_memory(4 * _MIB)
        try:
            load_memory(template.memory, fresh)
            # As QEMU reads it: from where the descriptor stands.
            return os.read(template.devices, 100), os.pread(fresh, 6, _MIB)
        finally:
            os.close(fresh)


def test_what_was_saved_is_opened(store: TemplateStore, memory: int, tmp_path: Path) -> None:
    """A template gives back memory and devices; nobody but its owner can read any of it."""
    assert _loads(store) is None
    _save(store, memory)
    assert _loads(store) == (_STATE, b"kernel")
    place = tmp_path / "templates" / "key"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (place.parent, place, *place.iterdir())}
    private = {"memory": 0o600, "devices": 0o600, "template.json": 0o600, "verified.json": 0o600}
    assert modes == {"templates": 0o700, "key": 0o700, **private}


@pytest.mark.parametrize(("name", "place"), [("memory", _MIB), ("memory", 2 * _MIB), ("devices", 3)])
def test_what_was_changed_is_not_used(store: TemplateStore, memory: int, tmp_path: Path, name: str, place: int) -> None:
    """A template of which one byte changed is removed instead of loaded."""
    _save(store, memory)
    changed = os.open(tmp_path / "templates" / "key" / name, os.O_RDWR)
    os.pwrite(changed, b"!", place)
    os.close(changed)
    assert _loads(store) is None
    assert _names(tmp_path) == []


@pytest.mark.parametrize("missing", ["memory", "devices", "template.json"])
def test_what_is_incomplete_is_not_used(store: TemplateStore, memory: int, tmp_path: Path, missing: str) -> None:
    """A template that lacks a file is not loaded."""
    _save(store, memory)
    (tmp_path / "templates" / "key" / "verified.json").unlink()
    (tmp_path / "templates" / "key" / missing).unlink()
    assert _loads(store) is None


def test_what_others_can_write_is_not_used(store: TemplateStore, memory: int, tmp_path: Path) -> None:
    """A template in a directory that others can write to is removed."""
    _save(store, memory)
    (tmp_path / "templates" / "key").chmod(0o770)
    assert _loads(store) is None
    assert _names(tmp_path) == []


def test_digests_are_compared_once_a_boot(
    store: TemplateStore, memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the first use nor a later one computes digests while host and files are as when they were computed."""
    _save(store, memory)
    computed: list[int] = []
    digest = module._digest

    def counted(file: int) -> str:
        computed.append(file)
        return digest(file)

    monkeypatch.setattr(module, "_digest", counted)
    assert _loads(store) == _loads(store) == (_STATE, b"kernel")
    assert computed == []
    verified = tmp_path / "templates" / "key" / "verified.json"
    marks = json.loads(verified.read_text())
    verified.write_text(json.dumps({**marks, "boot": "another"}))
    assert _loads(store) == _loads(store) == (_STATE, b"kernel")
    assert len(computed) == 2


def test_one_makes_it(store: TemplateStore, memory: int) -> None:
    """While one makes a template, or when it is there, nobody else makes it."""
    with store.making("key") as first, store.making("key") as second, store.making("other") as other:
        assert (first, second, other) == (True, False, True)
    _save(store, memory)
    with store.making("key") as again:
        assert not again


def test_failure_leaves_nothing(store: TemplateStore, memory: int, tmp_path: Path) -> None:
    """When QEMU does not give its state, no part of a template stays."""

    def refuse(file: int) -> None:
        os.write(file, b"half")
        raise QemuError("QEMU refused migrate", command="migrate")

    with store.making("key"), pytest.raises(QemuError):
        store.save("key", memory, refuse)
    assert _names(tmp_path) == []


@contextmanager
def _file_size(limit: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room(store: TemplateStore, memory: int, tmp_path: Path) -> None:
    """A file system that takes no more is one error with its reason, and nothing stays."""
    with store.making("key"), _file_size(2 * _MIB), pytest.raises(HostError) as caught:
        store.save("key", memory, _save_devices)
    assert str(caught.value) == f"cannot keep a template in {tmp_path / 'templates'}: File too large"
    assert _names(tmp_path) == []


def test_the_longest_unused_goes(store: TemplateStore, memory: int, tmp_path: Path) -> None:
    """Eight templates are kept, and of a ninth's making the one that was used longest ago is the victim."""
    keys = [f"key{number}" for number in range(8)]
    for number, key in enumerate(keys):
        _save(store, memory, key)
        os.utime(tmp_path / "templates" / key, (number, number))
    assert _loads(store, "key0") is not None
    _save(store, memory, "new")
    assert _names(tmp_path) == sorted([*keys, "new"])[:1] + sorted([*keys[2:], "new"])


def test_what_a_killed_command_left_goes(store: TemplateStore, memory: int, tmp_path: Path) -> None:
    """Scratch directories of commands that ended are removed, those of others that are at work stay."""
    _save(store, memory, "first")
    for name in (".new-dead", ".new-alive"):
        (tmp_path / "templates" / name).mkdir()
        (tmp_path / "templates" / name / "template.json").touch()
    held = LockFile(str(tmp_path / "templates/.new-alive/template.json"))
    try:
        assert held.try_acquire()
        _save(store, memory, "second")
    finally:
        held.close()
    assert _names(tmp_path) == [".new-alive", "first", "second"]


def test_clean(store: TemplateStore, memory: int, tmp_path: Path) -> None:
    """All templates are removed and counted; none is fine."""
    assert store.clean() == 0
    _save(store, memory, "one")
    _save(store, memory, "two")
    assert store.clean() == 2
    assert list((tmp_path / "templates").iterdir()) == []
    assert store.clean() == 0
