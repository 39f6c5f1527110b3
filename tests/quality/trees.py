"""The tracked files, and the syntax trees of the Python among them."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"


@cache
def tracked_files() -> tuple[Path, ...]:
    """Return every file that git tracks here and that exists."""
    output = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    paths = (ROOT / name for name in output.decode().split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def python_files(*directories: str) -> list[Path]:
    """Return the tracked Python files below ``directories`` of the repository."""
    roots = [ROOT / name for name in directories]
    return [path for path in tracked_files() if path.suffix == ".py" and any(root in path.parents for root in roots)]


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of ``path``."""
    return ast.parse(path.read_bytes(), str(path))


def module_of(path: Path) -> str:
    """Return the dotted name of a file below src."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything that ``path`` imports, also inside functions."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
