"""Applies changes of a network namespace's interfaces, addresses, routes and neighbours to the guest.

Only what changed there is changed in the guest: a route that was added or deleted with kata-network stays so until a
route of the namespace to the same destination changes.
"""

from __future__ import annotations

from kata_runtime.errors import GuestError, KataError, KernelError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.exchange import Request, attempt_all
from kata_runtime.netlink.transport import Family
from kata_runtime.network.namespace_facts import addition, describe, kind_of, names_in, read_holdings, removal, route_in
from kata_runtime.network.route_table import Groups, group, plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_runtime.netlink.route import Route
    from kata_runtime.netlink.transport import Transport

# The second round adds again what the kernel deleted by itself in the first, such as secondary addresses with their
# primary one.
_PASSES = 3
_OF_A_LINK = ("mac", "mtu", "state")


class _Guest(NamedTuple):
    indexes: dict[str, int]
    facts: list[str]
    routes: list[Route]

    def has_all(self, fact: str) -> bool:
        """Whether the guest has all interfaces that a fact names."""
        return all(name in self.indexes for name in names_in(fact) if name)


class _Step(NamedTuple):
    fact: str
    request: Request


def mirror(guest: Transport, before: Sequence[str], after: Sequence[str]) -> dict[str, KataError]:
    """Apply the difference between two states of the namespace to the guest; returns its kernel's refusals by fact.

    It can be repeated: what is in place already is not touched.

    :raise GuestError, ProtocolError, DeadlineError: the channel failed.
    """
    known, target = set(before), set(after)
    state = _look(guest)
    # What the container's user deleted is not added again.
    kept = [fact for fact in after if fact not in known or fact in state.facts]
    refused: dict[str, KernelError] = {}
    for _ in range(_PASSES):
        present = set(state.facts)
        missing = [fact for fact in kept if fact not in present]
        leaving = [fact for fact in state.facts if fact in known and fact not in target]
        leaving = [fact for fact in leaving if kind_of(fact) not in _OF_A_LINK]
        if not missing and not leaving:
            return {}
        refused = _change(guest, _steps(state, [fact for fact in kept if state.has_all(fact)], missing, leaving))
        state = _look(guest)
    present = set(state.facts)
    return {fact: _reason(fact, refused.get(fact)) for fact in kept if fact not in present}


def _look(guest: Transport) -> _Guest:
    holdings = read_holdings(guest)
    names = {link.index: link.name for link in holdings.links}
    indexes = {name: index for index, name in names.items()}
    facts = holdings.facts(names)
    return _Guest(indexes, facts, [route_in(fact, indexes) for fact in facts if kind_of(fact) == "route"])


def _change(guest: Transport, steps: list[_Step]) -> dict[str, KernelError]:
    refused = attempt_all(guest, Family.ROUTE, [step.request for step in steps])
    return {steps[place].fact: error for place, error in refused.items()}


def _steps(state: _Guest, kept: list[str], missing: list[str], leaving: list[str]) -> list[_Step]:
    """The changes in order: addresses are added before routes that may need them, and deleted after those routes."""
    possible = [fact for fact in missing if state.has_all(fact)]
    steps = []
    for kind in (*_OF_A_LINK, "address"):
        steps += [_Step(fact, addition(fact, state.indexes)) for fact in possible if kind_of(fact) == kind]
    steps += _route_steps(state, kept, possible, leaving)
    steps += [_Step("", removal(fact, state.indexes)) for fact in leaving if kind_of(fact) in ("address", "neighbour")]
    steps += [_Step(fact, addition(fact, state.indexes)) for fact in possible if kind_of(fact) == "neighbour"]
    return steps


def _route_steps(state: _Guest, kept: list[str], missing: list[str], leaving: list[str]) -> list[_Step]:
    """Destinations with new routes in the namespace get its routes to them; others only lose those deleted there."""
    going = {route_in(fact, state.indexes).payload for fact in leaving if kind_of(fact) == "route"}
    current = group(state.routes)
    wanted: Groups = {
        key: [route for route in routes if route.payload not in going]
        for key, routes in current.items()
        if any(route.payload in going for route in routes)
    }
    facts = {route_in(fact, state.indexes): fact for fact in kept if kind_of(fact) == "route"}
    news = set(missing)
    changed = {route.key for route, fact in facts.items() if fact in news}
    wanted.update({key: [] for key in changed})
    for route in facts:
        if route.key in changed:
            wanted[route.key].append(route)
    return [_Step(facts.get(step.route, ""), step.request) for step in plan(current, wanted)]


def _reason(fact: str, error: KernelError | None) -> KataError:
    why = "it does not stay" if error is None else str(error).removeprefix(f"{error.operation}: ")
    return GuestError(f"the container's kernel does not take the {describe(fact)} from its network namespace: {why}")
