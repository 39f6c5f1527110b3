"""Client of OpenStack Neutron's API (networking v2), with openstacksdk: reads ports and binds them to hosts.

Cloud and credentials are configured as for all OpenStack clients: clouds.yaml, OS_CLOUD and other OS_* variables.
"""

from __future__ import annotations

import os
import time
from logging import NullHandler, getLogger
from select import select
from warnings import catch_warnings, simplefilter

from keystoneauth1.exceptions import ClientException
from openstack import exceptions
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from kata_runtime import __version__, operation_log
from kata_runtime.errors import ConflictError, DeadlineError, HostError, InputError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.network.clients.bounded import call_within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    T = TypeVar("T")

# Deadlines of one HTTP request, and of one operation, which is several requests with those for a token of Keystone.
_SOCKET_SECONDS = 10.0
_ANSWER_SECONDS = 20.0
# Until a bound port is ACTIVE: 0.4 s with OVN; agents of a large cloud take longer.
_ACTIVE_SECONDS = 60.0
_PAUSE_SECONDS = (0.05, 0.1, 0.2, 0.5)
_SHOWN_CHARACTERS = 300
_UUID_CHARACTERS = 36
_UUID_ALPHABET = frozenset("0123456789abcdefABCDEF-")
_ACTIVE = "ACTIVE"
_BINDING_FAILED = "binding_failed"


class Cloud(NamedTuple):
    """A cloud by its name in clouds.yaml, and that file's path if it is in no standard place; both may be empty."""

    name: str
    file: str


class Subnet(NamedTuple):
    """The settings of a subnet that a NIC needs."""

    cidr: str
    gateway: str
    host_routes: tuple[tuple[str, str], ...]
    name_servers: tuple[str, ...]


class Port(NamedTuple):
    """A port with its fixed IPs, each with its subnet; ``host`` is the host it is bound to, empty if it is unbound.

    ``revision`` differs after each change of the port; None where Neutron does not count revisions.
    """

    identity: str
    name: str
    mac: str
    mtu: int
    host: str
    fixed_ips: tuple[tuple[str, Subnet], ...]
    revision: int | None = None


def chosen_cloud(name: str) -> Cloud:
    """The cloud called ``name``, or else the one that the environment selects; for any working directory."""
    file = os.environ.get("OS_CLIENT_CONFIG_FILE", "")
    return Cloud(name or os.environ.get("OS_CLOUD", ""), file and os.path.abspath(file))


class Neutron:
    """Connection to the Neutron of one cloud. Each call has a deadline, and errors name the cloud."""

    def __init__(self, cloud: Cloud) -> None:
        """Read the configuration and look up the service's endpoint.

        :raise HostError, DeadlineError: no cloud is configured, or it does not answer.
        """
        for name in ("openstack", "keystoneauth", "stevedore", "urllib3"):
            # Without a handler, Python would print their log to standard error; it only repeats their exceptions.
            getLogger(name).addHandler(NullHandler())
        self._peer = f"{cloud.name} of {cloud.file}"
        self._name = f"Neutron of cloud {cloud.name!a}" if cloud.name else "Neutron"
        try:
            self._api: Any = self._bounded(lambda: _connect(cloud))
        except HostError as error:
            error.hint = "--cloud or OS_CLOUD names a cloud of clouds.yaml, or OS_* variables say where it is"
            raise

    def find_port(self, text: str) -> Port:
        """The port whose UUID or name is ``text``.

        :raise InputError: there is none, or several.
        :raise ConflictError: it is Neutron's own, such as a router's, or administratively down.
        :raise HostError, DeadlineError: Neutron does not answer, or does not show the binding.
        """
        with operation_log.measured("Neutron: read port", port=text):
            return self._bounded(lambda: self._find(text))

    def host_of(self, identity: str) -> str | None:
        """The host that a port is bound to, empty if it is unbound; None if the port does not exist any more.

        :raise HostError, DeadlineError: Neutron does not answer.
        """

        def ask() -> str | None:
            try:
                return self._api.get_port(identity).binding_host_id or ""
            except exceptions.NotFoundException:
                return None

        with operation_log.measured("Neutron: read binding", port=identity):
            return self._bounded(ask)

    def bind(self, identity: str, host: str, revision: int | None = None) -> None:
        """Bind a port to ``host``, or unbind it where that is empty; with ``revision`` only if that is still current.

        :raise ConflictError: the port has been changed since that revision.
        :raise HostError, DeadlineError: Neutron does not answer, or cannot bind it.
        """

        def update() -> Any:
            try:
                return self._api.update_port(identity, if_revision=revision, binding_host_id=host)
            except exceptions.PreconditionFailedException as error:
                raise ConflictError(
                    f"port {identity!a} was changed in {self._name} meanwhile, perhaps bound to another host",
                    hint="try again",
                ) from error

        with operation_log.measured("Neutron: bind port", port=identity, host=host):
            updated = self._bounded(update)
        if host and updated.binding_vif_type == _BINDING_FAILED:
            raise HostError(
                f"{self._name} cannot bind port {identity!a} to host {host!a}",
                hint="is that host's chassis or agent known to it? external_ids:hostname of Open vSwitch is its name",
            )

    def await_active(self, identity: str, host: str) -> None:
        """Wait until the port's status is ACTIVE, by polling: Neutron sends its clients no notifications.

        :raise ConflictError: it is not bound to ``host`` any more; two hosts that bind it at once both succeed.
        :raise DeadlineError: it does not become ACTIVE. :raise HostError: Neutron does not answer.
        """
        end = time.monotonic() + _ACTIVE_SECONDS
        pauses = list(_PAUSE_SECONDS)
        with operation_log.measured("Neutron: await ACTIVE", port=identity):
            while (status := self._bounded(lambda: self._status(identity, host))) != _ACTIVE:
                if time.monotonic() > end:
                    raise DeadlineError(
                        f"port {identity!a} becoming {_ACTIVE} in {self._name}, which calls it {status[:20]!a},",
                        _ACTIVE_SECONDS,
                    )
                select([], [], [], pauses.pop(0) if len(pauses) > 1 else pauses[0])

    def _status(self, identity: str, host: str) -> str:
        port = self._api.get_port(identity)
        if port.binding_host_id != host:
            raise ConflictError(
                f"port {identity!a} was bound to host {port.binding_host_id!a} meanwhile, and this is {host!a}",
                hint="--migrate takes it over",
            )
        return str(port.status)

    def _find(self, text: str) -> Port:
        found = self._named(text)
        if found is None:
            raise InputError(
                f"{self._name} has no port {text[:_SHOWN_CHARACTERS]!a}", hint="give the UUID or the name of one"
            )
        if str(found.device_owner or "").startswith("network:"):
            raise ConflictError(
                f"port {text!a} is a port of Neutron's own: {found.device_owner}", hint="create one for the container"
            )
        if found.is_admin_state_up is False:
            raise ConflictError(
                f"port {text!a} is administratively down in {self._name}, and would never become {_ACTIVE}",
                hint=f"'openstack port set --enable {found.id}' changes that",
            )
        host = found.binding_host_id
        if host is None:
            raise HostError(
                f"{self._name} does not show where port {text!a} is bound",
                hint="that needs the role of an administrator or of a service",
            )
        network = self._api.get_network(found.network_id)
        subnets = {subnet.id: _subnet(subnet) for subnet in self._api.subnets(network_id=found.network_id)}
        fixed_ips = tuple((_text(fixed["ip_address"]), subnets[fixed["subnet_id"]]) for fixed in found.fixed_ips or ())
        mac, revision = _text(found.mac_address), found.revision_number
        return Port(_text(found.id), found.name or "", mac, network.mtu, host, fixed_ips, revision)

    def _named(self, text: str) -> Any:
        """The port of this UUID or else of this name, or None."""
        if len(text) == _UUID_CHARACTERS and _UUID_ALPHABET.issuperset(text):
            return self._api.find_port(text, ignore_missing=True)
        # Not by find_port, which would use any text as part of a URL first: "" names all ports, "../networks/" others.
        if not text or not text.isprintable():
            return None
        ports = list(self._api.ports(name=text))
        if len(ports) > 1:
            raise exceptions.DuplicateResource
        return ports[0] if ports else None

    def _bounded(self, function: Callable[[], T]) -> T:
        def quietly() -> T:
            # openstacksdk warns of its own deprecations, about which users can do nothing.
            with catch_warnings():
                simplefilter("ignore")
                return function()

        try:
            return call_within(_ANSWER_SECONDS, self._peer, quietly)
        except TimeoutError as error:
            raise DeadlineError(f"the answer of {self._name}", _ANSWER_SECONDS) from error
        except exceptions.DuplicateResource as error:
            raise InputError(f"{self._name} has several ports of that name", hint="give the UUID of one") from error
        except (exceptions.SDKException, ClientException, OSError) as error:
            # keystoneauth appends details of API version ranges, which do not help users.
            reason = " ".join(str(error).split()).partition(" Required version range")[0][:_SHOWN_CHARACTERS]
            raise HostError(f"{self._name} failed: {reason}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise HostError(f"{self._name} describes the port in a way that is not understood: {error!a}") from error


def _connect(cloud: Cloud) -> Any:
    files: Sequence[str] | None = [cloud.file] if cloud.file else None
    config = OpenStackConfig(config_files=files, app_name="kata-runtime", app_version=__version__)
    region = config.get_one(cloud=cloud.name or None, api_timeout=_SOCKET_SECONDS)
    return Connection(config=region).network


def _subnet(found: Any) -> Subnet:
    routes = tuple((_text(route["destination"]), _text(route["nexthop"])) for route in found.host_routes or ())
    servers = tuple(_text(server) for server in found.dns_nameservers or ())
    return Subnet(_text(found.cidr), _text(found.gateway_ip or ""), routes, servers)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!a:.80} is no text")
    return value
