"""A command on a running sandbox that is ended at one of its steps, and what must hold afterwards."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NamedTuple

from tests.system.killing.tracer import MOMENTS, run_traced
from tests.system.killing.world import differences, look

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Completed, Sandbox
    from tests.system.killing.tracer import Traced
    from tests.system.killing.world import World

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


class Point(NamedTuple):
    """A signal before or after a command's changing call of that place."""

    at: int
    moment: str
    number: signal.Signals


def points_of(calls: int) -> list[Point]:
    """All the points of a command with this many changing calls."""
    return [Point(at, moment, number) for at in range(calls) for moment in MOMENTS for number in SIGNALS]


class Invocation(NamedTuple):
    """A command line, without the program and its global flags, and its standard input."""

    words: tuple[str, ...]
    stdin: bytes = b""


class Plan(NamedTuple):
    """A command to be ended at any step, the commands that take its effect back, and one that only reads."""

    name: str
    command: Invocation
    undo: tuple[Invocation, ...]
    reading: Invocation


class Subject:
    """One plan on one sandbox, whose state must be the same whenever ``survive`` is called."""

    def __init__(self, sandbox: Sandbox, plan: Plan) -> None:
        self._sandbox = sandbox
        self.plan = plan
        self._before = self._look()
        self._read_before = self._run(plan.reading)
        # The first time Python may have to write what it compiled.
        self._answer = self._run(plan.command)
        self._after = self._look()
        self._read_after = self._run(plan.reading)
        self._take_back()
        listed = run_traced(sandbox.runtime.argv(*plan.command.words), plan.command.stdin)
        assert (listed.status, listed.stdout, listed.stderr) == (0, self._answer, ""), (plan.name, listed)
        self.calls = listed.calls
        self._take_back()
        found = self._look(self._before, self._after)
        assert found == self._before != self._after, (plan.name, differences(found, self._before))

    def points(self) -> list[Point]:
        """All of them."""
        return points_of(len(self.calls))

    def survive(self, point: Point) -> list[str]:
        """End the command there; what is wrong afterwards, a line each."""
        command = self.plan.command
        argv = self._sandbox.runtime.argv(*command.words)
        ended = run_traced(argv, command.stdin, at=point.at, moment=point.moment, number=point.number)
        wrong = list(_wrong_with(ended, point.number, self._answer))
        # After SIGKILL nobody is there to remove a half-written file; the next change replaces it.
        return wrong + self._wrong_afterwards(ended.status, may_leave_files=point.number == signal.SIGKILL)

    def survive_failure(self, at: int, error: int) -> list[str]:
        """Let the call of that place fail with this errno; what is wrong afterwards, a line each."""
        command = self.plan.command
        ended = run_traced(self._sandbox.runtime.argv(*command.words), command.stdin, at=at, error=error)
        lines = ended.stderr.splitlines()
        told = len(lines) == 1 and lines[0].startswith("kata-runtime: ") and "internal error" not in lines[0]
        wrong = []
        if ended.hung or ended.status not in (0, 1) or (ended.status == 1) != told:
            wrong.append(f"it ended with {ended.status}, hung: {ended.hung}, {ended.stdout!r} {ended.stderr!r}")
        # What cannot be removed from a broken disk stays.
        return wrong + self._wrong_afterwards(ended.status, may_leave_files=True)

    def _wrong_afterwards(self, status: int, *, may_leave_files: bool) -> list[str]:
        """Read, look, do it again or take it back."""
        wrong = []
        read = self._attempt(self.plan.reading)
        if (read.returncode, read.stderr) != (0, "") or read.stdout not in (self._read_before, self._read_after):
            wrong.append(f"the reading command ended with {read.returncode}: {read.stdout!r} {read.stderr!r}")
        found = self._look(self._before, self._after)
        done = _essence(found) == _essence(self._after)
        wanted = self._after if done else self._before
        if may_leave_files:
            found = found._replace(files=wanted.files)
        wrong += [differences(found, wanted)] if found != wanted else []
        if not done:
            wrong += ["it succeeded, and nothing has changed"] if status == 0 else []
            again = self._attempt(self.plan.command)
            if (again.returncode, again.stdout, again.stderr) != (0, self._answer, ""):
                wrong.append(f"done again, it ends with {again.returncode}: {again.stdout!r} {again.stderr!r}")
        self._take_back()
        if may_leave_files:
            left = self._look(self._before)
            wrong += [f"in the end {differences(left, self._before)}"] if left != self._before else []
        return wrong

    def _look(self, *expected: World) -> World:
        descriptors = {world.descriptors for world in expected}
        return look(self._sandbox, descriptors, servers="ipvs" in self.plan.command.words[0])

    def _take_back(self) -> None:
        for words in self.plan.undo:
            self._run(words)

    def _attempt(self, words: Invocation) -> Completed:
        return self._sandbox.cli(*words.words, stdin=words.stdin)

    def _run(self, words: Invocation) -> str:
        done = self._attempt(words)
        assert (done.returncode, done.stderr) == (0, ""), (self.plan.name, words, done.stdout, done.stderr)
        return done.stdout


def _essence(world: World) -> tuple[object, ...]:
    return world.record, world.links, world.routes, world.servers


def _wrong_with(ended: Traced, number: signal.Signals, answer: str) -> Iterator[str]:
    """What a command may not do when a signal ends it."""
    if ended.hung:
        yield f"it hung: {ended.stderr!r}"
        return
    told = f"kata-runtime: ended by {number.name}; its change is made whole or not at all\n"
    if ended.status == 0:
        fine = (ended.stdout, ended.stderr) == (answer, "")
    elif ended.status == 128 + number:
        fine = ended.stderr == told
    elif ended.status == -number:
        # As its last step a command gives signals their meaning back: there is nothing left to undo.
        fine = ended.stdout in ("", answer) and ended.stderr == ""
    else:
        fine = False
    if not fine or (number == signal.SIGKILL and ended.reached and ended.status != -number):
        yield f"it ended with {ended.status}: {ended.stdout!r} {ended.stderr!r}"
