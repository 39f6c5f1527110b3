"""An HTTP server for metrics, with limits on the number of clients and on the time of each.

Import it after ``optional_packages.require(PROMETHEUS_CLIENT)``.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from kata_runtime.errors import HostError, UsageError

if TYPE_CHECKING:
    from typing import Any

    from prometheus_client import CollectorRegistry

    # As socketserver declares it, whose other kind is that of datagrams.
    _Request = socket.socket | tuple[bytes, socket.socket]

# Prometheus' default scrape_timeout is ten seconds.
REQUEST_SECONDS = 15.0
CLIENTS_MAX = 32
_LOOPBACK = "127.0.0.1"


class _Handler(WSGIRequestHandler):
    """Handles one request for each connection."""

    # Timeout of a single read or write; the server limits the whole request.
    timeout = 5.0

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


class MetricsServer(ThreadingMixIn, WSGIServer):
    """Listens on ``address``, a pair of host and port."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._free = threading.BoundedSemaphore(CLIENTS_MAX)
        try:
            super().__init__(address, _Handler)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise HostError(f"cannot listen at {address[0]} port {address[1]}: {reason}") from error
        self.set_app(make_wsgi_app(registry))

    def server_bind(self) -> None:
        """Bind as WSGIServer does, but without a DNS query for this host's name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.place
        self.setup_environ()

    @property
    def place(self) -> tuple[str, int]:
        """The host and port that the server listens on."""
        host, port, *_ = self.socket.getsockname()
        return host, port

    def verify_request(self, request: _Request, client_address: object) -> bool:
        """Refuse a client if the limit of clients is reached."""
        del request, client_address
        return self._free.acquire(blocking=False)

    def process_request_thread(self, request: _Request, client_address: Any) -> None:
        """Serve one client, and close its connection at the deadline."""
        timer = threading.Timer(REQUEST_SECONDS, _cut, [request])
        timer.daemon = True
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._free.release()

    def handle_error(self, request: _Request, client_address: Any) -> None:
        """Ignore errors of clients that disconnected or exceeded the deadline."""


def _cut(request: _Request) -> None:
    with suppress(OSError):
        if isinstance(request, socket.socket):
            request.shutdown(socket.SHUT_RDWR)


def parsed_address(text: str) -> tuple[str, int]:
    """Parse ``HOST:PORT``, ``[IPV6]:PORT``, or ``PORT`` on the loopback address.

    :raise UsageError: it has none of these forms.
    """
    host, separator, port = text.rpartition(":")
    if not separator:
        host = _LOOPBACK
    elif host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        # "::1:9000" is an IPv6 address itself.
        host = ""
    if not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--listen is {text!a}", hint="give PORT, or HOST:PORT with an IP address, [IPV6]:PORT")
    return host, int(port)
