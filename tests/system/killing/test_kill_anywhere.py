"""Commands that are ended at their steps, which are its system calls: a sample; ``make kill-anywhere`` tries all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.system.killing.life import Deletion, Start
from tests.system.killing.plans import plans, prepared, starting_point
from tests.system.killing.subject import Subject

if TYPE_CHECKING:
    from tests.system.conftest import Namespace, Runtime, Sandbox
    from tests.system.killing.life import Life

# Of the points of a command, six a call; prime to six, so that signals and moments take turns.
_EACH = 11
_LEAST_CALLS = 15


@pytest.mark.parametrize("place", range(len(plans(""))), ids=[plan.name for plan in plans("")])
def test_ended_at_its_steps(sandbox: Sandbox, namespace: Namespace, place: int) -> None:
    """Wherever it is ended, its change is there whole or not at all, nothing is left over, and it can be done again."""
    plan = plans(sandbox.id)[place]
    with prepared(sandbox):
        for words in starting_point(plan):
            assert sandbox.cli(*words.words, stdin=words.stdin).stderr == ""
        subject = Subject(sandbox, plan)
        tried = {point: subject.survive(point) for point in subject.points()[place::_EACH]}
    assert {point: wrong for point, wrong in tried.items() if wrong} == {}
    assert len(subject.calls) >= _LEAST_CALLS


@pytest.mark.parametrize(("life", "each"), [(Start, 71), (Deletion, 17)], ids=["run", "delete"])
def test_start_and_deletion_ended_at_their_steps(runtime: Runtime, life: type[Life], each: int) -> None:
    """Wherever it is ended, a process runs only when the record names it, and delete --force leaves nothing."""
    subject = life(runtime)
    tried = {point: subject.survive(point) for point in subject.points()[::each]}
    assert {point: wrong for point, wrong in tried.items() if wrong} == {}
    assert len(tried) >= 10
