"""kata-network: NICs and routes of a running container."""

from __future__ import annotations

from kata_runtime.cli.sessions import session_of
from kata_runtime.cli.streams import AnswerError, AnswerLostError, OutputClosedError, notify, read_input, write_line
from kata_runtime.errors import HostError, KataError, OnlyPlannedError, UsageError
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    # The request module imports json, which list-ifaces does not need.
    from collections.abc import Callable, Iterable, Sequence

    from kata_runtime.cli.argument_parser import Call
    from kata_runtime.network.interfaces import AddedNic
    from kata_runtime.sandbox.record import NicRecord


class _Answer(NamedTuple):
    """The output of a command; if it cannot be printed, ``lost`` is called and describes the outcome."""

    text: str
    lost: Callable[[], str] | None


def run(call: Call) -> int:
    """Carry out a kata-network command and print its result, one line of JSON; main prints that of a failure."""
    try:
        answer = _COMMANDS[call.command.words[1]](call)
    except OnlyPlannedError as planned:
        from kata_runtime.cli.dry_run import print_plan

        return print_plan(planned)
    try:
        write_line(answer.text)
    except (OutputClosedError, HostError) as exc:
        if answer.lost is None:
            raise
        raise AnswerLostError(exc, answer.lost()) from exc
    return 0


def _carried_out() -> str:
    """The outcome of a command that cannot be undone exactly and whose answer was not printed."""
    return "the change was made nevertheless"


def _add_interface(call: Call) -> _Answer:
    from kata_runtime.network.requests import read_nic_request

    request = read_nic_request(read_input(call.operands[1]))
    from kata_runtime.network.interfaces import add_interface

    with session_of(call, "interface") as session:
        added = add_interface(session, request)
        nic = session.record.nics[-1]
    return _added(call, added, nic)


def _added(call: Call, added: AddedNic, nic: NicRecord) -> _Answer:
    from kata_runtime.cli.network_json import added_nic

    if added.note:
        notify(added.note)
    return _Answer(added_nic(added, nic), lambda: _take_out(call, nic))


def _take_out(call: Call, nic: NicRecord) -> str:
    """Unplug a NIC whose PCI path could not be printed; returns the outcome."""
    from kata_runtime.network.interfaces import delete_interface, find_record

    try:
        with session_of(call, "interface") as session:
            if find_record(session, nic.name) != nic:
                return f"NIC {nic.name!a} was deleted meanwhile"
            delete_interface(session, nic.name)
    except KataError as error:
        return f"NIC {nic.name!a} is in the container, and cannot be removed again: {error}"
    return f"NIC {nic.name!a} was removed again"


def _list_interfaces(call: Call) -> _Answer:
    from kata_runtime.network.interfaces import list_interfaces

    is_table = _wants_table(call)
    with session_of(call, "interface", changes=False) as session:
        nics = list_interfaces(session)
    if is_table:
        return _table(
            ("NAME", "MAC", "IP", "MTU"),
            [(n.name, str(n.mac), " ".join(map(str, n.addresses)), str(n.mtu)) for n in nics],
        )
    if not nics:
        return _Answer("null", None)
    from kata_runtime.cli.network_json import listed_nics

    return _Answer(listed_nics(nics), None)


def _wants_table(call: Call) -> bool:
    """Whether a list is to be a table; the package for tables is looked for before the work.

    :raise HostError: it is not installed.
    """
    if call.value("--format") != "table":
        return False
    from kata_runtime.optional_packages import RICH, require

    require(RICH)
    return True


def _cell(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> _Answer:
    from kata_runtime.cli.rich_output import table

    return _Answer(table(headings, rows).rstrip("\n"), None)


def _delete_interface(call: Call) -> _Answer:
    name = _name_to_delete(call)
    from kata_runtime.cli.network_json import remaining_nic
    from kata_runtime.network.interfaces import delete_interface, find_record

    with session_of(call, "interface") as session:
        try:
            delete_interface(session, name)
        except OnlyPlannedError:
            raise
        except BaseException as exc:
            nic = find_record(session, name)
            if nic is None:
                raise
            raise AnswerError(exc, remaining_nic(nic)) from exc
    return _Answer("null", _carried_out)


def _add_port(call: Call) -> _Answer:
    from kata_runtime.cli import port_commands

    added, nic = port_commands.add_port(call)
    return _added(call, added, nic)


def _list_ports(call: Call) -> _Answer:
    from kata_runtime.cli import port_commands
    from kata_runtime.cli.network_json import compact

    is_table = _wants_table(call)
    ports = port_commands.list_ports(call)
    if is_table:
        headings = ("port", "name", "device", "kind", "bridge", "mac", "ip", "mtu")
        rows = [[_cell(port[heading]) for heading in headings] for port in ports]
        return _table([heading.upper() for heading in headings], rows)
    return _Answer(compact(ports or None), None)


def _delete_port(call: Call) -> _Answer:
    from kata_runtime.cli import port_commands

    port_commands.delete_port(call)
    return _Answer("null", _carried_out)


def _name_to_delete(call: Call) -> str:
    """The NIC's name from --name or from the file."""
    given = call.value("--name")
    has_file = len(call.operands) > 1
    if given is None and not has_file:
        raise UsageError("kata-network del-iface lacks FILE", hint=f"usage: {call.command.usage}")
    if given is not None and has_file:
        raise UsageError("kata-network del-iface has both --name and FILE", hint="give one of the two")
    if given is not None:
        from kata_runtime.network.request_fields import interface_name

        return interface_name(given, "--name")
    from kata_runtime.network.requests import read_nic_name

    return read_nic_name(read_input(call.operands[1]))


def _add_routes(call: Call) -> _Answer:
    from kata_runtime.network.requests import read_route_requests
    from kata_runtime.network.routes import add_routes

    requests = read_route_requests(read_input(call.operands[1]))
    with session_of(call, "routes") as session:
        add_routes(session, requests)
    return _Answer(_listed(request.given for request in requests), _carried_out)


def _delete_routes(call: Call) -> _Answer:
    from kata_runtime.network.requests import read_route_filters
    from kata_runtime.network.routes import delete_routes

    filters = read_route_filters(read_input(call.operands[1]))
    with session_of(call, "routes") as session:
        delete_routes(session, filters)
    return _Answer(_listed(given.given for given in filters), _carried_out)


def _list_routes(call: Call) -> _Answer:
    from kata_runtime.network.routes import list_routes

    is_table = _wants_table(call)
    with session_of(call, "routes", changes=False) as session:
        routes = list_routes(session)
    if is_table:
        return _table(("DESTINATION", "GATEWAY", "DEVICE"), [route.texts for route in routes])
    return _Answer(_listed(route.texts for route in routes), None)


def _update_routes(call: Call) -> _Answer:
    from kata_runtime.network.requests import read_route_table
    from kata_runtime.network.routes import update_routes

    requests = read_route_table(read_input(call.operands[1]))
    with session_of(call, "routes") as session:
        routes = update_routes(session, requests)
    return _Answer(_listed(route.texts for route in routes), _carried_out)


def _listed(routes: Iterable[tuple[str, str, str]]) -> str:
    from kata_runtime.cli.network_json import listed_routes

    return listed_routes(routes)


_COMMANDS: dict[str, Callable[[Call], _Answer]] = {
    "add-iface": _add_interface,
    "list-ifaces": _list_interfaces,
    "del-iface": _delete_interface,
    "add-port": _add_port,
    "list-ports": _list_ports,
    "del-port": _delete_port,
    "add-route": _add_routes,
    "del-route": _delete_routes,
    "list-routes": _list_routes,
    "update-routes": _update_routes,
}
