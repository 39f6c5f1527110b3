"""The QMP client against a scripted peer."""

from __future__ import annotations

import array
import json
import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.vmm.conftest import peer

from kata_runtime.errors import DeadlineError, QemuError
from kata_runtime.vmm.monitor import Monitor, UnansweredError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}


class _Wire:
    """QEMU's side of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.descriptors: list[int] = []
        self._buffer = b""
        self.id: dict[str, object] = {}

    def read(self) -> tuple[str, object]:
        """The next command and its arguments."""
        # The client asks only after an answer.
        request = None
        while request is None:
            data, ancillary, _, _ = self.connection.recvmsg(65536, socket.CMSG_SPACE(4 * 4))
            assert data, "the client closed the connection"
            for _, _, payload in ancillary:
                self.descriptors += array.array("i", payload)
            self._buffer += data
            if self._buffer.count(b"{") == self._buffer.count(b"}") > 0:
                request, self._buffer = json.loads(self._buffer), b""
        self.id = {"id": request.pop("id")} if "id" in request else {}
        return request.pop("execute"), request.pop("arguments", None)

    def send(self, message: object) -> None:
        """Any message."""
        self.connection.sendall(json.dumps(message).encode() + b"\r\n")

    def event(self, name: str, /, **data: object) -> None:
        """An event."""
        self.send({"event": name, "data": data, "timestamp": {"seconds": 1, "microseconds": 2}})

    def answer(self, value: object) -> None:
        """Success of the last command read."""
        self.send({"return": value, **self.id})

    def refuse(self, kind: str, text: str) -> None:
        """Failure of the last command read."""
        self.send({"error": {"class": kind, "desc": text}, **self.id})

    def rest(self) -> None:
        """Wait until the client closes the connection; it may say nothing more."""
        assert self.connection.recv(1) == b""


def _qemu(then: Callable[[_Wire], None]) -> Callable[[socket.socket], None]:
    def script(connection: socket.socket) -> None:
        wire = _Wire(connection)
        wire.send(_GREETING)
        assert wire.read()[0] == "qmp_capabilities"
        wire.answer({})
        then(wire)

    return script


def test_a_command_and_its_answer(tmp_path: Path) -> None:
    """Name and arguments arrive as given, the value comes back as sent; the socket's path may be long."""
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    seen: list[object] = []

    def script(wire: _Wire) -> None:
        seen.append(wire.read())
        wire.answer({})
        seen.append(wire.read())
        wire.answer([{"a": 1}])
        wire.rest()

    with peer(directory / "qmp", _qemu(script)), Monitor.connect(directory / "qmp") as monitor:
        assert monitor.execute("stop") == {}
        assert monitor.execute("device_del", {"id": "nic0"}) == [{"a": 1}]
    assert seen == [("stop", None), ("device_del", {"id": "nic0"})]


def test_an_event_before_the_answer_is_kept(tmp_path: Path) -> None:
    """A listener that began before the command gets events from before the answer, and returns the awaited one."""

    def script(wire: _Wire) -> None:
        assert wire.read() == ("device_del", {"id": "nic1"})
        wire.event("DEVICE_DELETED", path="/machine/peripheral/nic1/virtio-backend")
        wire.event("NIC_RX_FILTER_CHANGED", name="nic1", path="/")
        wire.event("DEVICE_DELETED", device="nic0", path="/machine/peripheral/nic0")
        wire.event("DEVICE_DELETED", device="nic1", path="/machine/peripheral/nic1")
        wire.answer({})
        wire.rest()

    with (
        peer(tmp_path / "qmp", _qemu(script)),
        Monitor.connect(tmp_path / "qmp") as monitor,
        monitor.listen("DEVICE_DELETED") as events,
    ):
        monitor.execute("device_del", {"id": "nic1"})
        data = events.wait(lambda data: data.get("device") == "nic1", 5, awaited="its end")
        assert data == {"device": "nic1", "path": "/machine/peripheral/nic1"}


@pytest.mark.parametrize("kind", ["GenericError", "DeviceNotFound", "CommandNotFound"])
def test_a_refusal(kind: str, tmp_path: Path) -> None:
    """QEMU's own sentence and class reach the caller, and the connection goes on."""

    def script(wire: _Wire) -> None:
        wire.read()
        wire.refuse(kind, "Device 'nic0' not found")
        wire.read()
        wire.answer("fine")
        wire.rest()

    with peer(tmp_path / "qmp", _qemu(script)), Monitor.connect(tmp_path / "qmp") as monitor:
        with pytest.raises(QemuError) as caught:
            monitor.execute("netdev_del", {"id": "nic0"})
        assert str(caught.value) == "QEMU refused netdev_del: Device 'nic0' not found"
        assert (caught.value.command, caught.value.error_class) == ("netdev_del", kind)
        assert monitor.execute("query-name") == "fine"


@pytest.mark.parametrize(
    "last", [b"", b"\xff\xfe\n", b"[1, 2]\n", b'{"return": {}, "id": "another"}\n', b'{"half": '], ids=repr
)
def test_the_end_of_qemu(last: bytes, tmp_path: Path) -> None:
    """An end or nonsense instead of an answer is one clear error, and so is every later command."""

    def script(wire: _Wire) -> None:
        wire.read()
        wire.connection.sendall(last)

    with peer(tmp_path / "qmp", _qemu(script)), Monitor.connect(tmp_path / "qmp") as monitor:
        with pytest.raises(QemuError) as caught:
            monitor.execute("stop")
        assert str(caught.value) == "QEMU ended or closed its monitor during stop"
        with pytest.raises(QemuError) as caught:
            monitor.execute("cont")
        assert str(caught.value) == "QEMU ended or closed its monitor"
        assert caught.value.command == "cont"


def test_an_answer_too_late(tmp_path: Path) -> None:
    """A command's deadline is kept to; the answer that comes later disturbs none of the commands after it."""
    given_up = threading.Event()

    def script(wire: _Wire) -> None:
        wire.read()
        late = wire.id
        assert given_up.wait(10)
        wire.read()
        wire.send({"return": "late", **late})
        wire.answer("in time")
        wire.rest()

    with peer(tmp_path / "qmp", _qemu(script)), Monitor.connect(tmp_path / "qmp") as monitor:
        with pytest.raises(UnansweredError) as caught:
            monitor.execute("stop", deadline=0.05)
        assert str(caught.value) == "QEMU's answer to stop did not happen within 0.05 s"
        given_up.set()
        assert monitor.execute("cont") == "in time"


def test_closing_with_an_answer_missing(tmp_path: Path) -> None:
    """A connection with a command that was given up closes at once."""

    def script(wire: _Wire) -> None:
        wire.read()
        wire.rest()

    with peer(tmp_path / "qmp", _qemu(script)):
        monitor = Monitor.connect(tmp_path / "qmp")
        with pytest.raises(DeadlineError):
            monitor.execute("stop", deadline=0.05)
        began = time.monotonic()
        monitor.close()
        monitor.close()
        assert time.monotonic() - began < 5


def test_an_event_that_does_not_come(tmp_path: Path) -> None:
    """The deadline names what was awaited; the end of QEMU does not wait for the deadline."""
    silence = threading.Event()

    def script(_: _Wire) -> None:
        assert silence.wait(10)

    with peer(tmp_path / "qmp", _qemu(script)), Monitor.connect(tmp_path / "qmp") as monitor:
        with monitor.listen("DEVICE_DELETED") as events:
            with pytest.raises(DeadlineError) as caught:
                events.wait(lambda _: True, 0.05, awaited="the guest's release of NIC 'nic0'")
            assert str(caught.value) == "the guest's release of NIC 'nic0' did not happen within 0.05 s"
            silence.set()
            with pytest.raises(QemuError) as ended:
                events.wait(lambda _: True, 10, awaited="nothing")
        assert str(ended.value) == "QEMU ended or closed its monitor"


def test_a_descriptor_is_handed_over(tmp_path: Path) -> None:
    """The descriptor arrives with its name as a duplicate: the caller's own stays open."""
    reading, writing = os.pipe()
    received: list[int] = []

    def script(wire: _Wire) -> None:
        assert wire.read() == ("getfd", {"fdname": "nic0.tap0"})
        received.extend(wire.descriptors)
        wire.answer({})
        wire.rest()

    try:
        with peer(tmp_path / "qmp", _qemu(script)), Monitor.connect(tmp_path / "qmp") as monitor:
            monitor.send_fd(writing, "nic0.tap0")
        (duplicate,) = received
        os.write(duplicate, b"one")
        os.close(duplicate)
        os.write(writing, b"two")
        assert os.read(reading, 10) == b"onetwo"
    finally:
        os.close(reading)
        os.close(writing)


def _silent(connection: socket.socket) -> None:
    assert connection.recv(1) == b""


def _foreign(connection: socket.socket) -> None:
    connection.sendall(b"220 mail.example ESMTP\r\n")


@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [
        (_silent, DeadlineError, "the greeting of QEMU's monitor did not happen within 0.2 s"),
        (_foreign, QemuError, "QEMU's monitor does not speak QMP: "),
    ],
)
def test_no_greeting(script: Any, kind: type[Exception], text: str, tmp_path: Path) -> None:
    """A silent peer and one that is no QEMU are distinguished, in time."""
    with peer(tmp_path / "qmp", script), pytest.raises(kind) as caught:
        Monitor.connect(tmp_path / "qmp", deadline=0.2)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


def test_nobody_there(tmp_path: Path) -> None:
    """A socket that is missing is named."""
    with pytest.raises(QemuError) as caught:
        Monitor.connect(tmp_path / "qmp")
    assert str(caught.value) == f"cannot reach QEMU's monitor '{tmp_path}/qmp': No such file or directory"


def test_a_message_without_end(tmp_path: Path) -> None:
    """A QEMU that sends megabytes without an end of line is given up, as one that ended is."""

    def script(wire: _Wire) -> None:
        wire.read()
        with suppress(BrokenPipeError, ConnectionResetError):
            wire.connection.sendall(b'{"return": "' + b"x" * 5 * 1024 * 1024)

    with peer(tmp_path / "qmp", _qemu(script)), Monitor.connect(tmp_path / "qmp") as monitor:
        with pytest.raises(QemuError) as caught:
            monitor.execute("stop")
        assert str(caught.value) == "QEMU ended or closed its monitor during stop"
        assert str(caught.value.__cause__) == "it sent more than 4 MiB without an end of line"
        monitor.close()
