"""The manual pages, as they are made of the table of commands."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from scripts.manual_pages import pages

from kata_runtime.cli.command_table import COMMANDS, GLOBAL_OPTIONS

if TYPE_CHECKING:
    from pathlib import Path


def test_pages_are_rendered_without_a_warning(tmp_path: Path) -> None:
    """mandoc and groff have nothing to say of any page, and every command and option is on its page."""
    made = pages()
    for name, text in made.items():
        (tmp_path / name).write_text(text)
    paths = [str(tmp_path / name) for name in made]
    lint = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *paths], capture_output=True, text=True, check=False
    )
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, "", "")
    shown = {}
    for path in paths:
        argv = ["groff", "-ww", "-mandoc", "-Tascii", "-P-cbou", path]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), path
        shown[path.rpartition("/")[2]] = done.stdout
    for command in COMMANDS:
        page = shown[f"kata-runtime-{command.words[0]}.1"]
        missing = [word for word in (*command.words, *(option.name for option in command.options)) if word not in page]
        assert missing == [], command.name
    assert [option.name for option in GLOBAL_OPTIONS if option.name not in shown["kata-runtime.1"]] == []
