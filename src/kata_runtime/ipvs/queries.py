"""Commands that only read the table, answered as ipvsadm prints them, or as JSON."""

from __future__ import annotations

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
    Service,
    View,
    Zero,
)
from kata_runtime.ipvs.sockopt_table import ServerDetails

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kata_runtime.ipvs.engine import Engine
    from kata_runtime.ipvs.model import Question, ServiceKey

# What one write takes; the kernel copies a pipe's worth at a time.
_CHUNK_CHARACTERS = 64 * 1024
# What is held before it can be brought into order; 200,000 rules are 16 MiB.
TEXT_MAX = 64 * 1024 * 1024  # characters


def answer(engine: Engine, question: Question, fmt: str, container: str) -> Iterator[str]:
    """The answer in chunks; ``fmt`` is ``text`` or ``json``, ``container`` is for errors.

    :raise InputError: the service asked for does not exist. :raise KernelError, GuestError: it cannot be read.
    """
    if fmt == "json":
        from kata_runtime.ipvs.json_tables import render

        yield from _chunks(render(engine, question))
        return
    yield from _chunks(_texts(engine, question, container))


def _chunks(texts: Iterable[str]) -> Iterator[str]:
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= _CHUNK_CHARACTERS:
            yield "".join(held)
            held.clear()
            size = 0
    yield "".join(held)


def _texts(engine: Engine, question: Question, container: str) -> Iterable[str]:
    match question:
        case ListTable(key, view, exact, is_sorted):

            def lines(service: Service) -> str:
                shown = (
                    service._replace(servers=listing_order.servers_in_order(service.servers)) if is_sorted else service
                )
                return listing.service(shown, view, exact=exact)

            heading = listing.heading(view)
            if key is not None:
                return [heading, lines(_existing(engine, key, container))]
            title = listing.title(*engine.info())
            return chain([title, heading], _ordered(_of_services(engine, lines, view), is_sorted=is_sorted))
        case ListConnections(with_engine):
            return listing.connections(engine.connections(), with_engine=with_engine)
        case ListTimeouts():
            return [listing.timeouts(engine.timeouts())]
        case ListDaemons():
            return [listing.daemons(engine.daemons())]
        case Save():
            return _ordered(_saved(engine), is_sorted=True)


def _existing(engine: Engine, key: ServiceKey, container: str) -> Service:
    try:
        return engine.service(key)
    except KernelError as error:
        raise explain(Zero(key), error, container) from error


def _ordered(texts: dict[ServiceKey, str], *, is_sorted: bool) -> list[str]:
    return listing_order.by_service(list(texts.items())) if is_sorted else list(texts.values())


def _of_services(engine: Engine, text: Callable[[Service], str], view: View) -> dict[ServiceKey, str]:
    """The text of each service, in the kernel's order, made while services arrive: text is smaller."""
    is_counted = view in (View.STATISTICS, View.RATES)
    heads = engine.heads(statistics=is_counted)
    order_of_kernel = dict.fromkeys((spec.key for spec, _ in heads), "")
    if view == View.CONNECTIONS:
        try:
            return order_of_kernel | _gathered(engine.shown_services(heads), text)
        except (ConflictError, ProtocolError):
            # Somebody in the container changes the table, or its kernel writes the file in another way. Netlink
            # reads each service as a whole.
            heads = engine.heads(statistics=False)
            order_of_kernel = dict.fromkeys((spec.key for spec, _ in heads), "")
    details = ServerDetails(statistics=is_counted, tunnels=view == View.TUNNELS)
    return order_of_kernel | _gathered(engine.services(heads, details), text)


def _gathered(services: Iterable[Service], text: Callable[[Service], str]) -> dict[ServiceKey, str]:
    texts: dict[ServiceKey, str] = {}
    held = 0
    for service in services:
        made = texts[service.spec.key] = text(service)
        held += len(made)
        if held > TEXT_MAX:
            raise ProtocolError("the guest lists more virtual servers than can be held in memory")
    return texts


def _saved(engine: Engine) -> dict[ServiceKey, str]:
    tunnelled: set[ServiceKey] = set()

    def rules(service: Service) -> str:
        if any(server.spec.forwarding == Forwarding.TUNNEL for server in service.servers):
            tunnelled.add(service.spec.key)
        return saved_rules.rules(service._replace(servers=listing_order.servers_in_order(service.servers)))

    texts = _of_services(engine, rules, View.CONNECTIONS)
    if tunnelled:
        # Neither the file nor the socket options have the kind of tunnel.
        heads = [head for head in engine.heads(statistics=False) if head[0].key in tunnelled]
        details = ServerDetails(statistics=False, tunnels=True)
        texts |= {service.spec.key: rules(service) for service in engine.services(heads, details)}
    return texts
