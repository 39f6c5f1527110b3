"""Stands in for QEMU where only its process matters: the guest's kernel parameters say how it behaves.

up: an agent answers. old: one of another version does. panic: the guest prints a kernel panic, and QEMU ends.
error: QEMU says why and ends. silent: it ends without a word. hung: nothing answers. kvm: KVM's own failure under
KVM, up otherwise. slow: no answer under KVM, up otherwise. only: panic under KVM, up otherwise.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from kata_runtime.guest import wire


def _descriptor(chardev: str) -> int:
    options = next(word for word in sys.argv if word.startswith(f"socket,id={chardev},"))
    return int(options.split("fd=")[1].split(",")[0])


def _answer(version: int) -> None:
    listening = socket.socket(fileno=_descriptor("port1"))
    decoder = wire.Decoder()
    while True:
        connection, _ = listening.accept()
        with connection:
            while data := connection.recv(4096):
                for raw in decoder.feed(data):
                    kind, request, payload = wire.unpack_body(raw)
                    if kind == wire.HELLO:
                        answer = payload[: wire.NONCE_BYTES] + version.to_bytes(2, "big")
                        connection.sendall(wire.OPENING + wire.pack_frame(wire.HELLO, request, answer))
                    else:
                        connection.sendall(wire.pack_frame(wire.DONE, request, wire.pack_done(0)))


def main() -> int:
    kvm = "kvm" in sys.argv
    mode = sys.argv[sys.argv.index("-append") + 1].rpartition(" ")[2].removeprefix("fake=")
    if not kvm:
        mode = {"kvm": "up", "slow": "up", "only": "up"}.get(mode, mode)
    console = _descriptor("console")
    if mode in ("panic", "only"):
        os.write(console, b"[    0.1] Linux\r\n[    0.2] Kernel panic - not syncing: No working init found.\r\n")
        return 0
    if mode == "kvm":
        sys.stderr.write("qemu: failed to initialize kvm: Input/output error\n")
        return 1
    if mode == "error":
        sys.stderr.write("qemu: cannot do this\n")
        return 1
    if mode == "silent":
        return 3
    if mode in ("hung", "slow"):
        signal.pause()
    _answer(wire.VERSION + (mode == "old"))
    return 0


sys.exit(main())
