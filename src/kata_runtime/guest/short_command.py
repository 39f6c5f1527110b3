"""A short command of the runtime's own in the guest: started on an exec port, with its input and output."""

from __future__ import annotations

import os
import time

from kata_runtime import fast_json, operation_log
from kata_runtime.errors import GuestError, ProtocolError
from kata_runtime.guest import wire
from kata_runtime.guest.host_port import GuestPort
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_runtime.guest.answer_limits import Limits

# How long a command still gets when the process that it depends on has ended. An idle guest needs 0.2 s.
_ENDED_SECONDS = 3.0


class Completed(NamedTuple):
    """How a command in the guest ended; ``exit_status`` is negative for a signal."""

    exit_status: int
    stdout: bytes
    stderr: bytes


def run_command(
    path: str, argv: Sequence[str], stdin: bytes = b"", *, seconds: float, limits: Limits,
    fixed_addresses: bool = False, process: int | None = None,
) -> Completed:  # fmt: skip
    """Run a short command in the guest, on the exec port behind the socket ``path``, which nobody else uses.

    With ``fixed_addresses`` it runs without address space layout randomization, and so faster without KVM.
    ``process`` is the pidfd of a process that the command may depend on: it has a few seconds after that one's end.

    :raise GuestError: it cannot be started. :raise DeadlineError: it ran longer than ``seconds``.
    """

    with operation_log.measured("run in the guest", argv=list(argv)) as step:
        with GuestPort(path, seconds=limits.connect_seconds) as port:
            if process is not None:
                port.end_waiting_after(process, _ENDED_SECONDS)
            port.send(wire.EXEC, 1, fast_json.dumps({"argv": list(argv), "fixed_addresses": fixed_addresses}).encode())
            done = _collect(port, argv[0], stdin, seconds, limits.output_bytes)
        step.note(exit_status=done.exit_status, bytes_received=len(done.stdout) + len(done.stderr))
        return done


def _collect(port: GuestPort, name: str, stdin: bytes, seconds: float, limit: int) -> Completed:
    try:
        return _converse(port, name, stdin, seconds, limit)
    except wire.FrameError as error:
        raise ProtocolError(f"the guest's agent sent {error}") from None


def _converse(port: GuestPort, name: str, stdin: bytes, seconds: float, limit: int) -> Completed:
    deadline = time.monotonic() + seconds
    output = {wire.STDOUT: bytearray(), wire.STDERR: bytearray()}
    offset = 0
    window = wire.STDIN_WINDOW_BYTES
    while True:
        kind, _, payload = port.receive(deadline, seconds, f"the end of {name} in the guest")
        match kind:
            case wire.DONE:
                number, text = wire.unpack_done(payload)
                raise GuestError(f"cannot run {name} in the guest: {text or os.strerror(number)}")
            case wire.EXIT:
                status = wire.unpack_status(payload)
                return Completed(status, bytes(output[wire.STDOUT]), bytes(output[wire.STDERR]))
            case wire.STDOUT | wire.STDERR:
                output[kind] += payload
                if len(output[kind]) > limit:
                    raise GuestError(f"{name} in the guest printed more than {limit >> 10} KiB")
                continue
            case wire.STDIN_TAKEN:
                window = min(window + wire.unpack_count(payload), wire.STDIN_WINDOW_BYTES)
            case wire.STARTED:
                pass
            case _:
                raise ProtocolError(f"the guest's agent sent frame {kind} to a command")
        while window and offset < len(stdin):
            chunk = stdin[offset : offset + window]
            port.send(wire.STDIN, 1, chunk)
            offset, window = offset + len(chunk), window - len(chunk)
        if offset == len(stdin):
            port.send(wire.STDIN, 1)
            offset += 1
