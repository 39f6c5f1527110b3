"""The Debian package in a clean system of each supported release: installed, used, purged."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.package.clean_system import CleanSystem, bootstrap
from tests.quality.trees import ROOT, tracked_files

from kata_runtime import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGE = ROOT / "build" / f"kata-runtime_{__version__}_amd64.deb"
_INSTALL = ["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends"]
_DEPENDENCIES = ["python3", "qemu-system-x86", "zstd"]
_PURGE = ["apt-get", "purge", "--yes", "--quiet=2", "kata-runtime"]


@pytest.fixture(scope="module", params=["12", "13"])
def clean_system(request: pytest.FixtureRequest) -> Iterator[CleanSystem]:
    """A minimal system with what the package depends on, and the package in /tmp; QEMU's user can read it, too."""
    release = str(request.param)
    directory = Path(tempfile.mkdtemp(prefix=f"kata-debian-{release}-"))
    try:
        directory.chmod(0o755)
        made = bootstrap(directory / "root", ROOT / "build" / f"apt-debian-{release}", release)
        made.run(*_INSTALL, *_DEPENDENCIES)
        shutil.copy(_PACKAGE, made.root / "tmp")
        yield made
        for program in ("kata-runtime", "/srv/kata-runtime/.venv/bin/kata-runtime"):
            made.attempt(program, "delete", "--force", "packaged")
    finally:
        shutil.rmtree(directory)


def test_life_of_the_package(clean_system: CleanSystem) -> None:
    """It installs with its image, runs a sandbox, is not removed under it, and leaves nothing when it is purged."""
    before = clean_system.files()
    clean_system.run(*_INSTALL, f"/tmp/{_PACKAGE.name}")
    assert clean_system.run("kata-runtime", "--version").stdout == f"kata-runtime {__version__}\n"
    checked = clean_system.run("kata-runtime", "kata-check")
    assert "image" in checked.stdout + checked.stderr
    compiled = clean_system.root / "usr/lib/kata-runtime/kata_runtime/cli/__pycache__"
    assert {path.name.partition(".")[0] for path in compiled.iterdir()} >= {"main", "command_table"}
    assert clean_system.run("kata-runtime", "run", "--detach", "packaged").stdout == "packaged\n"
    assert clean_system.run("kata-runtime", "kata-network", "list-ifaces", "packaged").stdout == "null\n"
    assert clean_system.run("kata-runtime", "exec", "packaged", "uname", "-s").stdout == "Linux\n"
    refused = clean_system.attempt(*_PURGE)
    assert refused.returncode != 0
    # apt gives dpkg a terminal, of which it shows everything as its own output.
    assert "containers are left, which nothing could end afterwards; delete them first: packaged" in refused.stdout
    clean_system.run("kata-runtime", "delete", "--force", "packaged")
    assert clean_system.run("kata-runtime", "list", "--quiet").stdout == ""
    clean_system.run(*_PURGE)
    assert clean_system.files() - before == set()


@pytest.mark.parametrize("clean_system", ["13"], indirect=True)
def test_clone(clean_system: CleanSystem) -> None:
    """On Debian 13, where no other test uses a clone, `make setup` installs what it needs, and a sandbox runs."""
    clone = clean_system.root / "srv/kata-runtime"
    for path in tracked_files():
        copy = clone / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    # A package index may need certificates that are only on this host.
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", clean_system.root / "tmp")
    clean_system.run(*_INSTALL, "make")
    clean_system.run("env", "PIP_CERT=/tmp/ca-certificates.crt", "make", "-C", "/srv/kata-runtime", "setup")
    program = "/srv/kata-runtime/.venv/bin/kata-runtime"
    assert clean_system.run(program, "run", "--detach", "packaged").stdout == "packaged\n"
    assert clean_system.run(program, "kata-network", "list-ifaces", "packaged").stdout == "null\n"
    assert clean_system.run(program, "exec", "packaged", "uname", "-s").stdout == "Linux\n"
    clean_system.run(program, "delete", "--force", "packaged")
    assert clean_system.run(program, "list", "--quiet").stdout == ""
    # The next test installs the package where there is no image.
    clean_system.run("rm", "-r", "/var/lib/kata-runtime")


def test_host_without_archive(clean_system: CleanSystem) -> None:
    """Without apt's lists no image can be built: the package is installed all the same, and says what to do."""
    clean_system.run("sh", "-c", "rm -r /etc/apt/sources.list* /var/lib/apt/lists/*")
    done = clean_system.run("dpkg", "--install", f"/tmp/{_PACKAGE.name}")
    advice = "kata-runtime: there is no guest image of this version yet; 'kata-runtime image build' makes it"
    assert done.stderr.splitlines()[-1] == advice
    shown = clean_system.run("dpkg-query", "--show", "--showformat=${db:Status-Status}", "kata-runtime")
    assert shown.stdout == "installed"


def test_wheel_in_a_fresh_environment(tmp_path: Path) -> None:
    """The wheel, which was made of the source distribution, runs in an environment that has nothing else."""
    (wheel,) = (ROOT / "build/dist").glob(f"kata_runtime-{__version__}-*.whl")
    assert (ROOT / f"build/dist/kata_runtime-{__version__}.tar.gz").is_file()
    subprocess.run(["python3", "-m", "venv", str(tmp_path / "venv")], check=True)
    install = [str(tmp_path / "venv/bin/pip"), "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    subprocess.run(install, check=True)
    for words, stdout in {
        ("--version",): f"kata-runtime {__version__}\n",
        ("--root", str(tmp_path / "root"), "list", "--quiet"): "",
    }.items():
        argv = [str(tmp_path / "venv/bin/kata-runtime"), *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, stdout, "")
