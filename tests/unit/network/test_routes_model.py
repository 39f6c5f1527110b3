"""The route commands against a model of a routing table, by random sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.network.test_routes_commands import CONNECTED, filters, table, wanted
from tests.unit.typed_addresses import listed_route

from kata_runtime.errors import KataError
from kata_runtime.network.routes import add_routes, delete_routes, list_routes, update_routes

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from kata_runtime.network.route_table import ListedRoute

DESTINATIONS = ("default", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "fd77::/64", "fd77::1")
GATEWAYS = {
    "172.16.0.1": "eth0",
    "172.16.0.2": "eth0",
    "172.17.0.1": "eth1",
    "fd00::1": "eth0",
    "fd01::1": "eth1",
}
Entry = tuple[str, str, str]


def _entries() -> st.SearchStrategy[Entry]:
    """Routes that can be, and some that cannot: gateway on the wrong device, device down or unknown."""
    devices = st.sampled_from(["eth0", "eth1", "eth1", "eth2", "no"])

    def over(dest: str) -> st.SearchStrategy[Entry]:
        gateways = [gateway for gateway in GATEWAYS if dest == "default" or (":" in dest) == (":" in gateway)]
        right = st.sampled_from(gateways).map(lambda gateway: (dest, gateway, GATEWAYS[gateway]))
        wrong = st.tuples(st.just(dest), st.sampled_from(gateways), devices)
        on_link = st.tuples(st.just(dest), st.just(""), devices)
        return st.one_of(right, wrong) if dest == "default" else st.one_of(right, wrong, on_link)

    return st.sampled_from(DESTINATIONS).flatmap(over)


class Model:
    """A routing table as a dictionary: (family, dest) to (gateway, device)."""

    def __init__(self) -> None:
        self.routes: dict[tuple[bool, str], tuple[str, str]] = {}

    @staticmethod
    def _key(entry: Entry) -> tuple[bool, str]:
        return ":" in (entry[0] + entry[1]), entry[0]

    @staticmethod
    def _possible(entry: Entry) -> bool:
        return entry[2] in ("eth0", "eth1") and (not entry[1] or GATEWAYS[entry[1]] == entry[2])

    def add(self, entries: list[Entry]) -> bool:
        """Whether all could be added; when not, none was."""
        added = dict(self.routes)
        for entry in entries:
            if not self._possible(entry) or self._key(entry) in added:
                return False
            added[self._key(entry)] = entry[1:]
        self.routes = added
        return True

    def delete(self, entries: list[Entry]) -> bool:
        """Whether each matched something."""
        left = dict(self.routes)
        for dest, gateway, device in entries:
            matching = [
                key
                for key, value in left.items()
                if key[1] == dest and gateway in ("", value[0]) and device in ("", value[1])
            ]
            if not matching:
                return False
            for key in matching:
                del left[key]
        self.routes = left
        return True

    def update(self, entries: list[Entry]) -> bool:
        """Whether the list could replace the table; one that is there already need not be possible again."""
        replaced: dict[tuple[bool, str], tuple[str, str]] = {}
        for entry in entries:
            if not self._possible(entry) or self._key(entry) in replaced:
                return False
            replaced[self._key(entry)] = entry[1:]
        self.routes = replaced
        return True

    def listed(self) -> set[ListedRoute]:
        """What list-routes has to show."""
        return {listed_route(key[1], *value) for key, value in self.routes.items()} | set(CONNECTED)


def _run(session: Any, verb: str, entries: list[Entry]) -> bool:
    rows = tuple(" ".join(field or "-" for field in entry) for entry in entries)
    try:
        if verb == "add":
            add_routes(session, wanted(*rows))
        elif verb == "delete":
            delete_routes(session, filters(*rows))
        else:
            update_routes(session, table(*rows))
    except KataError:
        return False
    return True


def sequences() -> st.SearchStrategy[list[tuple[str, list[Entry]]]]:
    """Commands with their routes."""
    verbs = st.sampled_from(["add", "delete", "update"])
    return st.lists(st.tuples(verbs, st.lists(_entries(), min_size=1, max_size=4)), min_size=1, max_size=10)


def agree(session: Any, commands: list[tuple[str, list[Entry]]]) -> None:
    """Assert that each command succeeds or fails as in the model, and leaves the same routes."""
    model = Model()
    for verb, entries in commands:
        expected = getattr(model, verb)(entries)
        assert (_run(session, verb, entries), verb, entries) == (expected, verb, entries)
        listed = list_routes(session)
        assert len(listed) == len(set(listed))
        assert set(listed) == model.listed()
        assert session.record.pending == ()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(commands=sequences())
def test_commands_agree_with_a_model(
    make_session: Callable[[], AbstractContextManager[Any]], commands: list[tuple[str, list[Entry]]]
) -> None:
    """Random sequences of commands succeed, fail and leave routes exactly as a plain table does."""
    with make_session() as session:
        agree(session, commands)
