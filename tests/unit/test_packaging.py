"""What the packages hold and what the documents say of them agrees with the code."""

from __future__ import annotations

import re
import subprocess
import tomllib
from typing import TYPE_CHECKING

from scripts import debian_package
from scripts.changelog import released
from tests.quality.trees import ROOT

from kata_runtime import __version__
from kata_runtime.sandbox.config import Config, load_config

if TYPE_CHECKING:
    from pathlib import Path


def test_configuration_file_shows_the_defaults(tmp_path: Path) -> None:
    """Every key is in the package's file, which changes nothing, and what stands behind its # is the default."""
    text = (ROOT / "packaging/configuration.toml").read_text()
    shown = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    values = {**shown["hypervisor"]["qemu"], **shown["network"], **shown["runtime"]}
    assert values == Config()._asdict()
    installed = tmp_path / "configuration.toml"
    installed.write_text(text)
    warnings: list[str] = []
    assert load_config(str(installed), warnings.append) == Config()
    assert warnings == []


def test_changelog_has_this_version() -> None:
    """The version of the code has a day in CHANGELOG.md, and no other file names it."""
    assert released(__version__).year >= 2026
    named = subprocess.run(
        ["git", "grep", "--name-only", "--fixed-strings", f'"{__version__}"'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert named == ["src/kata_runtime/__init__.py"]


def test_package_is_reproducible(tmp_path: Path) -> None:
    """The package is the same bytes twice; it holds the program, the library, completions, pages and configuration."""
    first, second = (debian_package.build(tmp_path / name) for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert list((tmp_path / "first").iterdir()) == [first]
    listed = subprocess.run(["dpkg-deb", "--contents", str(first)], capture_output=True, text=True, check=True).stdout
    found = {line.split()[5].removeprefix("./") for line in listed.splitlines() if not line.startswith("d")}
    assert found == set(debian_package.contents())
    assert {
        "etc/kata-runtime/configuration.toml",
        "usr/bin/kata-runtime",
        "usr/lib/kata-runtime/kata_runtime/guest/agent/main.py",
        "usr/share/bash-completion/completions/kata-runtime",
        "usr/share/fish/vendor_completions.d/kata-runtime.fish",
        "usr/share/man/man1/kata-runtime.1.gz",
        "usr/share/zsh/vendor-completions/_kata-runtime",
    } <= found
    conffiles = subprocess.run(
        ["dpkg-deb", "--info", str(first), "conffiles"], capture_output=True, text=True, check=True
    )
    assert conffiles.stdout == "/etc/kata-runtime/configuration.toml\n"
