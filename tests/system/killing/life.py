"""``run`` and ``delete`` ended at one of their steps, and what must hold afterwards."""

from __future__ import annotations

import json
import os
import time
from itertools import count
from pathlib import Path
from select import select
from typing import TYPE_CHECKING

from tests.system.killing.subject import points_of
from tests.system.killing.tracer import run_traced

from kata_runtime.errors import HostError
from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator

    from tests.system.conftest import Runtime
    from tests.system.killing.subject import Point
    from tests.system.killing.tracer import Traced

# QEMU, and the one that keeps its output.
_PROCESSES = 2
_SETTLE_SECONDS = 5.0
_PAUSE_SECONDS = 0.02


class Life:
    """A command about a sandbox's life that is ended at any of its steps."""

    name = ""
    _words: tuple[str, ...] = ()

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._numbers = count(1)
        self._root_before = _entries(runtime.root)
        for _ in range(2):
            # The first time Python may have to write what it compiled.
            container_id = self._prepare()
            listed = run_traced(self._argv(container_id))
            assert (listed.status, listed.stdout, listed.stderr) == (0, self._answer(container_id), ""), listed
            assert self._wrong_in_the_end(container_id) == []
        self.calls = listed.calls

    def points(self) -> list[Point]:
        """All of them, but between the first and the last call that copies a template's memory: hundreds are alike."""
        copying = [at for at, call in enumerate(self.calls) if call == "sendfile"]
        return [point for point in points_of(len(self.calls)) if point.at not in copying[1:-1]]

    def survive(self, point: Point) -> list[str]:
        """End the command there; what is wrong afterwards, a line each."""
        container_id = self._prepare()
        ended = run_traced(self._argv(container_id), at=point.at, moment=point.moment, number=point.number)
        wrong = list(self._wrong_with(ended, container_id, point.number))
        wrong += self._wrong_with_state(container_id)
        wrong += self._wrong_in_the_end(container_id)
        return wrong

    def _prepare(self) -> str:
        """The ID of a sandbox that the command can be about."""
        # None of them begins another.
        return f"life{os.getpid()}-{next(self._numbers):04}"

    def _answer(self, container_id: str) -> str:
        return ""

    def _is_done(self, container_id: str) -> bool:
        """Whether the command has had its effect."""
        raise NotImplementedError

    def _argv(self, container_id: str) -> list[str]:
        return self._runtime.argv(*self._words, container_id)

    def _wrong_with(self, ended: Traced, container_id: str, number: signal.Signals) -> Iterator[str]:
        told = f"kata-runtime: ended by {number.name}; its change is made whole or not at all\n"
        answer = self._answer(container_id)
        if ended.hung:
            yield f"it hung: {ended.stderr!r}"
        elif ended.status == 0:
            if (ended.stdout, ended.stderr) != (answer, "") or not self._is_done(container_id):
                yield f"it succeeded with {ended.stdout!r} {ended.stderr!r}, done: {self._is_done(container_id)}"
        elif ended.status == 128 + number:
            if (ended.stdout, ended.stderr) != ("", told):
                yield f"it ended with {ended.status}: {ended.stdout!r} {ended.stderr!r}"
        elif ended.status != -number or ended.stdout not in ("", answer) or ended.stderr:
            yield f"it ended with {ended.status}: {ended.stdout!r} {ended.stderr!r}"

    def _wrong_with_state(self, container_id: str) -> Iterator[str]:
        """Reading commands work, and every process of the sandbox is in its record."""
        listed = self._runtime.cli("list", "--format", "json")
        if (listed.returncode, listed.stderr) != (0, ""):
            yield f"list ended with {listed.returncode}: {listed.stderr!r}"
            return
        states = [state for state in json.loads(listed.stdout) if state["id"] == container_id]
        is_running = bool(states) and states[0]["status"] == "running"
        alive = _settled_processes(container_id, _PROCESSES if is_running else 0)
        directory = self._runtime.root / container_id
        try:
            recorded = load_record(str(directory)).pid
        except (FileNotFoundError, HostError):
            recorded = 0
        if (len(alive), recorded in alive) != ((_PROCESSES, True) if is_running else (0, False)):
            yield f"list tells {states}, processes {alive} run, and the record names {recorded}"
        if bool(states) != directory.exists():
            yield f"list tells {states}, and the directory exists: {directory.exists()}"

    def _wrong_in_the_end(self, container_id: str) -> list[str]:
        """Delete what there is; what is left of it."""
        wrong = []
        if (self._runtime.root / container_id).exists():
            done = self._runtime.cli("delete", "--force", container_id)
            if (done.returncode, done.stdout, done.stderr) != (0, "", ""):
                wrong.append(f"delete --force ended with {done.returncode}: {done.stderr!r}")
        left = _settled_processes(container_id, 0)
        wrong += [f"processes {left} are left"] if left else []
        entries = _entries(self._runtime.root)
        wrong += [f"{entries - self._root_before} is left"] if entries != self._root_before else []
        return wrong


class Start(Life):
    """``run --detach`` of a sandbox that does not exist."""

    name = "run"
    _words = ("run", "--detach")

    def _answer(self, container_id: str) -> str:
        return f"{container_id}\n"

    def _is_done(self, container_id: str) -> bool:
        return len(_processes(container_id)) == _PROCESSES

    def _wrong_with(self, ended: Traced, container_id: str, number: signal.Signals) -> Iterator[str]:
        yield from super()._wrong_with(ended, container_id, number)
        # Without its answer nobody would know of it.
        if ended.status == 128 + number and (self._runtime.root / container_id).exists():
            yield "it was asked to end, and the sandbox is there"


class Deletion(Life):
    """``delete --force`` of a running sandbox."""

    name = "delete"
    _words = ("delete", "--force")

    def _prepare(self) -> str:
        container_id = super()._prepare()
        done = self._runtime.cli("run", "--detach", container_id)
        assert (done.returncode, done.stderr) == (0, ""), done
        return container_id

    def _is_done(self, container_id: str) -> bool:
        return not (self._runtime.root / container_id).exists()


def _entries(root: Path) -> set[str]:
    # The first start ever makes the directory of templates.
    return {entry.name for entry in root.iterdir()} - {".templates"}


def _processes(container_id: str) -> list[int]:
    """Processes with the ID on their command line, but for those that have ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            line = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if container_id.encode() in line:
            found.append(int(entry.name))
    return found


def _settled_processes(container_id: str, expected: int) -> list[int]:
    """The processes once there are as many as expected: an ended one may take a moment to go."""
    end = time.monotonic() + _SETTLE_SECONDS
    while len(found := _processes(container_id)) != expected and time.monotonic() < end:
        select([], [], [], _PAUSE_SECONDS)
    return found
