"""KVM or TCG: what was proved once is remembered for this machine, for a while."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from kata_runtime.errors import HostError
from kata_runtime.vmm import accelerator
from kata_runtime.vmm.accelerator import (
    FAILED_SECONDS,
    Accelerator,
    Machine,
    choose,
    forget,
    is_kvm_failure,
    is_shortage,
    remember,
    remembered,
)

if TYPE_CHECKING:
    from pathlib import Path

_MACHINE = Machine("/nonexistent/qemu", "image 1", "q35 host 1 512")


@pytest.fixture(autouse=True)
def _kvm_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "kvm_obstacle", lambda: None)


def _works(machine: Machine, cache: Path) -> bool | None:
    verdict = remembered(machine, cache=cache)
    return None if verdict is None else verdict.works


@pytest.mark.parametrize("chosen", list(Accelerator))
def test_a_verdict_is_remembered(chosen: Accelerator, tmp_path: Path) -> None:
    """Without a verdict a boot has to decide; with one it is taken, also by kata-check."""
    works = chosen is Accelerator.KVM
    cache = tmp_path / "made" / "cache"
    assert (choose("auto", _MACHINE, cache=cache), _works(_MACHINE, cache)) == (None, None)
    remember(_MACHINE, works=works, cache=cache)
    assert (choose("auto", _MACHINE, cache=cache), _works(_MACHINE, cache)) == (chosen, works)
    assert [entry.read_text() for entry in cache.iterdir()] == ["works\n" if works else "fails\n"]


@pytest.mark.parametrize("field", Machine._fields)
def test_another_machine_is_another_question(field: str, tmp_path: Path) -> None:
    """A verdict holds for its own QEMU, image and configuration only."""
    remember(_MACHINE, works=False, cache=tmp_path)
    assert choose("auto", _MACHINE._replace(**{field: "other"}), cache=tmp_path) is None


@pytest.mark.parametrize(
    ("works", "age", "chosen"),
    [
        (False, FAILED_SECONDS - 60, Accelerator.TCG),
        (False, FAILED_SECONDS + 60, None),
        (False, -3600.0, None),
        (True, 10 * FAILED_SECONDS, Accelerator.KVM),
    ],
)
def test_a_verdict_against_kvm_ages(works: bool, age: float, chosen: Accelerator | None, tmp_path: Path) -> None:
    """After a week, or when the clock was set back, KVM gets another chance; a boot that worked needs none."""
    remember(_MACHINE, works=works, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    then = time.time() - age
    os.utime(file, (then, then))
    assert choose("auto", _MACHINE, cache=tmp_path) is chosen


def test_verdicts_can_be_forgotten(tmp_path: Path) -> None:
    """Forgetting removes every verdict and nothing else; where there is none it does nothing."""
    for settings in ("a", "b"):
        remember(_MACHINE._replace(settings=settings), works=False, cache=tmp_path)
    (tmp_path / "other").touch()
    assert [forget(cache=tmp_path), forget(cache=tmp_path), forget(cache=tmp_path / "nosuch")] == [2, 0, 0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize("content", [b"", b"perhaps\n", b"\xff\xfe", b"works"])
def test_a_damaged_verdict_is_none(content: bytes, tmp_path: Path) -> None:
    """A cache file that holds anything else is replaced by a new verdict."""
    remember(_MACHINE, works=True, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert choose("auto", _MACHINE, cache=tmp_path) is None
    remember(_MACHINE, works=True, cache=tmp_path)
    assert file.read_text() == "works\n"


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """Without a cache nothing is remembered and nothing fails."""
    (tmp_path / "file").touch()
    remember(_MACHINE, works=True, cache=tmp_path / "file")
    assert choose("auto", _MACHINE, cache=tmp_path / "file") is None


def test_no_question_without_kvm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where KVM cannot be opened auto is TCG at once, and kvm is refused with the reason."""
    monkeypatch.setattr(accelerator, "kvm_obstacle", lambda: "/dev/kvm: Permission denied")
    assert choose("auto", _MACHINE, cache=tmp_path) is Accelerator.TCG
    with pytest.raises(HostError) as caught:
        choose("kvm", _MACHINE, cache=tmp_path)
    assert (
        str(caught.value) == "this host has no usable KVM: /dev/kvm: Permission denied; set accelerator to auto or tcg"
    )
    assert list(tmp_path.iterdir()) == []


def test_what_is_asked_for_by_name(tmp_path: Path) -> None:
    """Kvm and tcg are taken at their word, anything else is refused."""
    assert choose("tcg", _MACHINE, cache=tmp_path) is Accelerator.TCG
    assert choose("kvm", _MACHINE, cache=tmp_path) is Accelerator.KVM
    with pytest.raises(HostError) as caught:
        choose("hvf", _MACHINE, cache=tmp_path)
    assert str(caught.value) == "accelerator 'hvf' is unknown; kvm, tcg and auto are known"


@pytest.mark.parametrize(
    ("printed", "kvm", "shortage"),
    [
        ("qemu-system-x86_64: failed to initialize kvm: Permission denied", True, False),
        ("Could not access KVM kernel module: No such device", True, False),
        ("KVM: entry failed, hardware error 0x80000021", True, False),
        ("KVM internal error. Suberror: 1", True, False),
        ("error: kvm run failed Bad address", True, False),
        ("qemu-system-x86_64: kvm_init_vcpu: kvm_get_vcpu failed (0): Invalid argument", True, False),
        ("ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy", False, True),
        ("qemu-system-x86_64: cannot set up guest memory 'ram': Cannot allocate memory", False, True),
        ("Kernel panic - not syncing: No working init found.", False, False),
        ("", False, False),
    ],
)
def test_whose_failure_it_is(printed: str, kvm: bool, shortage: bool) -> None:
    """KVM's own messages count against it; a shortage, even one that KVM met, and everything else do not."""
    assert (is_kvm_failure(printed), is_shortage(printed)) == (kvm, shortage)
