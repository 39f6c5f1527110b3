"""A sandbox with two processors."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from select import select
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import Namespace, Runtime, Sandbox, booted

from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SETTLE_SECONDS = 5.0
_PAUSE_SECONDS = 0.05


def runtime_with(runtime: Runtime, name: str, *lines: str) -> Runtime:
    """The program with further lines of configuration."""
    config = runtime.root / f".{name}.toml"
    config.write_text("\n".join([runtime.config.read_text(), *lines, ""]))
    return Runtime(runtime.root, config)


@pytest.fixture(scope="session")
def shared_wide_sandbox(runtime: Runtime, unique: Callable[[str], str]) -> Iterator[Sandbox]:
    """The sandbox with two vCPUs that these tests share."""
    with booted(runtime_with(runtime, "wide", "default_vcpus = 2"), unique("wide")) as made:
        yield made


@pytest.fixture
def wide_sandbox(shared_wide_sandbox: Sandbox, namespace: Namespace) -> Iterator[Sandbox]:
    """A running sandbox with two vCPUs, its commands in ``namespace``; a NIC that a test leaves fails it."""
    shared_wide_sandbox.runtime.namespace = namespace
    try:
        yield shared_wide_sandbox
    finally:
        listed = shared_wide_sandbox.network("list-ifaces").stdout
        for left in json.loads(listed or "null") or []:
            shared_wide_sandbox.network("del-iface", {"name": left["name"]})
        shared_wide_sandbox.runtime.namespace = None
    assert listed == "null\n"


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where every user may search for a socket."""
    made = Path(tempfile.mkdtemp(prefix="vu"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


State = tuple[int, list[str]]


def qemu_state(sandbox: Sandbox) -> State:
    """How many descriptors QEMU has open, and what is plugged into it."""
    objects = sandbox.monitor_objects()
    return len(os.listdir(f"/proc/{load_record(str(sandbox.directory)).pid}/fd")), objects


def settled_state(sandbox: Sandbox, expected: State) -> State:
    """The state once it is as expected: QEMU closes a connection some time after its client did."""
    end = time.monotonic() + _SETTLE_SECONDS
    while (state := qemu_state(sandbox)) != expected and time.monotonic() < end:
        select([], [], [], _PAUSE_SECONDS)
    return state
