"""Fast import of this package's modules when a command starts, which is most of a short command's time.

The import system searches sys.path for each of some forty modules, suffix by suffix, in Python: that takes as long as
executing them. ``Finder`` opens the byte code in ``__pycache__`` directly, and uses it if this interpreter compiled it
and it matches the source, or need not be compared with it (PEP 552). The usual finders handle everything else.
"""

from __future__ import annotations

import gc
import marshal
import posix
import sys
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType
    from typing import NoReturn

_PACKAGE = "kata_runtime"
# Header of a .pyc (PEP 552): magic number, flags, and then either time and size of the source, or a hash.
_HEADER_BYTES = 16
_BY_TIME, _UNCHECKED = bytes(4), bytes([1, 0, 0, 0])
_SUFFIX = f".{sys.implementation.cache_tag}.pyc"
# Objects between two collections. Importing creates many objects and no garbage: with the default of 700 there would
# be thirty collections.
_GARBAGE_OBJECTS = 10_000
_new_spec: Callable[..., ModuleSpec] = type(__spec__)


def start() -> NoReturn:
    """Run this process's command line, importing the package from the directory that contains this module."""
    gc.set_threshold(_GARBAGE_OBJECTS)
    sys.meta_path.insert(0, Finder(__file__.rsplit("/", 2)[0]))
    from kata_runtime import fast_signal

    # Until ``main`` handles it, SIGINT ends the process, as other signals do: Python's handler would print a traceback.
    fast_signal.signal(fast_signal.SIGINT, fast_signal.SIG_DFL)
    from kata_runtime.cli.main import program

    program()


class Finder:
    """A meta path finder (importlib.abc.MetaPathFinder) for this package below the directory ``source``."""

    def __init__(self, source: str) -> None:
        self._source = source

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of module ``name``; None leaves it to the other finders."""
        if not name.startswith(_PACKAGE):
            return None
        path = f"{self._source}/{name.replace('.', '/')}"
        directory, _, last = path.rpartition("/")
        code = _code_of(directory, last)
        if code is not None:
            return _new_spec(name, _Loader(f"{path}.py", code), origin=f"{path}.py")
        code = _code_of(path, "__init__")
        if code is None:
            return None
        origin = f"{path}/__init__.py"
        spec = _new_spec(name, _Loader(origin, code), origin=origin, is_package=True)
        spec.submodule_search_locations = [path]
        return spec


class _Loader:
    """A loader of code that ``Finder`` has read (importlib.abc.Loader)."""

    def __init__(self, path: str, code: CodeType) -> None:
        self._path = path
        self._code = code

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """None: the import system creates the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's body."""
        module.__file__ = self._path
        exec(self._code, module.__dict__)


def _code_of(directory: str, name: str) -> CodeType | None:
    """The code object of ``name``.py, or None where its byte code is missing or out of date."""
    try:
        source = posix.stat(f"{directory}/{name}.py")
        opened = posix.open(f"{directory}/__pycache__/{name}{_SUFFIX}", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = posix.read(opened, posix.fstat(opened).st_size)
    finally:
        posix.close(opened)
    head = data[:_HEADER_BYTES]
    by_time = MAGIC_NUMBER + _BY_TIME + _word(int(source.st_mtime)) + _word(source.st_size)
    if head != by_time and head[:8] != MAGIC_NUMBER + _UNCHECKED:
        return None
    code: CodeType = marshal.loads(memoryview(data)[_HEADER_BYTES:])
    return code


def _word(number: int) -> bytes:
    return (number & 0xFFFFFFFF).to_bytes(4, "little")
