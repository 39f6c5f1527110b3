"""A database server of the lab's own: a directory and a Unix socket, no port, no users."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab.namespace import LabError
from lab.program import running_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START_SECONDS = 60.0
_READY = b"READY=1"


@contextmanager
def running_mariadb(directory: Path, database: str) -> Iterator[Path]:
    """MariaDB with an empty database; its socket. Without grant tables, which it would take seconds to make.

    It reports that it is ready by sd_notify(3).
    """
    (directory / "data").mkdir()
    (directory / "init.sql").write_text(f"CREATE DATABASE {database} CHARACTER SET utf8mb3;\n")
    opened = directory / "mariadb.sock"
    argv = [
        "mariadbd", "--no-defaults", "--user=root", "--skip-grant-tables", "--skip-networking",
        f"--datadir={directory / 'data'}", f"--socket={opened}", f"--pid-file={directory / 'mariadb.pid'}",
        f"--init-file={directory / 'init.sql'}",
        # Its data need not outlive a crash.
        "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0",
    ]  # fmt: skip
    notifications = directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(notifications))
        listening.settimeout(_START_SECONDS)
        with running_program(argv, directory / "mariadb.log", {"NOTIFY_SOCKET": str(notifications)}):
            try:
                while _READY not in listening.recv(4096):
                    pass
            except TimeoutError as error:
                raise LabError(f"MariaDB does not start: {(directory / 'mariadb.log').read_text()}") from error
            yield opened
