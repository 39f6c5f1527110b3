"""Parses the JSON input of kata-network into checked requests.

Keys are not case-sensitive. Keys that upstream's clients send and that have no meaning here are ignored.
"""

from __future__ import annotations

from kata_runtime.address_types import IpAddress, MacAddress, Network
from kata_runtime.errors import InputError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.network.request_fields import (
    GivenAddress,
    boolean_of,
    host_address,
    integer_of,
    interface_name,
    mac_address,
    mtu_of,
    network_of,
    nic_address,
    queues_of,
    shown,
    text_of,
    vhost_user_socket,
)
from kata_runtime.network.strict_json import read_json

_NIC_KEYS = ("device", "name", "IPAddresses", "hwAddr", "mtu", "vhostUserSocket", "queues", "offload", "dhcp")
# Including keys of the output of this program and of upstream's, which clients may send back.
_NIC_IGNORED = ("RawFlags", "PciPath", "pciAddr", "LinkType", "Family", "Source", "Scope")
_ADDRESS_KEYS = ("address", "mask")
_ADDRESS_IGNORED = ("Family",)
_ROUTE_KEYS = ("dest", "gateway", "device", "Source", "Scope")
_ROUTE_IGNORED = ("Family", "RawFlags", "PciPath", "LinkType")

_UNNAMED = "unnamed"
_DEFAULT_WORDS = ("default", "")


class NicRequest(NamedTuple):
    """A NIC to add; ``vhost_user_socket`` is empty for a TAP, ``queues`` 0 for a single queue pair.

    ``offload`` is whether checksums and segmentation may be left to the host. ``dhcp`` is whether the guest gets its
    IPv4 address by DHCP.
    """

    device: str
    name: str
    addresses: tuple[GivenAddress, ...]
    mac: MacAddress
    mtu: int
    vhost_user_socket: str
    queues: int
    offload: bool = True
    dhcp: bool = False


class GivenRoute(NamedTuple):
    """The fields of a route in the spelling that was given, ``""`` where absent."""

    dest: str
    gateway: str
    device: str


class RouteRequest(NamedTuple):
    """A route to add, or the fields that a route to delete must match; None where absent, ``device`` then empty.

    ``network`` is None for a default route of either family; ``scope`` is as in rtnetlink(7).
    """

    network: Network | None
    gateway: IpAddress | None
    device: str
    source: IpAddress | None
    scope: int | None
    given: GivenRoute


def read_nic_request(data: bytes) -> NicRequest:
    """Parse the input of add-iface.

    :raise InputError: not JSON, or a field is missing, unknown or outside its limits.
    """
    return _nic_request(_object_of(read_json(data), "a NIC"))


def _nic_request(given: dict[str, object]) -> NicRequest:
    fields = _known_fields(given, "a NIC", _NIC_KEYS, _NIC_IGNORED)
    socket = fields.get("vhostUserSocket")
    queues = fields.get("queues")
    offload = fields.get("offload")
    dhcp = fields.get("dhcp")
    return NicRequest(
        device=interface_name(_required(fields, "device", "the NIC"), "device"),
        name=interface_name(_required(fields, "name", "the NIC"), "name"),
        addresses=_addresses(fields.get("IPAddresses")),
        mac=mac_address(_required(fields, "hwAddr", "the NIC"), "hwAddr"),
        mtu=mtu_of(_required(fields, "mtu", "the NIC"), "mtu"),
        vhost_user_socket="" if socket is None else vhost_user_socket(socket, "vhostUserSocket"),
        queues=0 if queues is None else queues_of(queues, "queues"),
        offload=True if offload is None else boolean_of(offload, "offload"),
        dhcp=False if dhcp is None else boolean_of(dhcp, "dhcp"),
    )


def read_port_request(data: bytes) -> NicRequest:
    """Parse the input of add-port; the request's ``device`` is empty until its TAP is named.

    :raise InputError: as read_nic_request.
    """
    fields = _object_of(read_json(data), "a NIC")
    for key in fields:
        if key.lower() in ("device", "vhostusersocket"):
            raise InputError(f"the NIC has {shown(key)}", field=key, hint="leave it out: add-port makes the device")
    return _nic_request({**fields, "device": _UNNAMED})._replace(device="")


def read_nic_name(data: bytes) -> str:
    """The name of the NIC in the input of del-iface; the values of other fields are not checked.

    :raise InputError: not JSON, an unknown key, or a name that is missing or impossible.
    """
    fields = _known_fields(_object_of(read_json(data), "a NIC"), "a NIC", _NIC_KEYS, _NIC_IGNORED)
    return interface_name(_required(fields, "name", "the NIC"), "name")


def read_route_requests(data: bytes) -> list[RouteRequest]:
    """Parse the input of add-route: one object or a list of at least one.

    :raise InputError: as read_nic_request.
    """
    return [_route_to_add(item, field) for item, field in _objects_of(read_json(data))]


def read_route_filters(data: bytes) -> list[RouteRequest]:
    """Parse the input of del-route: one object or a list of at least one; source and scope are ignored.

    :raise InputError: as read_nic_request.
    """
    return [_route_to_delete(item, field) for item, field in _objects_of(read_json(data))]


def read_route_table(data: bytes) -> list[RouteRequest]:
    """Parse the input of update-routes: a list, perhaps empty, one object, or null for no routes.

    :raise InputError: as read_nic_request.
    """
    value = read_json(data)
    if value is None or value == []:
        return []
    return [_route_of_table(item, field) for item, field in _objects_of(value)]


def _object_of(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InputError(f"the input is {shown(value)}", hint=f"{what} is described by one JSON object")
    return value


def _objects_of(value: object) -> list[tuple[dict[str, object], str]]:
    """The route objects and, for error messages, the prefix of the fields of each."""
    if isinstance(value, dict):
        return [(value, "")]
    if not isinstance(value, list):
        raise InputError(f"the input is {shown(value)}", hint="give one route object or a list of them")
    if not value:
        raise InputError("the list of routes is empty", hint="give at least one route")
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise InputError(f"route {index + 1} is {shown(item)}", hint="a route is described by one JSON object")
    return [(item, f"route {index + 1}: ") for index, item in enumerate(value)]


def _known_fields(
    given: dict[str, object], where: str, keys: tuple[str, ...], ignored: tuple[str, ...]
) -> dict[str, object]:
    """The values by key, in the spelling of ``keys``."""
    spelling = {key.lower(): key for key in (*keys, *ignored)}
    fields: dict[str, object] = {}
    for key, value in given.items():
        known = spelling.get(key.lower())
        if known is None:
            raise InputError(f"{where} has no field {shown(key)}", field=key, hint=_nearest(key, spelling, keys))
        fields[known] = value
    return fields


def _nearest(key: str, spelling: dict[str, str], keys: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    # Distance is quadratic in the length; no known key comes near this one.
    matches = get_close_matches(key[:64].lower(), list(spelling), n=1)
    return f"did you mean {spelling[matches[0]]!r}?" if matches else f"it has {', '.join(keys)}"


def _required(fields: dict[str, object], key: str, what: str) -> object:
    if key not in fields:
        raise InputError(f"{what} lacks {key!r}", field=key)
    return fields[key]


def _addresses(value: object) -> tuple[GivenAddress, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InputError(
            f"IPAddresses is {shown(value)}",
            field="IPAddresses",
            hint='it must be a list of {"address","mask"}',
        )
    found: dict[IpAddress, GivenAddress] = {}
    for index, item in enumerate(value):
        field = f"IPAddresses[{index}]"
        if not isinstance(item, dict):
            raise InputError(f"{field} is {shown(item)}", field=field, hint='it must be an object {"address","mask"}')
        fields = _known_fields(item, field, _ADDRESS_KEYS, _ADDRESS_IGNORED)
        spelled = _required(fields, "address", field)
        given = nic_address(spelled, _required(fields, "mask", field), field)
        if given.value.address in found:
            raise InputError(f"{field} repeats the address {spelled}", field=field)
        found[given.value.address] = given
    return tuple(found.values())


def _route(given: dict[str, object], field: str) -> RouteRequest:
    """The fields of one route; whether required ones are missing is checked by the callers."""
    fields = _known_fields(given, f"{field}a route", _ROUTE_KEYS, _ROUTE_IGNORED)
    dest = text_of(_required(fields, "dest", f"{field}the route"), f"{field}dest")
    network = None if dest in _DEFAULT_WORDS else network_of(dest, f"{field}dest")
    spelled_gateway, gateway = _optional_address(fields, "gateway", field)
    device = _optional_text(fields, "device", field)
    if device:
        interface_name(device, f"{field}device")
    if network is None and gateway is not None:
        network = Network.default(gateway.family)
    if network is not None and gateway is not None and network.family != gateway.family:
        raise InputError(
            f"{field}gateway {spelled_gateway} and dest {dest} are of different families",
            field="gateway",
            hint="both must be IPv4 or both IPv6",
        )
    spelled_source, source = _optional_address(fields, "Source", field)
    if network is not None and source is not None and network.family != source.family:
        raise InputError(
            f"{field}Source {spelled_source} is not of the family of the route",
            field="Source",
            hint="dest, gateway and Source must all be IPv4 or all IPv6",
        )
    scope = fields.get("Scope")
    number = None if scope is None else integer_of(scope, f"{field}Scope", 0, 255)
    return RouteRequest(network, gateway, device, source, number, GivenRoute(dest, spelled_gateway, device))


def _optional_text(fields: dict[str, object], key: str, field: str) -> str:
    value = fields.get(key)
    return "" if value is None else text_of(value, f"{field}{key}")


def _optional_address(fields: dict[str, object], key: str, field: str) -> tuple[str, IpAddress | None]:
    """A host's address as it was given and its value, ``""`` and None where it is absent."""
    text = _optional_text(fields, key, field)
    return text, host_address(text, f"{field}{key}") if text else None


def _route_to_add(given: dict[str, object], field: str) -> RouteRequest:
    route = _route_of_table(given, field)
    if route.given.dest in _DEFAULT_WORDS and route.gateway is None:
        raise InputError(f"{field}dest {shown(route.given.dest)} needs a gateway", field="gateway")
    return route


def _route_of_table(given: dict[str, object], field: str) -> RouteRequest:
    route = _route(given, field)
    if not route.device:
        raise InputError(f"{field}the route lacks 'device'", field="device")
    if route.network is None and route.source is not None:
        route = route._replace(network=Network.default(route.source.family))
    return route


def _route_to_delete(given: dict[str, object], field: str) -> RouteRequest:
    # Routes are matched by dest, gateway and device; upstream's further fields have no meaning in del-route.
    return _route(given, field)._replace(source=None, scope=None)
