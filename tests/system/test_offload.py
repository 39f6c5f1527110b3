"""What a switch that reads the bytes of frames, as those in user space do, finds in them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import nic

if TYPE_CHECKING:
    from tests.system.conftest import Namespace, Sandbox

# The first TCP segment that arrives at the TAP, as a packet socket gives it; whether its checksum (RFC 9293) is right.
_FIRST_SEGMENT = """
import socket, struct, subprocess, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as tap:
    tap.bind(("tap0", 0))
    tap.settimeout(60)
    started = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while (frame := tap.recv(65536))[23] != 6 or frame[26:30] != socket.inet_aton("10.0.0.3"):
        pass
    started.wait()
packet = frame[14:14 + struct.unpack_from("!H", frame, 16)[0]]
segment = packet[20:]
data = packet[12:20] + struct.pack("!HH", 6, len(segment)) + segment + bytes(len(segment) % 2)
total = sum(struct.unpack(f"!{len(data) // 2}H", data))
while total >> 16:
    total = (total & 0xFFFF) + (total >> 16)
print(total == 0xFFFF)
"""


@pytest.mark.parametrize("offload", [False, True])
def test_checksums_of_what_the_guest_sends(sandbox: Sandbox, namespace: Namespace, *, offload: bool) -> None:
    """Without offload a segment leaves the guest with its checksum, with it unfinished; the answer says which."""
    namespace.tap("tap0", "10.0.0.1/24")
    done = sandbox.network("add-iface", nic("tap0", "eth0", "10.0.0.3/24", offload=offload))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout).get("offload", True) is offload
    connect = sandbox.runtime.argv("exec", sandbox.id, "nc", "-w", "1", "10.0.0.1", "9")
    # The runtime is called from within the namespace: only its last words are needed.
    found = namespace.run("python3", "-c", _FIRST_SEGMENT, *connect[len(namespace.prefix) :])
    assert found.stdout == f"{not offload}\n"
    assert sandbox.network("del-iface", {"name": "eth0"}).stdout == "null\n"
