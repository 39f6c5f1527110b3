"""Neutron's API as a program: ``neutron_api.py ADDRESS PORT SOCKET`` prints "ready" when it answers requests there.

It runs in an environment with Neutron, which has no server program of its own any more, only a WSGI application.
"""

from __future__ import annotations

import importlib
import socket
import sys
from socketserver import ThreadingMixIn
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


class Server(ThreadingMixIn, WSGIServer):
    """Answers each connection in a thread of its own: clients keep theirs open."""

    daemon_threads = True


class SocketServer(Server):
    """The same on a Unix socket, for clients in other network namespaces."""

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        """Bind without asking for a host name."""
        self.socket.bind(self.server_address[0])
        self.server_name, self.server_port = "localhost", 0
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """A connection, and an address for a client that has none."""
        return self.socket.accept()[0], ("localhost", 0)


class Handler(WSGIRequestHandler):
    """Logs nothing and looks up no names: Neutron logs its requests itself."""

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""

    def address_string(self) -> str:
        """The client's address."""
        return str(self.client_address[0])


def main() -> None:
    """Serve until a signal ends it."""
    address, port, path = sys.argv[1:]
    del sys.argv[1:]
    application = importlib.import_module("neutron.wsgi.api").application
    with (
        make_server(address, int(port), application, Server, Handler) as server,
        make_server(path, 0, application, SocketServer, Handler) as beside,
    ):
        Thread(target=beside.serve_forever, daemon=True).start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
