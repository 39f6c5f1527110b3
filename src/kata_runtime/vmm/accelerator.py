"""What runs the guest's code: KVM where it proves to work, else QEMU's own translator (TCG).

/dev/kvm can exist and not work, so ``auto`` believes only a guest that booted, and remembers the verdict
for as long as host kernel, processor, QEMU and image stay what they were.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from kata_runtime.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable

CACHE_DIRECTORY = Path("/var/cache/kata-runtime")
_DEVICE = "/dev/kvm"
# include/uapi/linux/kvm.h
_KVM_GET_API_VERSION = 0xAE00
_KVM_API_VERSION = 12


class Accelerator(StrEnum):
    """QEMU's -accel."""

    KVM = "kvm"
    TCG = "tcg"


def choose(
    requested: str,
    *,
    qemu: str,
    image: str,
    prove: Callable[[], bool],
    cache: Path = CACHE_DIRECTORY,
) -> Accelerator:
    """The accelerator for ``requested``: kvm, tcg or auto.

    ``image`` identifies kernel and initrd; ``prove`` boots them under KVM, with its own deadline, and tells
    whether that worked.

    :raise HostError: kvm was asked for, and the host has none; or ``requested`` is none of the three.
    """
    if requested == "tcg":
        return Accelerator.TCG
    if requested not in ("kvm", "auto"):
        raise HostError(f"accelerator {requested!r} is unknown", hint="kvm, tcg and auto are known")
    obstacle = kvm_obstacle()
    if requested == "kvm":
        if obstacle is not None:
            raise HostError(f"this host has no usable KVM: {obstacle}", hint="set accelerator to auto or tcg")
        return Accelerator.KVM
    if obstacle is not None:
        return Accelerator.TCG
    works = remembered(qemu=qemu, image=image, cache=cache)
    if works is None:
        works = prove()
        _store(cache / f"kvm-{_key(qemu, image)}", "works\n" if works else "fails\n")
    return Accelerator.KVM if works else Accelerator.TCG


def remembered(*, qemu: str, image: str, cache: Path = CACHE_DIRECTORY) -> bool | None:
    """Whether KVM proved to work with this QEMU and image; None when that was not tried yet."""
    try:
        verdict = (cache / f"kvm-{_key(qemu, image)}").read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return {"works\n": True, "fails\n": False}.get(verdict)


def kvm_obstacle() -> str | None:
    """Why KVM cannot even be tried, None when it can."""
    try:
        opened = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"{_DEVICE}: {error.strerror}"
    try:
        version = fcntl.ioctl(opened, _KVM_GET_API_VERSION)
    except OSError as error:
        return f"{_DEVICE}: {error.strerror}"
    finally:
        os.close(opened)
    return None if version == _KVM_API_VERSION else f"{_DEVICE} speaks version {version} instead of {_KVM_API_VERSION}"


def _store(file: Path, verdict: str) -> None:
    try:
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".kvm-", delete=False) as written:
            written.write(verdict)
        os.replace(written.name, file)
    except OSError:
        # Without a cache the proof is given again the next time.
        return


def _key(qemu: str, image: str) -> str:
    from hashlib import sha256

    try:
        binary = os.stat(qemu)
        built = f"{binary.st_size} {binary.st_mtime_ns}"
    except OSError:
        built = ""
    facts = f"{os.uname().release}\x00{_processor()}\x00{qemu}\x00{built}\x00{image}"
    return sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return ""
