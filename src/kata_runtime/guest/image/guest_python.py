"""The guest's Python: the Debian release's version, with a part of the standard library, compiled to byte code.

``python3-minimal`` depends on the release's only interpreter (3.11 in Debian 12, 3.13 in Debian 13).
"""

from __future__ import annotations

import re
import stat
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from kata_runtime.errors import HostError
from kata_runtime.guest.image.archive import Node, regular_file, symbolic_link
from kata_runtime.guest.image.packages import run_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PYTHON_PACKAGES = ("libpython3-stdlib", "python3-minimal")
_INTERPRETER_PACKAGE = re.compile(r"python(3\.[0-9]+)-minimal")
# Large, graphical, for developers, or linked to libraries that the guest does not need.
_UNUSED = re.compile(
    r"(__phello__|_aix_support|_android_support|_apple_support|_bootsubprocess|_ios_support|_osx_support|_pydecimal|_pyrepl"
    r"|antigravity|asynchat|asyncore|asyncio|bdb|cProfile|cgi|cgitb|chunk|code|codeop|concurrent|config-3|crypt"
    r"|ctypes/(?!__init__|_endian)|curses|dbm|distutils|doctest|email|ensurepip|ftplib"
    r"|html|http|idlelib|imaplib|imghdr|lib2to3|mailbox|mailcap|mimetypes|msilib|multiprocessing|netrc|nntplib|optparse"
    r"|pdb|pickletools|pipes|poplib|profile|pstats|pty|pyclbr|pydoc|pydoc_data|sitecustomize|smtpd|smtplib|sndhdr"
    r"|sqlite3|ssl|statistics|sunau|sysconfig|tabnanny|telnetlib|test|this|tkinter|tomllib|trace|tracemalloc|turtle"
    r"|turtledemo|unittest|urllib|uu|uuid|venv|wave|webbrowser|wsgiref|xdrlib|xml|xmlrpc|zoneinfo|__pycache__"
    r"|_sysconfigdata[^/]*|_collections_abc_test)(\.py)?(/|$)"
    r"|lib-dynload/_?(asyncio|bz2|codecs_|crypt|ctypes_|curses|dbm|decimal|hashlib|interp|lzma|multi|nis|sqlite|ssl|test"
    r"|tkinter|uuid|xx|zoneinfo|readline|audioop|ossaudio|elementtree|queue)"
)
_ENCODINGS = frozenset({"__init__", "aliases", "ascii", "latin_1", "utf_8", "idna"})
_LOADER = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
_COMPILE = """\
import importlib.util, marshal, struct, sys
for name in sys.stdin.read().splitlines():
    with open(name + ".py", "rb") as source:
        code = compile(source.read(), "/" + name + ".py", "exec", dont_inherit=True, optimize=0)
    with open(name + ".pyc", "wb") as compiled:
        compiled.write(importlib.util.MAGIC_NUMBER + struct.pack("<IQ", 1, 0) + marshal.dumps(code))
"""


def python_version(package_names: Iterable[str]) -> str:
    """Return the version of the interpreter among the packages, for example ``3.13``; raise HostError without one."""
    for match in map(_INTERPRETER_PACKAGE.fullmatch, package_names):
        if match:
            return match[1]
    raise HostError("python3-minimal depends on no interpreter", hint="build from Debian 12 or 13")


def interpreter_packages(version: str) -> frozenset[str]:
    """Return the names of the packages that hold the interpreter and its library."""
    return frozenset({f"python{version}-minimal", f"libpython{version}-minimal", f"libpython{version}-stdlib"})


def wanted_files(nodes: Mapping[str, Node], version: str) -> dict[str, Node]:
    """Return the program, and the part of the library that the guest needs, from the interpreter's packages."""
    program, root = f"python{version}", f"usr/lib/python{version}/"
    kept = {path: node for path, node in nodes.items() if path.startswith(root) and _is_wanted(path.removeprefix(root))}
    return kept | {f"usr/bin/{program}": nodes[f"usr/bin/{program}"], "usr/bin/python3": symbolic_link(program)}


def _is_wanted(name: str) -> bool:
    if name.startswith("encodings/"):
        return PurePosixPath(name).stem in _ENCODINGS
    return name.endswith((".py", ".so")) and not _UNUSED.match(name)


def compile_python(sources: Mapping[str, Node], runtime: Mapping[str, Node], version: str) -> dict[str, Node]:
    """Return the byte code of ``sources``; the guest would need seconds at each boot to compile them.

    The guest's own interpreter compiles them, with the guest's C library (both are in ``runtime``), so the result does
    not depend on this host's Python. It is a new process, since marshal's output depends on what the interpreter did
    before.
    """
    with tempfile.TemporaryDirectory(prefix="kata-image-") as scratch:
        for path, node in (*runtime.items(), *sources.items()):
            _write(Path(scratch, path), node)
        loader, library = f"{scratch}/{_LOADER}", f"{scratch}/{PurePosixPath(_LOADER).parent}"
        argv = [loader, "--library-path", library, f"{scratch}/usr/bin/python{version}", "-I", "-S", "-c", _COMPILE]
        names = sorted(path.removesuffix(".py") for path in sources)
        run_program(argv, directory=Path(scratch), stdin="\n".join(names).encode())
        return {f"{name}.pyc": regular_file(Path(scratch, f"{name}.pyc").read_bytes()) for name in names}


def _write(path: Path, node: Node) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if stat.S_ISLNK(node.mode):
        path.symlink_to(node.data.decode())
    else:
        path.write_bytes(node.data)
        path.chmod(stat.S_IMODE(node.mode))
