"""OpenStack Neutron for the lab: ML2 with OVN's driver, MariaDB, no Keystone."""

from __future__ import annotations

import http.client
import json
import signal
import socket
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.mariadb import running_mariadb
from lab.namespace import LabError, run
from lab.program import running_program
from lab.underlay import Underlay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.ovn_lab import Lab

ENVIRONMENT = Path(__file__).parents[1] / "build/neutron"
_PORT = 9696
_API = Path(__file__).with_name("neutron_api.py")
_CONFIGURATION = """
[DEFAULT]
auth_strategy = noauth
core_plugin = ml2
service_plugins =
transport_url = fake:///
rpc_workers = 0
api_workers = 1
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
api_paste_config = {environment}/etc/neutron/api-paste.ini
state_path = {directory}
log_file = {directory}/neutron.log
global_physnet_mtu = {mtu}

[oslo_concurrency]
lock_path = {directory}/lock

[database]
connection = mysql+pymysql://root@localhost/neutron?unix_socket={socket}

[ml2]
mechanism_drivers = ovn
type_drivers = geneve
tenant_network_types = geneve
extension_drivers = port_security
overlay_ip_version = 4

[ml2_type_geneve]
vni_ranges = 1:65536
max_header_size = 38

[ovn]
ovn_nb_connection = {northbound}
ovn_sb_connection = {southbound}
ovn_metadata_enabled = false
"""
_CLOUDS = """
clouds:
  lab:
    auth_type: none
    endpoint: {url}
"""
_FIRST_NUMBER = 254
_MANAGEMENT_MTU = 1500
_SHOWN_CHARACTERS = 4000
_ANSWER_SECONDS = 60.0
Document = dict[str, Any]


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket, since the tests are in another network namespace."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS)
        self._path = str(path)

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_ANSWER_SECONDS)
        self.sock.connect(self._path)


class Neutron:
    """A running Neutron; ``clouds`` is the file that OpenStack clients find it with, as cloud "lab"."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.clouds = directory / "clouds.yaml"
        self.socket = directory / "api.sock"

    def request(self, method: str, path: str, body: Document | None = None) -> Document:
        """The answer to a request below /v2.0/.

        :raise LabError: it is no success
        """
        connection = _Connection(self.socket)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, f"/v2.0/{path}", content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise LabError(f"{method} {path}: {answer.status} {text}")
        document: Document = json.loads(text or "{}")
        return document

    def create(self, kind: str, **fields: object) -> Document:
        """Create a network, subnet, port, ...; returns it as Neutron describes it."""
        created: Document = self.request("POST", f"{kind.replace('_', '-')}s", {kind: fields})[kind]
        return created

    def show(self, kind: str, identity: str) -> Document:
        """A network, subnet, port, ... as Neutron describes it."""
        shown: Document = self.request("GET", f"{kind.replace('_', '-')}s/{identity}")[kind]
        return shown

    def delete(self, kind: str, identity: str) -> None:
        """Delete it."""
        self.request("DELETE", f"{kind.replace('_', '-')}s/{identity}")


@contextmanager
def running_neutron(lab: Lab) -> Iterator[Neutron]:
    """Neutron for the hosts of ``lab``, which it is reached from through a network for management."""
    directory = lab.directory / "neutron"
    for name in ("", "tmp", "lock"):
        (directory / name).mkdir()
    management = Underlay(lab.underlay.namespace, "mgmt", "198.51.100", _MANAGEMENT_MTU)
    address = management.take_address(_FIRST_NUMBER)
    for number, host in enumerate(lab.hosts, 1):
        own = management.connect(host.namespace, number, "management")
        host.namespace.ip(f"address add {own}/24 dev management")
    made = Neutron(f"http://{address}:{_PORT}/", directory)
    made.clouds.write_text(_CLOUDS.format(url=made.url))
    configuration = directory / "neutron.conf"
    with ExitStack() as stack:
        database = stack.enter_context(running_mariadb(directory, "neutron"))
        configuration.write_text(
            _CONFIGURATION.format(
                environment=ENVIRONMENT, directory=directory, socket=database, mtu=lab.underlay.mtu,
                northbound=lab.central.northbound, southbound=lab.central.southbound,
            )
        )  # fmt: skip
        # oslo and OVN's driver leave files in the directory for temporary ones.
        environment = {
            "TMPDIR": str(directory / "tmp"),
            "OS_NEUTRON_CONFIG_FILES": str(configuration),
            "ASGI_WORKERS": "1",
        }
        run(
            [str(ENVIRONMENT / "bin/neutron-db-manage"), "--config-file", str(configuration), "upgrade", "heads"],
            environment,
        )
        argv = [*management.namespace.prefix, str(ENVIRONMENT / "bin/python3"), "-P", str(_API), address, str(_PORT)]
        log = directory / "api.log"
        # SIGTERM it answers after 10 s.
        process = stack.enter_context(running_program([*argv, str(made.socket)], log, environment, signal.SIGKILL))
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            told = log.read_text() + (directory / "neutron.log").read_text()
            raise LabError(f"Neutron does not start: {told[-_SHOWN_CHARACTERS:]}")
        yield made
