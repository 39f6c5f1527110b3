"""Results of this run and of earlier ones, and the document that is made of them."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from conformance.expectations import Result
from conformance.tap import FAILED, OK, SKIPPED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from conformance.expectations import Expectation, Expectations

_TITLES = {"crun": "crun's own tests", "podman": "Podman's system tests"}
_TEXT = """# Conformance

`make conformance` writes this file. It fetches the sources of crun and Podman that Debian has, and runs their tests
against this runtime, each of crun's and each file of Podman's in network, mount and pid namespaces and cgroups that end
with it. A test that ends otherwise than listed here (`conformance/expected.toml`) fails the command.
`make conformance SUITE=crun TESTS=test_exec.py` runs a part; what is not run keeps its results.

{table}
crun's tests call the runtime as they would call crun. Options that only crun has are translated
(`conformance/crun_options.py`), and a container without a network namespace, which would have the host's, gets one.
Podman's tests run with an image made of Debian's busybox, with a journal of their own, and with
`privileged_without_host_devices = true`. On a host with cgroups of version 1 those that are skipped run again where
they find version 2 alone, which has no controllers there. Where a test fails "so with every runtime",
`make conformance SUITE=podman TESTS=FILE RUNTIME=/usr/sbin/runc` shows that. Where it "passes with DELAY=2",
`make conformance SUITE=podman TESTS=FILE DELAY=2` shows that: `start` and `exec` of the runtime then return two seconds
later, when the program in the container has got on, and each of these tests must pass.

{suites}"""


def merged(stored: Iterable[Result], new: Iterable[Result]) -> list[Result]:
    """All results, the new ones in place of those that are known of the same tests."""
    found = {(result.suite, result.test): result for result in stored}
    found |= {(result.suite, result.test): result for result in new}
    return sorted(found.values(), key=lambda result: (result.suite, result.file))


def load_results(path: Path) -> list[Result]:
    """What ``store_results`` stored; nothing when there is none."""
    return [Result(*entry) for entry in json.loads(path.read_text())] if path.exists() else []


def store_results(path: Path, results: Iterable[Result]) -> None:
    """Keep results for another run."""
    path.write_text(json.dumps(list(results), indent=1))


def document(results: Sequence[Result], expected: Expectations, versions: Mapping[str, str]) -> str:
    """docs/conformance.md."""
    suites = [name for name in _TITLES if name in versions]
    lines = ["| suite | version | ok | skipped | failed |", "| --- | --- | --- | --- | --- |"]
    for suite in suites:
        counts = Counter(result.outcome for result in results if result.suite == suite)
        numbers = " | ".join(str(counts[outcome]) for outcome in (OK, SKIPPED, FAILED))
        lines.append(f"| {_TITLES[suite]} | {versions[suite]} | {numbers} |")
    parts = [_suite(suite, [result for result in results if result.suite == suite], expected) for suite in suites]
    return _TEXT.format(table="\n".join(lines) + "\n", suites="\n".join(parts))


def _suite(suite: str, results: Sequence[Result], expected: Expectations) -> str:
    lines = [f"## {_TITLES[suite]}", ""]
    files = Counter(result.file for result in results if result.outcome == OK)
    lines += ["Ok: " + ", ".join(f"{file} {count}" for file, count in sorted(files.items())) + ".", ""]
    for outcome in (FAILED, SKIPPED):
        by_reason: dict[str, list[str]] = {}
        for result in results:
            if result.outcome == outcome and (suite, result.test) in expected.tests:
                by_reason.setdefault(_reason(expected.tests[suite, result.test]), []).append(result.test)
        lines += [f"### {outcome.capitalize()}", ""]
        for reason, tests in by_reason.items():
            lines += [f"{reason}:", "", *(f"- {test}" for test in tests), ""]
        if not by_reason:
            lines += ["None.", ""]
    by_reason = {}
    for file, reason in expected.left_out.get(suite, {}).items():
        by_reason.setdefault(reason, []).append(file)
    if by_reason:
        lines += ["### Left out", ""]
        lines += [f"- {', '.join(files)}: {reason}" for reason, files in by_reason.items()]
        lines.append("")
    return "\n".join(lines)


def _reason(expectation: Expectation) -> str:
    return expectation.reason + (" (passes with DELAY=2)" if expectation.passes_with_delay else "")
