"""The finder of modules: byte code is taken when it is that of the source, and only then."""

from __future__ import annotations

import os
import py_compile
import shutil
import signal
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from kata_runtime import fast_signal, fast_start

_SOURCE = Path(fast_start.__file__).parents[1]
_SCRIPT = """
import os, sys
sys.path.insert(0, sys.argv.pop(1))
from kata_runtime.fast_start import start
def leave(status):
    modules = {name: module.__spec__ for name, module in sys.modules.items() if name.startswith("kata_runtime")}
    print(sorted(name for name, spec in modules.items() if type(spec.loader).__module__ != "kata_runtime.fast_start"))
    sys.exit(status)
os._exit = leave
start()
"""


def test_start_finds_its_modules() -> None:
    """All modules of a command but the first two come from this finder."""
    argv = [sys.executable, "-I", "-S", "-c", _SCRIPT, str(_SOURCE), "--version"]
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(_SOURCE)], check=True)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == [str(["kata_runtime", "kata_runtime.fast_start"])]


def test_an_early_sigint_ends_the_process_silently(tmp_path: Path) -> None:
    """SIGINT that arrives while the first modules are imported ends the process without a traceback."""
    package = tmp_path / "kata_runtime"
    (package / "cli").mkdir(parents=True)
    for name in ("__init__.py", "cli/__init__.py"):
        (package / name).touch()
    for module in (fast_start, fast_signal):
        shutil.copy(str(module.__file__), package)
    (package / "cli/main.py").write_text("import _signal\n_signal.raise_signal(_signal.SIGINT)\n")
    done = subprocess.run([sys.executable, "-ISc", _SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of that name with a module, both compiled."""
    directory = tmp_path / "kata_runtime"
    directory.mkdir()
    for name in ("__init__", "module"):
        (directory / f"{name}.py").write_text(f"PLACE = {name!r}\n")
        py_compile.compile(str(directory / f"{name}.py"))
    return directory


def _found(package: Path, name: str) -> dict[str, object] | None:
    spec = fast_start.Finder(str(package.parent)).find_spec(name)
    if spec is None:
        return None
    assert spec.loader is not None
    module = type(sys)(name)
    spec.loader.exec_module(module)
    return {
        "place": module.PLACE,
        "file": module.__file__,
        "origin": spec.origin,
        "search": spec.submodule_search_locations,
    }


def test_module_and_package_are_found(package: Path) -> None:
    """A module and a package have their file, and the package the place of its modules; others' are left alone."""
    module, init = str(package / "module.py"), str(package / "__init__.py")
    assert _found(package, "kata_runtime.module") == {
        "place": "module",
        "file": module,
        "origin": module,
        "search": None,
    }
    expected = {"place": "__init__", "file": init, "origin": init, "search": [str(package)]}
    assert _found(package, "kata_runtime") == expected
    assert [_found(package, name) for name in ("kata_runtime.absent", "json", "")] == [None, None, None]


def test_changed_source_is_compiled_anew(package: Path) -> None:
    """Byte code of an older source, of another size, or of another interpreter is left to the usual finder."""
    path = package / "module.py"
    status = path.stat()
    os.utime(path, (status.st_atime, status.st_mtime + 2))
    assert _found(package, "kata_runtime.module") is None
    path.write_text("PLACE = 'elsewhere'\n")
    os.utime(path, (status.st_atime, status.st_mtime))
    assert _found(package, "kata_runtime.module") is None
    py_compile.compile(str(path))
    compiled = Path(cache_from_source(str(path)))
    compiled.write_bytes(b"\0\0" + compiled.read_bytes()[2:])
    assert _found(package, "kata_runtime.module") is None
    compiled.unlink()
    assert _found(package, "kata_runtime.module") is None


@pytest.mark.parametrize(
    ("mode", "taken"),
    [(py_compile.PycInvalidationMode.UNCHECKED_HASH, True), (py_compile.PycInvalidationMode.CHECKED_HASH, False)],
)
def test_hashed_byte_code(package: Path, mode: py_compile.PycInvalidationMode, taken: bool) -> None:
    """Byte code that is not to be compared with its source is taken; one to be compared by hash is left."""
    py_compile.compile(str(package / "module.py"), invalidation_mode=mode)
    assert (_found(package, "kata_runtime.module") is not None) == taken
