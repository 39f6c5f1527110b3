"""What counts against KVM: its own failures, and boots that TCG then manages with the same configuration."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.start.conftest import Fake

_FAILS = (
    "kata-runtime: KVM does not work on this host, sandboxes run slower without it; 'kata-check --renew' forgets that\n"
)
_TRIED = "kata-runtime: the guest did not boot with KVM, trying without: "


def _verdicts(fake: Fake) -> list[str]:
    return [path.read_text() for path in fake.cache.iterdir()] if fake.cache.exists() else []


@pytest.mark.parametrize(
    ("mode", "told", "verdict"),
    [
        ("up", "", ["works\n"]),
        (
            "kvm",
            f"{_TRIED}QEMU ended before the guest was up: qemu: failed to initialize kvm: Input/output error\n{_FAILS}",
            ["fails\n"],
        ),
        ("slow", f"{_TRIED}the guest's agent did not answer within 0.5 s of boot\n{_FAILS}", ["fails\n"]),
        (
            "only",
            f"{_TRIED}QEMU ended before the guest was up: Kernel panic - not syncing: No working init found.\n{_FAILS}",
            ["fails\n"],
        ),
    ],
)
def test_verdict_of_a_boot(mode: str, told: str, verdict: list[str], fake: Fake) -> None:
    """A sandbox starts either way; the verdict is stored once and taken by the next start."""
    assert fake.run("one", mode, "auto") == (0, "one\n", told)
    assert _verdicts(fake) == verdict
    assert fake.run("two", mode, "auto") == (0, "two\n", "")
    for name in ("one", "two"):
        assert fake.cli("delete", "--force", name) == (0, "", "")


@pytest.mark.parametrize("mode", ["panic", "error", "old"])
def test_other_failures_say_nothing_of_kvm(mode: str, fake: Fake) -> None:
    """Wrong kernel parameters, a QEMU that refuses or an old image fail with both, and no verdict is stored."""
    status, out, _ = fake.run("web", mode, "auto")
    assert (status, out, _verdicts(fake)) == (1, "", [])


def test_busy_host_says_nothing_of_kvm(fake: Fake) -> None:
    """When TCG needs longer than KVM was given, the time that KVM was given proves nothing."""
    code = "lifecycle.PROOF_SECONDS = 0.001"
    told = f"{_TRIED}the guest's agent did not answer within 0.001 s of boot\n"
    assert fake.cli("run", "-d", "web", mode="up", accelerator="auto", code=code) == (0, "web\n", told)
    assert (_verdicts(fake), fake.cli("delete", "-f", "web")) == ([], (0, "", ""))


def test_kvm_that_stops_working(fake: Fake) -> None:
    """A verdict for KVM that a later start disproves is replaced."""
    assert fake.run("web", "kvm", "auto")[0] == 0
    (file,) = fake.cache.iterdir()
    file.write_text("works\n")
    assert fake.cli("delete", "-f", "web") == (0, "", "")
    assert fake.run("web", "kvm", "auto")[0] == 0
    assert (_verdicts(fake), fake.cli("delete", "-f", "web")) == (["fails\n"], (0, "", ""))


def test_renewal(fake: Fake) -> None:
    """kata-check prints the verdict and its age; with --renew it is deleted, and reported as unknown."""
    assert fake.run("web", "kvm", "auto")[0] == 0
    assert fake.cli("delete", "-f", "web") == (0, "", "")
    shown = fake.cli("kata-check", mode="kvm", accelerator="auto")[1]
    assert re.search(r"/dev/kvm opens, but a sandbox did not boot with it \d+ seconds ago\n", shown), shown
    renewed = fake.cli("kata-check", "--renew", mode="kvm", accelerator="auto")[1]
    assert "/dev/kvm opens; the first sandbox proves it by booting\n" in renewed
    assert _verdicts(fake) == []
