"""Starts QEMU by hand, as the JSON in the file given says, and prints its pid and the seconds to its agent's answer.

It imports nothing of this project: what it takes is what nobody can go below. QEMU ends when its standard input does.
The JSON: ``argv``; ``directory`` of the sockets; ``sockets``, ``console`` and ``memory``: descriptors by the numbers
that ``argv`` has; ``memory_bytes``; ``template``, a directory or empty.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import time

# Above all the numbers in QEMU's arguments.
_FIRST_OWN = 200
_HELLO_SECONDS = 1.0
_SECONDS = 120.0
# As guest/wire.py has them; the nonce has no byte that must be escaped.
_OPENING, _END, _HELLO = b"\xdb\xc0", b"\xc0", 1
_NONCE = b"sixteen of bytes"

_CAPABILITIES = b'[{"capability":"x-ignore-shared","state":true},{"capability":"events","state":true}]'
_LOADING = (
    b'{"execute":"qmp_capabilities"}',
    b'{"execute":"migrate-set-capabilities","arguments":{"capabilities":%s}}' % _CAPABILITIES,
    b'{"execute":"getfd","arguments":{"fdname":"snapshot"}}',
    b'{"execute":"migrate-incoming","arguments":{"uri":"fd:snapshot"}}',
)


def main() -> int:
    """Return the exit status."""
    with open(sys.argv[1], encoding="utf-8") as file:
        plan = json.load(file)
    began = time.perf_counter()
    memory = _provide(plan)
    # A session of its own, as sandboxes have: the scheduler divides processors between sessions first (sched(7)).
    pid = os.posix_spawn(plan["argv"][0], plan["argv"], os.environ, setsid=True)
    try:
        if plan["template"]:
            _load(plan, memory)
        _greet(os.path.join(plan["directory"], "port1"))
        print(pid, time.perf_counter() - began, flush=True)
        sys.stdin.buffer.read()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return 0


def _provide(plan: dict[str, object]) -> int:
    """The descriptors that QEMU inherits; the one of its memory, which is ours."""
    sockets, directory = plan["sockets"], str(plan["directory"])
    assert isinstance(sockets, dict)
    for name, number in sockets.items():
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(os.path.join(directory, name))
        listening.listen(1)
        _hand_over(listening.detach(), number)
    console, theirs = socket.socketpair()
    assert isinstance(plan["console"], int)
    _hand_over(theirs.detach(), plan["console"])
    _above(console.detach())
    memory = _above(os.memfd_create("guest-memory"))
    assert isinstance(plan["memory_bytes"], int)
    assert isinstance(plan["memory"], int)
    os.ftruncate(memory, plan["memory_bytes"])
    os.dup2(memory, plan["memory"])
    return memory


def _above(opened: int) -> int:
    moved = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, _FIRST_OWN)
    os.close(opened)
    return moved


def _hand_over(opened: int, number: int) -> None:
    moved = _above(opened)
    os.dup2(moved, number)
    os.close(moved)


def _load(plan: dict[str, object], memory: int) -> None:
    template = str(plan["template"])
    with open(os.path.join(template, "memory"), "rb") as file:
        end = 0
        while end < os.fstat(file.fileno()).st_size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                break  # a hole up to the end
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            os.lseek(memory, start, os.SEEK_SET)
            while start < end:
                start += os.sendfile(memory, file.fileno(), start, end - start)
    with socket.socket(socket.AF_UNIX) as monitor, open(os.path.join(template, "devices"), "rb") as devices:
        monitor.settimeout(_SECONDS)
        monitor.connect(os.path.join(str(plan["directory"]), "monitor"))
        answers = monitor.makefile("rb")
        for asked in _LOADING:
            passed = array.array("i", [devices.fileno()] if b"getfd" in asked else [])
            monitor.sendmsg([asked], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)] if passed else [])
            _await(answers.readline, b'{"return"')
        _await(answers.readline, b'"completed"')
        monitor.sendall(b'{"execute":"cont"}')
        _await(answers.readline, b'{"return"')


def _await(read: object, wanted: bytes) -> None:
    assert callable(read)
    while wanted not in (line := read()):
        if not line or b'"error"' in line or b'"failed"' in line:
            raise RuntimeError(f"QEMU said {line!r}")


def _greet(path: str) -> None:
    hello = _OPENING + struct.pack("!BI", _HELLO, 0) + _NONCE + _END
    with socket.socket(socket.AF_UNIX) as port:
        port.connect(path)
        received = b""
        end = time.monotonic() + _SECONDS
        while _NONCE not in received:
            port.sendall(hello)
            # One can be lost while the guest boots.
            if select.select([port], [], [], _HELLO_SECONDS)[0]:
                received += port.recv(65536)
            if time.monotonic() > end:
                raise RuntimeError("the agent does not answer")


if __name__ == "__main__":
    sys.exit(main())
