"""Commands that only read the table, answered as ipvsadm prints them, or as JSON."""

from __future__ import annotations

from _operator import itemgetter
from itertools import chain

from kata_runtime.errors import ConflictError, KernelError, ProtocolError
from kata_runtime.ipvs import listing, listing_order, saved_rules
from kata_runtime.ipvs.engine import explain
from kata_runtime.ipvs.model import (
    Forwarding,
    ListConnections,
    ListDaemons,
    ListTable,
    ListTimeouts,
    Save,
    View,
    Zero,
)
from kata_runtime.ipvs.sockopt_table import ServerDetails
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kata_runtime.ipvs.engine import Engine, Head
    from kata_runtime.ipvs.model import Question, Server, ServerKey, Service, ServiceKey

# Short texts are joined to parts of this size.
_PART_CHARACTERS = 64 * 1024
# What is held before it can be brought into order; 200,000 rules are 16 MiB.
TEXT_MAX = 64 * 1024 * 1024  # bytes


def answer(engine: Engine, question: Question, fmt: str, container: str) -> Iterator[bytes]:
    """The answer in parts; ``fmt`` is ``text`` or ``json``, ``container`` is for errors.

    :raise InputError: the service asked for does not exist. :raise KernelError, GuestError: it cannot be read.
    """
    if fmt == "json":
        from kata_runtime.ipvs.json_tables import render

        return _joined(render(engine, question))
    return _parts(engine, question, container)


def _joined(texts: Iterable[str]) -> Iterator[bytes]:
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= _PART_CHARACTERS:
            yield _encoded(held)
            held.clear()
            size = 0
    yield _encoded(held)


def _encoded(texts: Iterable[str]) -> bytes:
    return "".join(texts).encode()


class _Row(NamedTuple):
    """A server in the answer, and what it is sorted by."""

    key: ServerKey
    text: str
    is_tunnelled: bool = False


_key = itemgetter(0)  # of a row: in C, since there are hundreds of thousands


def _parts(engine: Engine, question: Question, container: str) -> Iterator[bytes]:
    match question:
        case ListTable(key, view, exact, is_sorted):

            def show(server: Server) -> _Row:
                return _Row(server.spec.key, listing.server(server, view, exact=exact))

            def lines(head: Head, rows: Sequence[_Row]) -> bytes:
                shown = listing_order.servers_in_order(rows, _key) if is_sorted else rows
                return _encoded([listing.service(*head, view, exact=exact), *(row.text for row in shown)])

            heading = listing.heading(view)
            if key is not None:
                found = _existing(engine, key, container)
                return iter([heading.encode(), lines((found.spec, found.statistics), list(map(show, found.servers)))])
            title = listing.title(*engine.info())
            services = _of_services(engine, show, lines, view)
            return chain([(title + heading).encode()], _ordered(services, is_sorted=is_sorted))
        case ListConnections(with_engine):
            return _joined(listing.connections(engine.connections(), with_engine=with_engine))
        case ListTimeouts():
            return _joined([listing.timeouts(engine.timeouts())])
        case ListDaemons():
            return _joined([listing.daemons(engine.daemons())])
        case Save():
            return iter(_ordered(_saved(engine), is_sorted=True))


def _existing(engine: Engine, key: ServiceKey, container: str) -> Service:
    try:
        return engine.service(key)
    except KernelError as error:
        raise explain(Zero(key), error, container) from error


def _ordered(texts: dict[ServiceKey, bytes], *, is_sorted: bool) -> list[bytes]:
    return listing_order.by_service(list(texts.items())) if is_sorted else list(texts.values())


def _of_services(
    engine: Engine, show: Callable[[Server], _Row], text: Callable[[Head, Sequence[_Row]], bytes], view: View
) -> dict[ServiceKey, bytes]:
    """The text of each service, in the kernel's order, made while services arrive: text is smaller."""
    is_counted = view in (View.STATISTICS, View.RATES)
    details = ServerDetails(statistics=is_counted, tunnels=view == View.TUNNELS)
    everything = engine.all_servers(details, show)
    if everything is not None:
        return _gathered(everything, text)
    heads = engine.heads(statistics=is_counted)
    listed = engine.servers_in_file(heads, show) if view == View.CONNECTIONS else None
    if listed is not None:
        try:
            return _gathered(listed, text)
        except (ConflictError, ProtocolError):
            # Somebody in the container changes the table, or its kernel writes the file in another way. Netlink and
            # socket options read each service as a whole.
            heads = engine.heads(statistics=False)
    return _gathered(engine.servers(heads, details, show), text)


def _gathered(
    found: Iterable[tuple[Head, list[_Row] | None]], text: Callable[[Head, Sequence[_Row]], bytes]
) -> dict[ServiceKey, bytes]:
    texts: dict[ServiceKey, bytes] = {}
    held = 0
    for head, rows in found:
        made = texts[head[0].key] = b"" if rows is None else text(head, rows)
        held += len(made)
        if held > TEXT_MAX:
            raise ProtocolError("the guest lists more virtual servers than can be held in memory")
    return texts


def _saved(engine: Engine) -> dict[ServiceKey, bytes]:
    tunnelled: set[ServiceKey] = set()

    def show(server: Server) -> _Row:
        spec = server.spec
        return _Row(spec.key, saved_rules.server_words(spec), spec.forwarding == Forwarding.TUNNEL)

    def rules(head: Head, rows: Sequence[_Row]) -> bytes:
        spec, _ = head
        if any(row.is_tunnelled for row in rows):
            tunnelled.add(spec.key)
        return saved_rules.rules(spec, [row.text for row in listing_order.servers_in_order(rows, _key)]).encode()

    texts = _of_services(engine, show, rules, View.CONNECTIONS)
    if tunnelled:
        # Neither the file nor the socket options have the kind of tunnel.
        heads = [head for head in engine.heads(statistics=False) if head[0].key in tunnelled]
        details = ServerDetails(statistics=False, tunnels=True)
        texts |= _gathered(engine.servers(heads, details, show), rules)
    return texts
