"""Gives a guest an identity of its own after it was restored from a template: all restored guests are identical."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time

from kata_runtime.guest import wire

# include/uapi/linux/random.h
_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207
_POOL_HEADER = struct.Struct("=ii")  # struct rand_pool_info: bits of entropy, bytes that follow

_MACHINE_ID_BYTES = 16  # machine-id(5)


class Renewal:
    """Sets the guest's identity.

    What it needs is open before the VM is saved: without KVM, opening two files would take a restored guest 30 ms.
    """

    def __init__(self, machine_id: str) -> None:
        """``machine_id``: the file of the machine ID, which is made if there is none."""
        self._pool = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
        self._machine_id = os.open(machine_id, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def close(self) -> None:
        """Close the files."""
        os.close(self._pool)
        os.close(self._machine_id)

    def renew(self, payload: bytes) -> None:
        """Mix the host's seed into the random pool; set clock, host name and machine ID.

        The kernel makes the boot ID from the pool when it is first read (drivers/char/random.c, proc_do_uuid), and the
        keys of connection tracking and of TCP's sequence numbers when they are first used (get_random_once).

        :raise wire.FrameError: the payload is cut short. :raise OSError: the kernel refused.
        """
        seed, now, host_name = wire.unpack_renewal(payload)
        fcntl.ioctl(self._pool, _RNDADDENTROPY, _POOL_HEADER.pack(8 * len(seed), len(seed)) + seed)
        # Without it the generator would use its previous key for up to a minute (crng_reseed).
        fcntl.ioctl(self._pool, _RNDRESEEDCRNG)
        time.clock_settime_ns(time.CLOCK_REALTIME, now)
        socket.sethostname(host_name)
        # Not as text: the import of a codec would be a third of the time that a sandbox takes to start.
        os.pwrite(self._machine_id, b"%s\n" % os.urandom(_MACHINE_ID_BYTES).hex().encode(), 0)
