"""The guest kernel's IPVS: read, and changed one request at a time."""

from __future__ import annotations

import errno

from kata_runtime.errors import ConflictError, InputError, KernelError, ProtocolError
from kata_runtime.fast_functools import lru_cache
from kata_runtime.ipvs import codec, sockopt_services, sockopt_table
from kata_runtime.ipvs.attributes import NOT_COUNTED
from kata_runtime.ipvs.model import (
    AddServer,
    AddService,
    Clear,
    DeleteServer,
    DeleteService,
    EditServer,
    EditService,
    Service,
    SetTimeouts,
    StartDaemon,
    StopDaemon,
    Zero,
)
from kata_runtime.ipvs.socket_options import covers
from kata_runtime.ipvs.sockopt_table import ServerDetails
from kata_runtime.netlink.exchange import ROW_BYTES, Request, asked, call, dump_each
from kata_runtime.netlink.message import NLM_F_DUMP
from kata_runtime.netlink.transport import Family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence
    from typing import Protocol, TypeVar

    from kata_runtime.errors import KataError
    from kata_runtime.ipvs.model import (
        Change,
        Connection,
        Daemon,
        Server,
        ServiceKey,
        ServiceSpec,
        Statistics,
        Timeouts,
    )
    from kata_runtime.ipvs.rules import Table
    from kata_runtime.ipvs.socket_options import Guest as OptionsGuest
    from kata_runtime.netlink.transport import Transport

    Head = tuple[ServiceSpec, Statistics]
    T = TypeVar("T")

    class Guest(Transport, OptionsGuest, Protocol):
        """A kernel that is asked by netlink, socket options and files."""


# The kernel searches the file from its head for each page of it (fs/seq_file.c): up to so many services it is faster
# than netlink.
_FILE_SERVICES = 2000


class Engine:
    """IPVS of one guest; ``family`` is the number of its generic netlink family."""

    def __init__(self, transport: Guest, family: int) -> None:
        self._transport = transport
        self._family = family

    def info(self) -> tuple[tuple[int, int, int], int]:
        """Version and size of the table of connections.

        :raise KernelError, ProtocolError: as for all methods: the kernel refused, or its answer is broken.
        """
        return codec.unpack_info(self._one(codec.GET_INFO, "describe IPVS"))

    def timeouts(self) -> Timeouts:
        """Timeouts of connections, in seconds."""
        return codec.unpack_timeouts(self._one(codec.GET_CONFIG, "read the IPVS timeouts"))

    def daemons(self) -> list[Daemon]:
        """The synchronisation daemons that run."""
        payload = codec.service_payload(codec.GET_DAEMON, b"")
        request = Request("list synchronisation daemons", self._family, NLM_F_DUMP, payload)
        return [codec.unpack_daemon(message.payload) for message in call(self._transport, Family.GENERIC, request)]

    def heads(self, *, statistics: bool = True) -> list[Head]:
        """All services without their servers, in the kernel's order; ``statistics``: with their counters."""
        return self.ask_heads(statistics=statistics)()

    def ask_heads(self, *, statistics: bool) -> Callable[[], list[Head]]:
        """``heads`` in two steps: they are asked for, and what is returned takes the answer."""
        request = Request("list services", self._family, NLM_F_DUMP, codec.service_payload(codec.GET_SERVICE, b""))

        def decode(payload: bytes) -> Head:
            return codec.unpack_service(payload, statistics=statistics)

        # With their counters services take twice the memory.
        row_bytes = 2 * ROW_BYTES if statistics else ROW_BYTES
        return asked(self._transport, Family.GENERIC, request, decode, row_bytes=row_bytes)

    def services(self, heads: Sequence[Head], details: ServerDetails) -> Iterator[Service]:
        """These services with their servers, in any order."""
        for (spec, statistics), servers in self.servers(heads, details, _itself):
            if servers is not None:
                yield Service(spec, statistics, servers)

    def servers(
        self, heads: Sequence[Head], details: ServerDetails, show: Callable[[Server], T]
    ) -> Iterator[tuple[Head, list[T] | None]]:
        """These services, in their order, with what ``show`` makes of their servers.

        A service of which socket options tell too little has None at first, and comes again at the end. Of equal
        servers ``show`` may be given only the first: the same stand behind many services.
        """
        keys = [spec.key for spec, _ in heads]
        asked: Sequence[tuple[bytes, int] | None]
        try:
            asked = sockopt_services.identified(self._transport, keys)
        except KernelError:
            # The guest has no such socket option, or is short of memory.
            asked = [None] * len(keys)
        return self._servers(iter(heads), asked, details, show)

    def all_servers(
        self, details: ServerDetails, show: Callable[[Server], T]
    ) -> Iterator[tuple[Head, list[T] | None]] | None:
        """``servers`` of all services, in the kernel's order; None where socket options do not tell all of them."""
        entries = sockopt_services.all_services(self._transport, statistics=details.statistics)
        if entries is None:
            return None
        heads = (entry.head(statistics=details.statistics) for entry in entries)
        return self._servers(heads, (entry.asked for entry in entries), details, show)

    def _servers(
        self,
        heads: Iterator[Head],
        asked: Iterable[tuple[bytes, int] | None],
        details: ServerDetails,
        show: Callable[[Server], T],
    ) -> Iterator[tuple[Head, list[T] | None]]:
        rest: list[Head] = []
        try:
            for rows in sockopt_table.servers(self._transport, asked, details, show):
                head = next(heads)
                if rows is None:
                    rest.append(head)
                yield head, rows
        except KernelError:
            # A service is gone, or the guest has no such socket option.
            for head in heads:
                rest.append(head)
                yield head, None
        yield from self._servers_by_netlink(rest, show, statistics=details.statistics)

    def servers_in_file(
        self, heads: Sequence[Head], show: Callable[[Server], T]
    ) -> Iterator[tuple[Head, list[T]]] | None:
        """``servers`` with what -L and most of -S show of them, from a file; None where another way is faster.

        :raise ConflictError: the table changed meanwhile. :raise ProtocolError: the kernel writes it in another way.
        """
        if len(heads) > _FILE_SERVICES or all(covers(spec.key) for spec, _ in heads):
            return None
        from kata_runtime.ipvs import proc_table  # with its regular expressions, which changes do not need

        found = proc_table.servers((spec for spec, _ in heads), self._transport.read_file(proc_table.NAME), show)
        return (((spec, NOT_COUNTED), rows) for spec, rows in found)

    def specs(self) -> list[ServiceSpec]:
        """All services without their servers, in the kernel's order."""
        return [spec for spec, _ in self.heads(statistics=False)]

    def count(self, heads: Sequence[Head] | None = None) -> int:
        """How many rules there are: services, which are ``heads`` where these are known, and servers."""
        if heads is None:
            entries = sockopt_services.all_services(self._transport, statistics=False)
            if entries is not None:
                return len(entries) + sum(entry.servers for entry in entries)
            heads = self.heads(statistics=False)
        keys = [spec.key for spec, _ in heads]
        if all(map(covers, keys)):
            try:
                known = sockopt_services.identified(self._transport, keys)
                counts = [service[1] for service in known if service is not None]
            except KernelError:
                # The guest has no such socket option, or is short of memory; the file has the same numbers.
                counts = []
            if len(counts) == len(keys):
                return len(keys) + sum(counts)
        from kata_runtime.ipvs import proc_table

        return proc_table.count(self._transport.read_file(proc_table.NAME))

    def service(self, key: ServiceKey) -> Service:
        """One service with its servers.

        :raise KernelError: ESRCH: there is none.
        """
        payload = codec.service_payload(codec.GET_SERVICE, codec.pack_service_key(key))
        request = Request(f"look up {key.description}", self._family, 0, payload)
        for message in call(self._transport, Family.GENERIC, request):
            head = codec.unpack_service(message.payload)
            ((_, servers),) = self._servers_by_netlink([head], _itself, statistics=True)
            return Service(*head, servers)
        raise ProtocolError(f"no answer about {key.description}")

    def connections(self) -> Iterator[Connection]:
        """The connections that are balanced now."""
        from kata_runtime.ipvs.connections import NAME, parse_connections

        return parse_connections(self._transport.read_file(NAME))

    def table(self, keys: Container[ServiceKey] | None = None, heads: Sequence[Head] | None = None) -> Table:
        """All services as specs, or those of ``keys`` that there are; ``heads`` as for ``count``."""
        present = self.heads(statistics=False) if heads is None else heads
        heads = [head for head in present if keys is None or head[0].key in keys]
        return {
            service.spec.key: (service.spec, {server.spec.key: server.spec for server in service.servers})
            for service in self.services(heads, ServerDetails(statistics=False, tunnels=True))
        }

    def change(self, change: Change) -> None:
        """Carry one change out, whole or not at all."""
        call(self._transport, Family.GENERIC, self.request(change))

    def request(self, change: Change) -> Request:
        """The kernel's request for a change."""
        return Request(_OPERATION, self._family, 0, _payload(change))

    def requests(self, changes: Iterable[Change]) -> Iterator[Request]:
        """The kernel's requests for many changes, each encoded when it is sent."""
        last, size, head = None, 0, b""
        for change in changes:
            if type(change) is not AddServer:
                yield self.request(change)
                continue
            # The most frequent change by far: what the requests about one service have in common is kept.
            service, spec = change
            server = codec.pack_server(spec)
            if service is not last or len(server) != size:
                last, size = service, len(server)
                head = codec.service_payload(codec.NEW_DEST, codec.pack_service_key(service), server)[:-size]
            yield _new(Request, (_OPERATION, self._family, 0, head + server))

    def _one(self, command: int, operation: str) -> bytes:
        request = Request(operation, self._family, 0, codec.service_payload(command, b""))
        for message in call(self._transport, Family.GENERIC, request):
            return message.payload
        raise ProtocolError(f"no answer to the request to {operation}")

    def _servers_by_netlink(
        self, heads: Sequence[Head], show: Callable[[Server], T], *, statistics: bool
    ) -> Iterator[tuple[Head, list[T]]]:
        requests = [self._servers_of(spec.key) for spec, _ in heads]

        @lru_cache(maxsize=1 << 13)
        def row(payload: bytes, family: int) -> T:
            return show(codec.unpack_server(payload, family, statistics=statistics))

        def decode(index: int, payload: bytes) -> T:
            return row(payload, heads[index][0].key.family)

        for index, rows in dump_each(self._transport, Family.GENERIC, requests, decode):
            yield heads[index], rows

    def _servers_of(self, key: ServiceKey) -> Request:
        payload = codec.service_payload(codec.GET_DEST, codec.pack_service_key(key))
        return Request("list servers", self._family, NLM_F_DUMP, payload)


# Its error is always explained in the words of the change: 20,000 sentences would be made in vain.
_OPERATION = "change the virtual servers"
_new = tuple.__new__


def _itself(server: Server) -> Server:
    return server


def _payload(change: Change) -> bytes:
    match change:
        case AddServer(service, spec):
            return codec.service_payload(codec.NEW_DEST, codec.pack_service_key(service), codec.pack_server(spec))
        case AddService(spec):
            return codec.service_payload(codec.NEW_SERVICE, codec.pack_service(spec))
        case EditService(spec):
            return codec.service_payload(codec.SET_SERVICE, codec.pack_service(spec))
        case DeleteService(key):
            return codec.service_payload(codec.DEL_SERVICE, codec.pack_service_key(key))
        case EditServer(service, spec):
            return codec.service_payload(codec.SET_DEST, codec.pack_service_key(service), codec.pack_server(spec))
        case DeleteServer(service, key):
            server = codec.pack_server_key(key)
            return codec.service_payload(codec.DEL_DEST, codec.pack_service_key(service), server)
        case Clear():
            return codec.service_payload(codec.FLUSH, b"")
        case Zero(key):
            return codec.service_payload(codec.ZERO, b"" if key is None else codec.pack_service_key(key))
        case SetTimeouts(timeouts):
            return codec.timeouts_payload(timeouts)
        case StartDaemon(daemon):
            return codec.daemon_payload(codec.NEW_DAEMON, codec.pack_daemon(daemon))
        case StopDaemon(state):
            return codec.daemon_payload(codec.DEL_DAEMON, codec.pack_daemon_state(state))


def explain(change: Change, error: KernelError, container: str) -> KataError:
    """The kernel's refusal of ``change`` as an error in the user's terms (net/netfilter/ipvs/ip_vs_ctl.c)."""
    where = f"in container {container[:12]}"
    match change, error.errno:
        case AddService(spec), errno.EEXIST:
            return ConflictError(f"{spec.key.description} exists already {where}", hint="edit it with -E")
        case AddService(spec) | EditService(spec), errno.ENOENT:
            what = f"scheduler {spec.scheduler}" + (f" or persistence engine {spec.engine}" if spec.engine else "")
            return InputError(f"the container's kernel has no {what}")
        case EditService(spec), errno.ESRCH:
            return _missing(spec.key, where)
        case ((DeleteService(key) | Zero(key)), errno.ESRCH) if key is not None:
            return _missing(key, where)
        case ((AddServer(service, _) | EditServer(service, _) | DeleteServer(service, _)), errno.ESRCH):
            return _missing(service, where)
        case AddServer(service, server), errno.EEXIST:
            return ConflictError(
                f"{service.description} has server {server.key.text} already {where}", hint="edit it with -e"
            )
        case EditServer(service, server), errno.ENOENT:
            return InputError(f"{service.description} has no server {server.key.text} {where}")
        case DeleteServer(service, key), errno.ENOENT:
            return InputError(f"{service.description} has no server {key.text} {where}")
        case _:
            return KernelError(f"the container's kernel refuses {describe(change)}", error.errno, error.extack)


def describe(change: Change) -> str:
    """A change described for an error message."""
    match change:
        case AddService(spec) | EditService(spec):
            return spec.key.description
        case AddServer(service, spec) | EditServer(service, spec):
            return f"server {spec.key.text} of {service.description}"
        case DeleteServer(service, key):
            return f"server {key.text} of {service.description}"
        case DeleteService(key):
            return key.description
        case StartDaemon(daemon):
            return f"a {daemon.state.name.lower()} daemon on interface {daemon.interface!a}"
        case StopDaemon(state):
            return f"the end of the {state.name.lower()} daemon"
        case SetTimeouts(timeouts):
            return f"the timeouts {' '.join(map(str, timeouts))}"
        case _:
            return "the change"


def _missing(key: ServiceKey, where: str) -> InputError:
    return InputError(f"{key.description} does not exist {where}", hint="-L shows those that do")
