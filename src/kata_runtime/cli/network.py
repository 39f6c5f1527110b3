"""kata-network: NICs and routes of a running container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_runtime.cli.sessions import session_of
from kata_runtime.cli.streams import AnswerError, read_input, tell, write_line

if TYPE_CHECKING:
    # The request module brings json along, which list-ifaces does not need.
    from collections.abc import Callable, Sequence

    from kata_runtime.cli.grammar import Call
    from kata_runtime.network.request import RouteRequest


def run(call: Call) -> int:
    """Do one kata-network command and print its result, one line of JSON; main prints that of a failure."""
    write_line(_COMMANDS[call.command.words[1]](call))
    return 0


def _add_interface(call: Call) -> str:
    from kata_runtime.network.request import read_nic_request

    request = read_nic_request(read_input(call.operands[1]))
    from kata_runtime.cli.answers import added_nic
    from kata_runtime.network.interfaces import add_interface

    with session_of(call) as session:
        added = add_interface(session, request)
    if added.note:
        tell(added.note)
    return added_nic(
        device=request.device,
        name=request.name,
        addresses=[address.with_prefix for address in request.addresses],
        mac=request.mac,
        mtu=request.mtu,
        vhost_user_socket=request.vhost_user_socket,
        queues=request.queues,
        pci_address=added.pci_address,
    )


def _list_interfaces(call: Call) -> str:
    from kata_runtime.network.interfaces import list_interfaces

    with session_of(call) as session:
        nics = list_interfaces(session)
    if not nics:
        return "null"
    from kata_runtime.cli.answers import listed_nics

    return listed_nics((nic.name, nic.mac, nic.ip, nic.mtu) for nic in nics)


def _delete_interface(call: Call) -> str:
    from kata_runtime.network.request import read_nic_name

    name = read_nic_name(read_input(call.operands[1]))
    from kata_runtime.cli.answers import remaining_nic
    from kata_runtime.network.interfaces import delete_interface, find_record

    with session_of(call) as session:
        try:
            delete_interface(session, name)
        except BaseException as exc:
            nic = find_record(session, name)
            if nic is None:
                raise
            left = remaining_nic(
                device=nic.device,
                name=nic.name,
                addresses=nic.addresses,
                mac=nic.mac,
                mtu=nic.mtu,
                vhost_user_socket=nic.vhost_user_socket,
            )
            raise AnswerError(exc, left) from exc
    return "null"


def _add_routes(call: Call) -> str:
    from kata_runtime.network.request import read_route_requests
    from kata_runtime.network.routes import add_routes

    requests = read_route_requests(read_input(call.operands[1]))
    with session_of(call) as session:
        add_routes(session, requests)
    return _as_given(requests)


def _delete_routes(call: Call) -> str:
    from kata_runtime.network.request import read_route_filters
    from kata_runtime.network.routes import delete_routes

    filters = read_route_filters(read_input(call.operands[1]))
    with session_of(call) as session:
        delete_routes(session, filters)
    return _as_given(filters)


def _list_routes(call: Call) -> str:
    from kata_runtime.cli.answers import listed_routes
    from kata_runtime.network.routes import list_routes

    with session_of(call) as session:
        routes = list_routes(session)
    return listed_routes((route.dest, route.gateway, route.device) for route in routes)


def _update_routes(call: Call) -> str:
    from kata_runtime.cli.answers import listed_routes
    from kata_runtime.network.request import read_route_table
    from kata_runtime.network.routes import update_routes

    requests = read_route_table(read_input(call.operands[1]))
    with session_of(call) as session:
        routes = update_routes(session, requests)
    return listed_routes((route.dest, route.gateway, route.device) for route in routes)


def _as_given(routes: Sequence[RouteRequest]) -> str:
    from kata_runtime.cli.answers import listed_routes

    return listed_routes((route.dest, route.gateway, route.device) for route in routes)


_COMMANDS: dict[str, Callable[[Call], str]] = {
    "add-iface": _add_interface,
    "list-ifaces": _list_interfaces,
    "del-iface": _delete_interface,
    "add-route": _add_routes,
    "del-route": _delete_routes,
    "list-routes": _list_routes,
    "update-routes": _update_routes,
}
