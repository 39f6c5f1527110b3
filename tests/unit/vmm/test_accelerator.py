"""KVM or TCG: what was proved once is remembered for this QEMU and this image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kata_runtime.errors import HostError
from kata_runtime.vmm import accelerator
from kata_runtime.vmm.accelerator import Accelerator, choose, remembered

if TYPE_CHECKING:
    from pathlib import Path


class _Proof:
    """A boot under KVM that ends as it was told, and counts."""

    def __init__(self, *, works: bool) -> None:
        self.works = works
        self.boots = 0

    def __call__(self) -> bool:
        self.boots += 1
        return self.works


@pytest.fixture(autouse=True)
def _kvm_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "kvm_obstacle", lambda: None)


def _auto(proof: _Proof, cache: Path, image: str = "image 1") -> Accelerator:
    return choose("auto", qemu="/nonexistent/qemu", image=image, prove=proof, cache=cache)


@pytest.mark.parametrize("chosen", list(Accelerator))
def test_a_verdict_is_reached_once(chosen: Accelerator, tmp_path: Path) -> None:
    """One boot decides; afterwards the verdict is read, also by kata-check."""
    works = chosen is Accelerator.KVM
    cache, proof = tmp_path / "made" / "cache", _Proof(works=works)
    assert remembered(qemu="/nonexistent/qemu", image="image 1", cache=cache) is None
    assert [_auto(proof, cache), _auto(proof, cache)] == [chosen, chosen]
    assert proof.boots == 1
    assert remembered(qemu="/nonexistent/qemu", image="image 1", cache=cache) is works
    assert [entry.read_text() for entry in cache.iterdir()] == ["works\n" if works else "fails\n"]


def test_another_image_is_another_question(tmp_path: Path) -> None:
    """A verdict holds for its own image only."""
    proof = _Proof(works=True)
    _auto(proof, tmp_path)
    _auto(proof, tmp_path, "image 2")
    assert proof.boots == 2


@pytest.mark.parametrize("content", [b"", b"perhaps\n", b"\xff\xfe", b"works"])
def test_a_damaged_verdict_is_none(content: bytes, tmp_path: Path) -> None:
    """A cache file that holds anything else is replaced by a new verdict."""
    proof = _Proof(works=True)
    _auto(proof, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert remembered(qemu="/nonexistent/qemu", image="image 1", cache=tmp_path) is None
    assert _auto(proof, tmp_path) is Accelerator.KVM
    assert (proof.boots, file.read_text()) == (2, "works\n")


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """Without a cache each start gives the proof again."""
    proof = _Proof(works=True)
    (tmp_path / "file").touch()
    assert _auto(proof, tmp_path / "file") is Accelerator.KVM
    assert _auto(proof, tmp_path / "file") is Accelerator.KVM
    assert proof.boots == 2


def test_no_question_without_kvm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where KVM cannot be opened auto is TCG at once, and kvm is refused with the reason."""
    monkeypatch.setattr(accelerator, "kvm_obstacle", lambda: "/dev/kvm: Permission denied")
    proof = _Proof(works=True)
    assert _auto(proof, tmp_path) is Accelerator.TCG
    with pytest.raises(HostError) as caught:
        choose("kvm", qemu="qemu", image="i", prove=proof, cache=tmp_path)
    assert (
        str(caught.value) == "this host has no usable KVM: /dev/kvm: Permission denied; set accelerator to auto or tcg"
    )
    assert (proof.boots, list(tmp_path.iterdir())) == (0, [])


def test_what_is_asked_for_by_name(tmp_path: Path) -> None:
    """Kvm and tcg are taken at their word, anything else is refused."""
    proof = _Proof(works=False)
    assert choose("tcg", qemu="qemu", image="i", prove=proof, cache=tmp_path) is Accelerator.TCG
    assert choose("kvm", qemu="qemu", image="i", prove=proof, cache=tmp_path) is Accelerator.KVM
    with pytest.raises(HostError) as caught:
        choose("hvf", qemu="qemu", image="i", prove=proof, cache=tmp_path)
    assert str(caught.value) == "accelerator 'hvf' is unknown; kvm, tcg and auto are known"
    assert proof.boots == 0
