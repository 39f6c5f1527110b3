"""Debian packages: resolves and downloads them with the host's apt configuration, and reads them without installing.

apt resolves against an empty dpkg status file, so that the result does not depend on what the host has installed.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kata_runtime.errors import HostError, InputError
from kata_runtime.guest.image.archive import Node, directory, regular_file, symbolic_link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

KERNEL_META_PACKAGE = "linux-image-cloud-amd64"
KERNEL_PACKAGE = re.compile(r"linux-image-[0-9].*-cloud-amd64")
_PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")  # Debian policy, section 5.6.1
_INSTALL_LINE = re.compile(r"Inst (\S+) \((\S+) .*\[(\S+)\]\)")
_UPDATE_HINT = "run apt-get update and try again"


class Package(NamedTuple):
    """One version of a package."""

    name: str
    version: str
    architecture: str

    @property
    def file_name(self) -> str:
        """Return the name that apt gives to the file."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


def cache_directory() -> Path:
    """Return where downloaded packages are kept for the next build."""
    if os.geteuid() == 0:
        return Path("/var/cache/kata-runtime/packages")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "kata-runtime" / "packages"


def check_names(names: Iterable[str]) -> None:
    """Raise InputError for a name that cannot be a package's."""
    for name in names:
        if not _PACKAGE_NAME.fullmatch(name):
            raise InputError(f"{name!r} is not a Debian package name", hint="lower case letters, digits, + . -")


def resolve(names: Sequence[str]) -> list[Package]:
    """Return the packages ``names`` and everything that they depend on, sorted; raise HostError."""
    with tempfile.TemporaryDirectory(prefix="kata-image-") as scratch:
        status = Path(scratch, "status")
        status.touch()
        output = run_program([
            "apt-get", "--simulate", "--quiet=2", "--no-install-recommends",
            "-o", f"Dir::State::status={status}", "-o", f"Dir::Cache={scratch}", "-o", "Debug::NoLocking=true",
            "install", *names,
        ], hint=_UPDATE_HINT)  # fmt: skip
    found = [Package(*match.groups()) for match in map(_INSTALL_LINE.match, output.decode().splitlines()) if match]
    if not found:
        raise HostError(f"apt-get found none of the packages {' '.join(names)}", hint=_UPDATE_HINT)
    return sorted(found)


def fetch(packages: Iterable[Package], cache: Path, progress: Callable[[str], None]) -> None:
    """Download what ``cache`` lacks; raise HostError."""
    missing = [package for package in packages if not (cache / package.file_name).exists()]
    if not missing:
        return
    cache.mkdir(parents=True, exist_ok=True)
    progress(f"downloading {len(missing)} Debian packages")
    with tempfile.TemporaryDirectory(prefix=".download-", dir=cache) as scratch:
        wanted = [f"{package.name}:{package.architecture}={package.version}" for package in missing]
        wanted = [name.replace(":all=", "=") for name in wanted]
        run_program(
            ["apt-get", "--quiet=2", "-o", "APT::Sandbox::User=", "download", *wanted],
            directory=Path(scratch),
            hint=_UPDATE_HINT,
        )
        for package in missing:
            os.replace(Path(scratch, package.file_name), cache / package.file_name)


def read_files(path: Path) -> Iterator[tuple[str, Node]]:
    """Yield path and node of everything in a package, hard links as copies; raise HostError."""
    content = run_program(["dpkg-deb", "--fsys-tarfile", str(path)])
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            name = member.name.removeprefix("./").rstrip("/")
            if member.isdir():
                if name not in {"", "."}:
                    yield name, directory()
            elif member.issym():
                yield name, symbolic_link(member.linkname)
            elif member.isreg() or member.islnk():
                data = archive.extractfile(member)
                if data is not None:
                    yield name, regular_file(data.read(), member.mode & 0o755)


def run_program(
    argv: Sequence[str], *, directory: Path | None = None, stdin: bytes = b"", hint: str | None = None
) -> bytes:
    """Run a host program and return its output; raise HostError with the last line of its error output."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, cwd=directory, env=environment, check=False)
    except OSError as exc:
        raise HostError.of(f"cannot run {argv[0]}", exc, hint="run make setup") from exc
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        errors = [line for line in lines if line.startswith("E:")] or lines or [f"exit status {done.returncode}"]
        command = shlex.join(argv) if len(argv) < 6 else argv[0]
        raise HostError(f"{command} failed: {errors[0]!s:.300}", hint=hint)
    return done.stdout
