"""Podman's system tests (bats): each calls podman, which calls the runtime."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from conformance import podman_image
from conformance.expectations import Result
from conformance.podman_configuration import FILE_NAME, write_configuration
from conformance.private_host import BUILD, ONLY_CGROUP_VERSION_2, PROGRAM, has_cgroup_version_1, private_host
from conformance.source_packages import fetch_source
from conformance.tap import FAILED, SKIPPED, Point, TapError, parse
from kata_runtime.guest.image.packages import run_program

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from conformance.private_host import PrivateHost
    from conformance.variant import Variant

SUITE = "podman"
PACKAGE = "libpod"
_TEST_SECONDS = 300
_COMMAND_SECONDS = 120
_DELAYED = Path(__file__).with_name("delayed_runtime.sh")
_TEST_LINE = re.compile(r'^@test "(.*)" \{$', re.MULTILINE)
# Podman's tests expect a host with a journal, and with users for --userns=auto.
# The image is imported into each namespace: it is small, and no test sees what another did to the store.
_BEGIN = """\
for kind in subuid subgid; do
    {{ cat /etc/$kind; echo containers:1000000:1000000; }} >"$TMPDIR/$kind"
    mount --bind "$TMPDIR/$kind" /etc/$kind
done
{python} {journal}
$PODMAN import --quiet {changes} {archive} {image} >/dev/null
exec bats --tap --filter "$FILTER" "$1"
"""


def run_podman_suite(wanted: Collection[str], left_out: Collection[str], variant: Variant) -> Iterator[Result]:
    """The results of Podman's tests, all or those in ``wanted``: ``075-exec.bats`` or ``075-exec.bats: NAME``.

    :raise HostError: the sources or the image's packages cannot be fetched.
    """
    source = fetch_source(PACKAGE, BUILD / "sources")
    with private_host(SUITE) as host:
        begin = _prepare(host, variant)
        for path in sorted((source / "test/system").glob("*.bats")):
            existing = _names(path)
            names = [
                name
                for name in existing
                if _is_wanted(path.name, name, wanted) and f"{path.name}: {name}" not in left_out
            ]
            if path.name in left_out or not names:
                continue
            points = _run(host, path, begin, names if names != existing else [], len(names))
            if has_cgroup_version_1():
                points = _with_version_2(host, path, begin, points)
            for point in points:
                yield Result(SUITE, path.name, point.name, point.outcome, point.detail)


def files() -> list[str]:
    """The files of tests that there are. :raise HostError: the sources cannot be fetched."""
    return sorted(path.name for path in (fetch_source(PACKAGE, BUILD / "sources") / "test/system").glob("*.bats"))


def _is_wanted(file: str, name: str, wanted: Collection[str]) -> bool:
    return not wanted or file in wanted or f"{file}: {name}" in wanted


def _names(path: Path) -> list[str]:
    """The tests in a file, as TAP has them: bats removes backslashes, and blanks at the ends."""
    return [name.replace("\\", "").strip() for name in _TEST_LINE.findall(path.read_text())]


def _prepare(host: PrivateHost, variant: Variant) -> str:
    """Make what the tests need in the host's directory, and give the script that begins a file of tests."""
    root = host.directory / "image"
    podman_image.build_root(root)
    archive = host.directory / "image.tar"
    run_program(["tar", "--create", "--numeric-owner", "--file", str(archive), "--directory", str(root), "."])
    delayed = ["sh", str(_DELAYED), str(variant.delay)] if variant.delay else []
    if variant.runtime:
        # Podman asks for more processes than this host may allow.
        processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        limits = ("nofile=1024:1024", f"nproc={processes}:{processes}")
        command = [*delayed, variant.runtime, "--root", str(host.root)]
        write_configuration(host.directory, command, limits=limits)
    else:
        command = [*delayed, str(PROGRAM), "--root", str(host.root), "--kata-config", str(host.config)]
        write_configuration(host.directory, command)
    changes = " ".join(f"--change '{change}'" for change in podman_image.CHANGES)
    journal = Path(__file__).with_name("private_journal.py")
    return _BEGIN.format(
        python=sys.executable, journal=journal, changes=changes, archive=archive, image=podman_image.FULL_NAME
    )


def _with_version_2(host: PrivateHost, path: Path, begin: str, points: list[Point]) -> list[Point]:
    """Run what was skipped again, where it finds cgroups of version 2 alone: that may have been the reason."""
    names = [point.name for point in points if point.outcome == SKIPPED]
    if not names:
        return points
    again = {point.name: point for point in _run(host, path, begin, names, len(names), ONLY_CGROUP_VERSION_2)}
    return [again.get(point.name, point) for point in points]


def _run(host: PrivateHost, path: Path, begin: str, names: Collection[str], count: int, first: str = "") -> list[Point]:
    """The results of ``count`` tests of a file: those of ``names``, or all without it. ``first`` is done before."""
    ran = host.run(
        ["sh", "-euc", begin, "sh", str(path)],
        seconds=_TEST_SECONDS * count,
        directory=path.parent,
        begin=first,
        environment={
            # Some tests have a containers.conf of their own: the runtime must not depend on it.
            "PODMAN": f"podman --runtime {host.directory}/kata --cgroup-manager cgroupfs",
            "CONTAINERS_CONF": str(host.directory / FILE_NAME),
            "PODMAN_TEST_IMAGE_REGISTRY": podman_image.REGISTRY,
            "PODMAN_TEST_IMAGE_USER": podman_image.USER,
            "PODMAN_TEST_IMAGE_NAME": podman_image.NAME,
            "PODMAN_TEST_IMAGE_TAG": podman_image.TAG,
            "PODMAN_TIMEOUT": str(_COMMAND_SECONDS),
            "BATS_TMPDIR": str(host.directory),
            "FILTER": f"^({'|'.join(map(re.escape, names))}) *$" if names else "",
        },
    )
    try:
        return parse(ran.output.splitlines())
    except TapError as error:
        return [Point("(all)", FAILED, f"{error}\n{ran.output[-2000:]}\n{ran.errors[-2000:]}")]
