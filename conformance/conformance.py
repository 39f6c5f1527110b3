"""Runs crun's tests and Podman's against this runtime, compares with expected.toml, and writes docs/conformance.md.

``--suite`` and ``--tests`` narrow it down. The results of what was not run are those of earlier runs, which are kept in
build/conformance; the document is written when all are known. ``--runtime`` runs the same with another runtime, such as
runc, which shows whether a failure is this one's. ``--delay`` shows which tests fail only because start and exec return
before the program in the container has got on: those that expected.toml says this of must then pass.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lab.ending_signals import exit_on_signals

from conformance import crun_suite, podman_suite
from conformance.expectations import differences, load_expectations, with_delay
from conformance.private_host import BUILD, REPOSITORY
from conformance.report import document, load_results, merged, store_results
from conformance.source_packages import version_of
from conformance.variant import Variant
from kata_runtime.errors import KataError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from conformance.expectations import Expectations, Result

_EXPECTED = Path(__file__).with_name("expected.toml")
_DOCUMENT = REPOSITORY / "docs/conformance.md"
# Between tests: names of tests contain commas, too.
_COMMA = re.compile(r",\s*(?=[\w.-]+\.(?:py|bats)(?:[:,]|$))")
_STORED = BUILD / "results.json"


class Suite(NamedTuple):
    """A suite: how its tests are run, in what files they are, and what Debian's source package of them is."""

    run: Callable[[Collection[str], Collection[str], Variant], Iterator[Result]]
    files: Callable[[], list[str]]
    package: str


SUITES = {
    crun_suite.SUITE: Suite(crun_suite.run_crun_suite, crun_suite.files, crun_suite.PACKAGE),
    podman_suite.SUITE: Suite(podman_suite.run_podman_suite, podman_suite.files, podman_suite.PACKAGE),
}


def main(argv: Sequence[str]) -> int:
    """Return the exit status: 1 when a test came out otherwise than expected, or could not be run."""
    exit_on_signals()
    parser = argparse.ArgumentParser(prog="make conformance")
    parser.add_argument("--suite", choices=SUITES, action="append")
    parser.add_argument("--tests", default="", help="files, or FILE: NAME, separated by commas")
    parser.add_argument(
        "--runtime", default="", help="another runtime's program, to compare with: its results are shown and not kept"
    )
    parser.add_argument(
        "--delay", type=int, default=0, help="seconds by which start and exec return later: results are not kept"
    )
    options = parser.parse_args(argv)
    variant = Variant(options.runtime, options.delay)
    wanted = [name.strip() for name in _COMMA.split(options.tests) if name.strip()]
    suites = options.suite or list(SUITES)
    expected = load_expectations(_EXPECTED)
    if variant.delay:
        expected = with_delay(expected)
    results: list[Result] = []
    try:
        for suite in suites:
            for result in SUITES[suite].run(wanted, expected.left_out.get(suite, {}), variant):
                print(f"{result.outcome:8}{suite}: {result.test}", flush=True)
                results.append(result)
    except KataError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 1
    found = differences(results, expected, complete=[] if wanted else suites)
    print(*found, sep="\n")
    if variant != Variant():
        return 1 if found else 0
    stored = [result for result in load_results(_STORED) if wanted or result.suite not in suites]
    known = merged(stored, results)
    store_results(_STORED, known)
    if not found:
        _write(known, expected)
    return 1 if found else 0


def _write(results: Sequence[Result], expected: Expectations) -> None:
    """Write the document if there are results of each file, all of them as expected."""
    found = differences(results, expected, complete=SUITES)
    if found:
        print(f"{_DOCUMENT.name} is not written: {len(found)} earlier results are not as expected")
        return
    versions = {}
    for name, suite in SUITES.items():
        known = {result.file for result in results if result.suite == name}
        missing = {file for file in suite.files() if file not in expected.left_out.get(name, {})} - known
        if missing:
            print(f"{_DOCUMENT.name} is not written: there are no results of {len(missing)} files of {name}")
            return
        versions[name] = version_of(BUILD / "sources" / suite.package)
    _DOCUMENT.write_text(document(results, expected, versions))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
