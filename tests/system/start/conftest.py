"""The program with a QEMU that is a small script: the tests look at what runs, what is stored and what is printed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kata_runtime.guest import wire
from kata_runtime.sandbox.cgroup import group_directories
from kata_runtime.sandbox.identity import user_of
from kata_runtime.sandbox.process import processes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 60
# Runs the program with KVM that opens, a cache of its own and little time to prove KVM, after the code given.
_DRIVER = """
import sys
from pathlib import Path
cache, code = Path(sys.argv.pop(1)), sys.argv.pop(1)
from kata_runtime.sandbox import lifecycle
from kata_runtime.vmm import accelerator
accelerator.kvm_obstacle = lambda: None
for function in (accelerator.choose, accelerator.remember, accelerator.remembered, accelerator.forget):
    function.__kwdefaults__["cache"] = cache
lifecycle.PROOF_SECONDS = 0.5
lifecycle.BOOT_SECONDS = 5.0
exec(code)
from kata_runtime.cli.main import main
sys.exit(main())
"""
Outcome = tuple[int, str, str]


class Fake:
    """A root directory, a cache, and commands with the fake QEMU."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "root"
        self.cache = directory / "cache"
        self._qemu = directory / "qemu"
        script = Path(__file__).with_name("fake_qemu.py").read_text()
        self._qemu.write_text(f"#!{os.path.realpath(sys.executable)} -IS\n{script}")
        self._qemu.chmod(0o755)
        package = directory / "kata_runtime/guest"
        package.mkdir(parents=True)
        shutil.copy(Path(wire.__file__), package / "wire.py")
        (package / "wire.py").chmod(0o644)
        (directory / "image").touch()

    def argv(self, *words: str, mode: str = "up", accelerator: str = "tcg", code: str = "") -> list[str]:
        """The command line of a command that starts QEMUs of this behaviour."""
        config = self.directory / f"{mode}.{accelerator}.toml"
        config.write_text(
            f'[hypervisor.qemu]\npath = "{self._qemu}"\nkernel = "{self.directory}/image"\n'
            f'initrd = "{self.directory}/image"\naccelerator = "{accelerator}"\nkernel_params = "fake={mode}"\n'
            'template = "off"\n'
        )
        driver = [sys.executable, "-c", _DRIVER, str(self.cache), code]
        return [*driver, "--root", str(self.root), "--kata-config", str(config), *words]

    def cli(self, *words: str, mode: str = "up", accelerator: str = "tcg", code: str = "") -> Outcome:
        """Run one command."""
        argv = self.argv(*words, mode=mode, accelerator=accelerator, code=code)
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL
        )
        return done.returncode, done.stdout, done.stderr

    def run(self, name: str, mode: str = "up", accelerator: str = "tcg") -> Outcome:
        """Run ``run``."""
        return self.cli("run", "--detach", name, mode=mode, accelerator=accelerator)

    def pid(self, name: str) -> int:
        """The pid on record."""
        number = json.loads((self.root / name / "record.json").read_text())["pid"]
        assert isinstance(number, int)
        return number

    def processes(self, name: str) -> list[int]:
        """What runs of a sandbox."""
        found = processes_of(user_of(str(self.root / name)), f"guest={name}".encode())
        return [pid for pid, _ in found]

    def cgroups(self, name: str) -> list[str]:
        """The control groups there are of a sandbox."""
        user = user_of(str(self.root / name))
        return [place for place in group_directories(f"kata-runtime-{name}-{user:x}") if os.path.exists(place)]

    def left(self, name: str) -> tuple[list[str], list[int], list[str]]:
        """All that there is of a sandbox: directories of the root, processes, control groups."""
        there = sorted(entry.name for entry in self.root.iterdir()) if self.root.exists() else []
        return there, self.processes(name), self.cgroups(name)


NOTHING: tuple[list[str], list[int], list[str]] = ([], [], [])


@contextmanager
def _fresh() -> Iterator[Fake]:
    """Everything fresh; whatever a test leaves is removed and fails it."""
    directory = Path(tempfile.mkdtemp(prefix="kf"))
    directory.chmod(0o755)
    made = Fake(directory)
    try:
        yield made
        left = sorted(entry.name for entry in made.root.iterdir()) if made.root.exists() else []
        for name in left:
            made.cli("delete", "--force", name)
        assert left == []
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def fake() -> Iterator[Fake]:
    """The program with a fake QEMU, in a directory of the test's own."""
    with _fresh() as made:
        yield made


@pytest.fixture
def other_fake() -> Iterator[Fake]:
    """Another one, to be used at the same time."""
    with _fresh() as made:
        yield made
