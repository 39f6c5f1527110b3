"""Debian source packages, fetched with the host's own apt configuration, verified by apt, and unpacked."""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from pathlib import Path

from kata_runtime.errors import HostError
from kata_runtime.guest.image.packages import run_program

_TYPES_LINE = re.compile(r"^Types:.*$", re.MULTILINE | re.IGNORECASE)
_ONE_LINE = re.compile(r"^deb\s(.*)$", re.MULTILINE)


def fetch_source(name: str, destination: Path) -> Path:
    """The directory below ``destination`` of the source package ``name``, which is fetched when it is not there.

    :raise HostError: apt or dpkg-source refused.
    """
    unpacked = destination / name
    if unpacked.is_dir():
        return unpacked
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=destination) as scratch:
        place = Path(scratch)
        options = _private_apt(place)
        run_program(["apt-get", "--quiet=2", *options, "update"])
        run_program(["apt-get", "--quiet=2", *options, "source", "--download-only", name], directory=place)
        descriptions = list(place.glob("*.dsc"))
        if len(descriptions) != 1:
            raise HostError(f"apt-get fetched {len(descriptions)} source packages for {name}, not one")
        # apt has verified the .dsc by the signed index; dpkg-source verifies the files by the .dsc.
        run_program(["dpkg-source", "--no-check", "--extract", str(descriptions[0]), str(place / "tree")])
        (place / "tree/.version").write_text(_version(descriptions[0]))
        shutil.move(place / "tree", unpacked)
    return unpacked


def version_of(unpacked: Path) -> str:
    """The version of a source package that was fetched."""
    return (unpacked / ".version").read_text()


def _version(description: Path) -> str:
    found = re.search(r"^Version: (\S+)$", description.read_text(), re.MULTILINE)
    if found is None:
        raise HostError(f"{description.name} names no version")
    return found[1]


def source_entries(text: str, *, deb822: bool) -> str:
    """A file of apt's sources (sources.list(5)) with source packages in place of binary ones."""
    if deb822:
        return _TYPES_LINE.sub("Types: deb-src", text)
    return "\n".join(f"deb-src {line}" for line in _ONE_LINE.findall(text)) + "\n"


def _private_apt(place: Path) -> list[str]:
    """Options for apt to keep everything in ``place``, and to have the host's sources as sources of source packages."""
    parts = place / "sources.list.d"
    for name in (parts, place / "lists/partial", place / "cache/archives/partial"):
        name.mkdir(parents=True)
    # apt-config(8): /f and /d give the full names.
    names = run_program(["apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"])
    configured = dict(line.split("=", 1) for line in names.decode().splitlines())
    listed, directory = (Path(shlex.split(configured[key])[0]) for key in ("LIST", "PARTS"))
    for path in [listed, *sorted(directory.glob("*"))]:
        if path.is_file() and path.suffix in (".list", ".sources"):
            (parts / path.name).write_text(source_entries(path.read_text(), deb822=path.suffix == ".sources"))
    return [
        "-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={parts}",
        "-o", f"Dir::State::Lists={place}/lists", "-o", f"Dir::Cache={place}/cache",
        "-o", "APT::Sandbox::User=",
    ]  # fmt: skip
