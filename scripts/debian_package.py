"""Make the Debian package in the directory named on the command line, and print its path.

dpkg-deb alone: there is nothing to compile, and what debhelper would add for Python is two lines in the scripts of
packaging/debian. The same tree gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from scripts.changelog import released
from scripts.manual_pages import pages

from kata_runtime import __version__
from kata_runtime.cli.completion_scripts import SCRIPTS

_ROOT = Path(__file__).parents[1]
_PACKAGING = _ROOT / "packaging"
_NAME = "kata-runtime"
_LIBRARY = "usr/lib/kata-runtime"
_CONFIGURATION = "etc/kata-runtime/configuration.toml"
_COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/kata-runtime",
    "zsh": "usr/share/zsh/vendor-completions/_kata-runtime",
    "fish": "usr/share/fish/vendor_completions.d/kata-runtime.fish",
}
# Isolated and without the site module: a command is short, and start-up would be most of its time.
_PROGRAM = f"""\
#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, "/{_LIBRARY}")
from kata_runtime.fast_start import start

start()
"""
_KIB = 1024


def contents() -> dict[str, bytes]:
    """Return ``{path in the file system: content}`` of all files."""
    found = {"usr/bin/kata-runtime": _PROGRAM.encode()}
    source = _ROOT / "src"
    for path in sorted((source / "kata_runtime").rglob("*.py")):
        found[f"{_LIBRARY}/{path.relative_to(source)}"] = path.read_bytes()
    found[_CONFIGURATION] = (_PACKAGING / "configuration.toml").read_bytes()
    found |= {f"usr/share/man/man1/{name}.gz": _packed(text.encode()) for name, text in pages().items()}
    found |= {path: SCRIPTS[shell].encode() for shell, path in _COMPLETIONS.items()}
    documents = f"usr/share/doc/{_NAME}"
    found[f"{documents}/copyright"] = (_PACKAGING / "debian/copyright").read_bytes()
    found[f"{documents}/changelog.gz"] = _packed(_changelog().encode())
    found[f"{documents}/CHANGELOG.md.gz"] = _packed((_ROOT / "CHANGELOG.md").read_bytes())
    for path in (_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))):
        found[f"{documents}/{path.relative_to(_ROOT)}"] = path.read_bytes()
    return found


def build(destination: Path) -> Path:
    """Make the package in ``destination``; return its path."""
    files = contents()
    package = destination / f"{_NAME}_{__version__}_amd64.deb"
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination) as scratch:
        tree = Path(scratch, "tree")
        for name, data in files.items():
            _write(tree / name, data, 0o755 if name.startswith("usr/bin/") else 0o644)
        size = sum(len(data) for data in files.values()) // _KIB + 1
        control = (_PACKAGING / "debian/control.in").read_text()
        control = control.replace("@VERSION@", __version__).replace("@SIZE@", str(size))
        _write(tree / "DEBIAN/control", control.encode(), 0o644)
        _write(tree / "DEBIAN/conffiles", f"/{_CONFIGURATION}\n".encode(), 0o644)
        sums = [f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}  {name}\n" for name, data in files.items()]
        _write(tree / "DEBIAN/md5sums", "".join(sums).encode(), 0o644)
        for script in ("postinst", "prerm", "postrm"):
            _write(tree / "DEBIAN" / script, (_PACKAGING / "debian" / script).read_bytes(), 0o755)
        for directory in (tree, *(path for path in tree.rglob("*") if path.is_dir())):
            directory.chmod(0o755)
        day = released(__version__)
        stamp = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        made = Path(scratch, package.name)
        argv = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(made)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(stamp)}
        subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, check=True)
        shutil.move(made, package)
    return package


def _changelog() -> str:
    """Return the package's own changelog (deb-changelog(5)), which points to the one for users."""
    when = f"{released(__version__):%a, %d %b %Y} 00:00:00 +0000"
    return (
        f"{_NAME} ({__version__}) unstable; urgency=medium\n\n  * What is new is in CHANGELOG.md.gz.\n\n"
        f" -- {_NAME} maintainers <{_NAME}@localhost>  {when}\n"
    )


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def main() -> int:
    """Return the exit status."""
    print(build(Path(sys.argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
