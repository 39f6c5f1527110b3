"""crun's own tests: each makes a bundle, and checks what the runtime does with it."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.expectations import Result
from conformance.private_host import BUILD, PROGRAM, private_host
from conformance.source_packages import fetch_source
from conformance.tap import FAILED, Point, TapError, parse
from kata_runtime.guest.image.packages import run_program

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from conformance.private_host import PrivateHost
    from conformance.variant import Variant

SUITE = "crun"
PACKAGE = "crun"
# Debian's own, for which there is python3-libmount.
_PYTHON = "/usr/bin/python3"
_SECONDS = 120.0
_ERROR_LINES = 12
_NEED_TERMINAL = ("test_tty.py",)
_ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).with_name("stand_ins")), "PYTHONDONTWRITEBYTECODE": "1"}
# Where crun's tests look for cgroups is where the guest has them when /sys/fs/cgroup is of version 2, whatever the host
# has otherwise; and one of them expects a pid of five digits.
_BEGIN = """\
mount -t cgroup2 cgroup /sys/fs/cgroup
echo 20000 >/proc/sys/kernel/ns_last_pid
"""
_LIST = "import sys; module = __import__(sys.argv[1]); print(*module.all_tests, sep='\\n')"


def run_crun_suite(wanted: Collection[str], left_out: Collection[str], variant: Variant) -> Iterator[Result]:
    """The results of crun's tests, all or those in ``wanted``: ``test_exec.py`` or ``test_exec.py: exec``.

    ``variant.delay`` is not used: these tests call the runtime themselves, and wait for what they start.

    :raise HostError: the sources cannot be fetched or compiled.
    """
    source = fetch_source(PACKAGE, BUILD / "sources")
    init = _build_init(source)
    with private_host(SUITE) as host:
        front = variant.runtime or str(_write_front(host))
        for path in sorted((source / "tests").glob("test_*.py")):
            if path.name in left_out:
                continue
            for name in _names(path):
                if wanted and not {path.name, f"{path.name}: {name}"} & set(wanted):
                    continue
                point = _run(host, path, name, {"OCI_RUNTIME": front, "INIT": str(init)})
                yield Result(SUITE, path.name, name, point.outcome, point.detail)


def files() -> list[str]:
    """The files of tests that there are. :raise HostError: the sources cannot be fetched."""
    return sorted(path.name for path in (fetch_source(PACKAGE, BUILD / "sources") / "tests").glob("test_*.py"))


def _build_init(source: Path) -> Path:
    """The program in the tests' containers, which its source says is to be static."""
    made = BUILD / "init"
    if not made.exists():
        (BUILD / "include").mkdir(exist_ok=True)
        # What configure would find out on a Linux host with glibc and libseccomp.
        (BUILD / "include/config.h").write_text(
            "#define HAVE_ERROR_H 1\n#define HAVE_SECCOMP 1\n#define _GNU_SOURCE 1\n"
        )
        run_program(
            ["gcc", "-static", "-O1", "-w", f"-I{BUILD}/include", "-o", str(made), str(source / "tests/init.c")],
            hint="packages-conformance.txt names what is needed",
        )
    return made


def _write_front(host: PrivateHost) -> Path:
    """The program that the tests take for crun."""
    front = host.directory / "crun"
    script = Path(__file__).with_name("crun_options.py")
    front.write_text(f'#!/bin/sh\nexec {_PYTHON} -IS {script} {PROGRAM} {host.root} {host.config} "$@"\n')
    front.chmod(0o755)
    return front


def _names(path: Path) -> list[str]:
    done = subprocess.run(
        [_PYTHON, "-c", _LIST, path.stem],
        cwd=path.parent, env={**os.environ, **_ENVIRONMENT}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def _run(host: PrivateHost, path: Path, name: str, environment: dict[str, str]) -> Point:
    argv = [_PYTHON, str(path)]
    if path.name in _NEED_TERMINAL:
        argv = ["script", "--quiet", "--return", "--command", shlex.join(argv), "/dev/null"]
    ran = host.run(
        argv,
        seconds=_SECONDS,
        directory=_workplace(host),
        environment={**environment, **_ENVIRONMENT, "RUN_TESTS": name},
        begin=_BEGIN,
    )
    _forget(host.root)
    if ran.status is None:
        return Point(name, FAILED, f"took more than {_SECONDS:.0f} s")
    try:
        (point,) = parse(ran.output.splitlines())
    except (TapError, ValueError) as error:
        return Point(name, FAILED, f"{error}\n{_tail(ran.errors)}")
    return point._replace(detail=_tail(ran.errors)) if point.outcome == FAILED else point


def _workplace(host: PrivateHost) -> Path:
    """A new working directory for a test, which may leave something there, and looks for its program in it."""
    directory = Path(tempfile.mkdtemp(prefix="work-", dir=host.directory))
    (directory / "tests").mkdir()
    (directory / "tests/init").symlink_to(BUILD / "init")
    return directory


def _tail(errors: str) -> str:
    lines = [line for line in errors.splitlines() if line.strip()]
    return "\n".join(lines[-_ERROR_LINES:])


def _forget(root: Path) -> None:
    """Take away the records of containers that a test has left: their processes went with its namespace."""
    for name in os.listdir(root):
        subprocess.run([PROGRAM, "--root", root, "delete", "--force", name], capture_output=True, check=False)
