"""More memory for a guest than the host can give."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.system.conftest import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_too_much_memory(runtime: Runtime, unique: Callable[[str], str], tmp_path: Path) -> None:
    """A start with too much default_memory is reported in one line, and nothing of it is left."""
    config = tmp_path / "configuration.toml"
    config.write_text(runtime.config.read_text().replace("default_memory = 384", "default_memory = 4000000"))
    name = unique("large")
    done = Runtime(runtime.root, config).cli("run", "--detach", name)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert done.stderr.startswith("kata-runtime: "), done
    assert "internal error" not in done.stderr, done
    assert name not in os.listdir(runtime.root)
    assert Runtime(runtime.root, config).cli("list", "--quiet").stderr == ""
