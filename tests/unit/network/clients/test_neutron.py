"""What a Neutron may answer, or not: a small server of this process in its place. The real one is in tests/system."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from kata_runtime.errors import ConflictError, DeadlineError, HostError, InputError, KataError
from kata_runtime.network.clients import neutron
from kata_runtime.network.clients.neutron import Cloud, Neutron, Port, Subnet, chosen_cloud

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LOOPBACK = "127.0.0.1"
_PORT = "11111111-2222-3333-4444-555555555555"
_ANSWERS: dict[str, Any] = {
    "/": {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": "URL/v2.0/"}]}]},
    f"/v2.0/ports/{_PORT}": {
        "port": {
            "id": _PORT, "name": "web", "network_id": "n", "mac_address": "fa:16:3e:00:00:01", "status": "DOWN",
            "binding:host_id": "other", "binding:vif_type": "ovs", "device_owner": "", "device_id": "",
            "revision_number": 4,
            "fixed_ips": [{"subnet_id": "s", "ip_address": "10.0.0.7"}],
        }
    },
    "/v2.0/networks/n": {"network": {"id": "n", "mtu": 1442}},
    "/v2.0/subnets": {
        "subnets": [
            {
                "id": "s", "cidr": "10.0.0.0/24", "gateway_ip": "10.0.0.1", "dns_nameservers": ["10.0.0.53"],
                "host_routes": [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}],
            }
        ]
    },
}  # fmt: skip


class _Server(ThreadingHTTPServer):
    """Gives prepared answers; ``hanging`` paths get none."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((_LOOPBACK, 0), _Handler)
        self.url = f"http://{_LOOPBACK}:{self.server_port}"
        self.answers: dict[str, Any] = json.loads(json.dumps(_ANSWERS).replace("URL", self.url))
        self.status: dict[str, int] = {}
        self.hanging: set[str] = set()
        self.released = threading.Event()
        self.updates: list[object] = []
        self.conditions: list[str | None] = []


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in self.server.hanging:
            self.server.released.wait(60)
            return
        status = self.server.status.get(path, 200 if path in self.server.answers else 404)
        document = self.server.answers.get(
            path, {"NeutronError": {"type": "X", "message": "no such thing", "detail": ""}}
        )
        if status >= 400:
            document = {"NeutronError": {"type": "X", "message": "as it was told to", "detail": ""}}
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.server.updates.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.conditions.append(self.headers["If-Match"])
        self.do_GET()

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def _serving() -> Iterator[_Server]:
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[_Server]:
    """A Neutron without Keystone."""
    with _serving() as made:
        yield made


@pytest.fixture
def connect(server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Neutron]:
    """Connects to it, as clouds.yaml says."""
    clouds = tmp_path / "clouds.yaml"
    clouds.write_text(f"clouds: {{lab: {{auth_type: none, endpoint: {server.url}}}}}\n")
    monkeypatch.setattr(neutron, "_SOCKET_SECONDS", 0.5)
    return lambda: Neutron(Cloud("lab", str(clouds)))


def test_all_of_a_port(connect: Callable[[], Neutron]) -> None:
    """Address, MTU, routes, name servers and binding come from port, network and subnet."""
    subnet = Subnet("10.0.0.0/24", "10.0.0.1", (("10.9.0.0/16", "10.0.0.9"),), ("10.0.0.53",))
    expected = Port(_PORT, "web", "fa:16:3e:00:00:01", 1442, "other", (("10.0.0.7", subnet),), 4)
    assert connect().find_port(_PORT) == expected


def test_port_by_name(connect: Callable[[], Neutron], server: _Server) -> None:
    """One of several names is found; several of one name are refused."""
    port = server.answers[f"/v2.0/ports/{_PORT}"]["port"]
    server.answers["/v2.0/ports"] = {"ports": [port]}
    assert connect().find_port("web").identity == _PORT
    server.answers["/v2.0/ports"] = {"ports": [port, {**port, "id": "other"}]}
    with pytest.raises(InputError) as raised:
        connect().find_port("web")
    assert str(raised.value) == "Neutron of cloud 'lab' has several ports of that name; give the UUID of one"


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            {"binding:host_id": None},
            HostError,
            (
                f"Neutron of cloud 'lab' does not show where port '{_PORT}' is bound; "
                "that needs the role of an administrator or of a service"
            ),
        ),
        (
            {"device_owner": "network:router_interface"},
            ConflictError,
            (f"port '{_PORT}' is a port of Neutron's own: network:router_interface; create one for the container"),
        ),
        (
            {"admin_state_up": False},
            ConflictError,
            (
                f"port '{_PORT}' is administratively down in Neutron of cloud 'lab', and would never become ACTIVE; "
                f"'openstack port set --enable {_PORT}' changes that"
            ),
        ),
        (
            {"fixed_ips": [{"ip_address": "10.0.0.7"}]},
            HostError,
            "Neutron of cloud 'lab' describes the port in a way that is not understood: KeyError('subnet_id')",
        ),
    ],
)
def test_ports_that_cannot_be(
    connect: Callable[[], Neutron], server: _Server, change: dict[str, object], kind: type[KataError], message: str
) -> None:
    """A port of Neutron's own, one that is not shown whole, and one that makes no sense are refused by name."""
    server.answers[f"/v2.0/ports/{_PORT}"]["port"].update(change)
    with pytest.raises(kind) as raised:
        connect().find_port(_PORT)
    assert str(raised.value) == message


def test_no_such_port(connect: Callable[[], Neutron], server: _Server) -> None:
    """An unknown port is said to be unknown, and one that was deleted meanwhile is bound nowhere."""
    server.answers["/v2.0/ports"] = {"ports": []}
    with pytest.raises(InputError) as raised:
        connect().find_port("nosuch")
    assert str(raised.value) == "Neutron of cloud 'lab' has no port 'nosuch'; give the UUID or the name of one"
    assert connect().host_of("nosuch") is None


@pytest.mark.parametrize("text", ["", "#", "?name=web", "../networks/n", "\udcff", "\n"])
def test_names_are_no_part_of_a_path(connect: Callable[[], Neutron], server: _Server, text: str) -> None:
    """A name is only ever compared with names, and one that no port can have with nothing."""
    port = server.answers[f"/v2.0/ports/{_PORT}"]["port"]
    server.answers["/v2.0/ports/"] = {"ports": [port]}
    server.answers["/v2.0/ports"] = {"ports": [port] if not text.isprintable() or not text else []}
    with pytest.raises(InputError) as raised:
        connect().find_port(text)
    assert str(raised.value) == f"Neutron of cloud 'lab' has no port {text!a}; give the UUID or the name of one"


@pytest.mark.parametrize("status", [401, 403, 409, 500, 503])
def test_refusals(connect: Callable[[], Neutron], server: _Server, status: int) -> None:
    """A refusal is one line with Neutron's own reason."""
    api = connect()
    server.status[f"/v2.0/ports/{_PORT}"] = status
    with pytest.raises(HostError) as raised:
        api.bind(_PORT, "here")
    text = str(raised.value)
    assert text.startswith("Neutron of cloud 'lab' failed: ")
    assert f"{status}" in text
    assert "as it was told to" in text
    assert "\n" not in text
    assert server.updates == [{"port": {"binding:host_id": "here"}}] * len(server.updates)


def test_binding_that_fails(connect: Callable[[], Neutron], server: _Server) -> None:
    """A host that Neutron does not know is reported, and clearing the binding is an empty host."""
    api = connect()
    api.bind(_PORT, "")
    server.answers[f"/v2.0/ports/{_PORT}"]["port"]["binding:vif_type"] = "binding_failed"
    with pytest.raises(HostError) as raised:
        api.bind(_PORT, "here")
    assert str(raised.value) == (
        f"Neutron of cloud 'lab' cannot bind port '{_PORT}' to host 'here'; "
        "is that host's chassis or agent known to it? external_ids:hostname of Open vSwitch is its name"
    )
    assert server.updates == [{"port": {"binding:host_id": ""}}, {"port": {"binding:host_id": "here"}}]


def test_binding_of_a_port_that_was_changed(connect: Callable[[], Neutron], server: _Server) -> None:
    """With a revision the port is bound only if it is still the same; Neutron's refusal is a conflict."""
    api = connect()
    api.bind(_PORT, "here", 4)
    server.status[f"/v2.0/ports/{_PORT}"] = 412
    with pytest.raises(ConflictError) as raised:
        api.bind(_PORT, "here", 4)
    assert str(raised.value) == (
        f"port '{_PORT}' was changed in Neutron of cloud 'lab' meanwhile, perhaps bound to another host; try again"
    )
    assert server.conditions == ["revision_number=4"] * 2


def test_port_that_another_host_has_bound_meanwhile(connect: Callable[[], Neutron], server: _Server) -> None:
    """A port is awaited only while it is this host's; the status of another host's says nothing."""
    api = connect()
    server.answers[f"/v2.0/ports/{_PORT}"]["port"]["status"] = "ACTIVE"
    api.await_active(_PORT, "other")
    with pytest.raises(ConflictError) as raised:
        api.await_active(_PORT, "here")
    assert str(raised.value) == (
        f"port '{_PORT}' was bound to host 'other' meanwhile, and this is 'here'; --migrate takes it over"
    )


def test_a_server_that_hangs(connect: Callable[[], Neutron], server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a server that accepts and says nothing nor one whose port never becomes ACTIVE is waited for for ever."""
    api = connect()
    monkeypatch.setattr(neutron, "_ACTIVE_SECONDS", 0.2)
    with pytest.raises(DeadlineError) as late:
        api.await_active(_PORT, "other")
    assert str(late.value) == (
        f"port '{_PORT}' becoming ACTIVE in Neutron of cloud 'lab', which calls it 'DOWN', did not happen within 0.2 s"
    )
    server.hanging.add(f"/v2.0/ports/{_PORT}")
    monkeypatch.setattr(neutron, "_ANSWER_SECONDS", 0.2)
    with pytest.raises(DeadlineError) as raised:
        api.find_port(_PORT)
    assert str(raised.value) == "the answer of Neutron of cloud 'lab' did not happen within 0.2 s"


def test_no_cloud(tmp_path: Path) -> None:
    """A cloud that clouds.yaml lacks, and a server that is not there, are named."""
    clouds = tmp_path / "clouds.yaml"
    url = f"http://{_LOOPBACK}:1"
    clouds.write_text(f"clouds: {{lab: {{auth_type: none, endpoint: {url}}}}}\n")
    hint = "--cloud or OS_CLOUD names a cloud of clouds.yaml, or OS_* variables say where it is"
    absent = f"Unable to find a version discovery document at {url}, the service is unavailable or"
    for name, reason in (("nosuch", "Cloud nosuch was not found."), ("lab", f"{absent} misconfigured.")):
        with pytest.raises(HostError) as raised:
            Neutron(Cloud(name, str(clouds)))
        assert str(raised.value) == f"Neutron of cloud {name!r} failed: {reason}; {hint}"


def test_cloud_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """--cloud goes before OS_CLOUD, and the environment's file is remembered for commands without it, elsewhere."""
    monkeypatch.setenv("OS_CLOUD", "mine")
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", "/etc/clouds.yaml")
    assert [chosen_cloud(""), chosen_cloud("other")] == [
        Cloud("mine", "/etc/clouds.yaml"),
        Cloud("other", "/etc/clouds.yaml"),
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", "clouds.yaml")
    assert chosen_cloud("") == Cloud("mine", f"{tmp_path}/clouds.yaml")
    monkeypatch.delenv("OS_CLIENT_CONFIG_FILE")
    assert chosen_cloud("") == Cloud("mine", "")
