"""The virtual servers that a batch is about to change, as they were: on disk before the first of them changes.

The file holds rules: ``-D`` for a service that did not exist, ``-A`` and ``-a`` for one that did, with all its servers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from kata_runtime.errors import HostError
from kata_runtime.ipvs import save
from kata_runtime.ipvs.model import DeleteService
from kata_runtime.ipvs.rules import RulesError, outcome, parse_rules, touched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kata_runtime.ipvs.model import ServiceKey
    from kata_runtime.ipvs.rules import Table

_FILE = "ipvs-undo.rules"


class Former(NamedTuple):
    """The services ``keys`` as they were; those that ``table`` lacks did not exist."""

    keys: frozenset[ServiceKey]
    table: Table


def write(directory: Path, former: Former) -> None:
    """Put it on disk, whole or not at all.

    :raise HostError: the file system refused.
    """
    path = directory / _FILE
    temporary = path.with_suffix(".new")
    try:
        opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(opened, "w", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in _lines(former))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}", errno=error.errno or 0) from error


def read(directory: Path) -> Former:
    """What ``write`` wrote.

    :raise HostError: it cannot be read, or is damaged.
    """
    path = directory / _FILE
    try:
        batch = parse_rules(path.read_bytes(), path.name)
        keys = touched(batch.rules)
        kept = [place for place, rule in enumerate(batch.rules) if not isinstance(rule, DeleteService)]
        existing = batch._replace(rules=[batch.rules[i] for i in kept], lines=[batch.lines[i] for i in kept])
        return Former(frozenset(keys), outcome({}, existing))
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}", errno=error.errno or 0) from error
    except RulesError as error:
        raise HostError(f"{path} is damaged: {error.problems[0]}") from error


def remove(directory: Path) -> None:
    """The work is done, or undone."""
    (directory / _FILE).unlink(missing_ok=True)


def _lines(former: Former) -> Iterator[str]:
    for key in former.keys:
        if key not in former.table:
            yield f"-D {save.key_words(key)}"
            continue
        wish, servers = former.table[key]
        yield save.add_service(wish)
        for server in servers.values():
            yield save.add_server(key, server) + save.thresholds(server)
