"""The choice of accelerator: KVM where a guest has booted with it, else QEMU's own translator (TCG).

/dev/kvm can exist and not work, so ``auto`` relies on a real boot. The verdict is cached for this combination of host
kernel, processor, QEMU, image and machine configuration; a verdict against KVM expires after a week.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from kata_runtime.errors import HostError
from kata_runtime.fast_contextlib import suppress
from kata_runtime.fast_enum import StrEnum
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike

CACHE_DIRECTORY = "/var/cache/kata-runtime"
# A module parameter, a firmware setting or the hypervisor around this host may change meanwhile.
FAILED_SECONDS = 7 * 24 * 3600.0
_DEVICE = "/dev/kvm"
# include/uapi/linux/kvm.h
_KVM_GET_API_VERSION = 0xAE00
_KVM_API_VERSION = 12
# What QEMU 7.2 prints when KVM itself refuses: accel/kvm/kvm-all.c, target/i386/kvm/kvm.c, softmmu/vl.c.
_KVM_MESSAGES = (
    "failed to initialize kvm", "could not access kvm kernel module", "kvm: entry failed", "kvm internal error",
    "error: kvm run failed", "kvm_init_vcpu", "ioctl(kvm_", "kvm version too old", "kvm_get_", "kvm_set_", "kvm_arch_",
    "kvm_vcpu_ioctl", "kvm_buf_set_msrs", "kvm_create_",
)  # fmt: skip


class Accelerator(StrEnum):
    """QEMU's -accel."""

    KVM = "kvm"
    TCG = "tcg"


class Machine(NamedTuple):
    """What a verdict applies to: the program, the image, and the configuration of the machine."""

    qemu: str
    image: str
    settings: str


class Verdict(NamedTuple):
    """Whether KVM proved to work, ``age`` seconds ago."""

    works: bool
    age: float


def choose(requested: str, machine: Machine, *, cache: str | PathLike[str] = CACHE_DIRECTORY) -> Accelerator | None:
    """The accelerator for ``requested`` (kvm, tcg or auto); None when a boot under KVM has to decide.

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
    verdict = remembered(machine, cache=cache)
    if verdict is None:
        return None
    return Accelerator.KVM if verdict.works else Accelerator.TCG


def remembered(machine: Machine, *, cache: str | PathLike[str] = CACHE_DIRECTORY) -> Verdict | None:
    """The cached verdict on this machine; None when there is none or it has expired."""
    try:
        with open(os.path.join(cache, _name(machine)), "rb") as file:
            text = file.read(16)
            age = time.time() - os.fstat(file.fileno()).st_mtime
    except OSError:
        return None
    works = {b"works\n": True, b"fails\n": False}.get(text)
    # If the clock was set back, the age is meaningless.
    if works is None or (not works and not 0 <= age < FAILED_SECONDS):
        return None
    return Verdict(works, max(age, 0.0))


def remember(machine: Machine, *, works: bool, cache: str | PathLike[str] = CACHE_DIRECTORY) -> None:
    """Cache a verdict; where the cache cannot be written, the next start proves KVM again."""
    name = _name(machine)
    # One temporary name per verdict: what killed commands leave behind is overwritten and does not accumulate.
    temporary = os.path.join(cache, f".{name}")
    try:
        os.makedirs(cache, mode=0o755, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(b"works\n" if works else b"fails\n")
        os.replace(temporary, os.path.join(cache, name))
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)


def forget(*, cache: str | PathLike[str] = CACHE_DIRECTORY) -> int:
    """Delete all verdicts, so that the next sandbox of each kind proves KVM again; returns their number.

    :raise HostError: one cannot be removed.
    """
    count = 0
    names: list[str] = []
    with suppress(FileNotFoundError):
        names = [name for name in os.listdir(cache) if name.startswith("kvm-")]
    for name in names:
        path = os.path.join(cache, name)
        try:
            with suppress(FileNotFoundError):
                os.unlink(path)
        except OSError as error:
            raise HostError.of(f"cannot remove {path}", error) from error
        count += 1
    return count


def is_kvm_failure(printed: str) -> bool:
    """Whether QEMU's output names KVM as the reason why it ended."""
    lowered = printed.lower()
    return any(message in lowered for message in _KVM_MESSAGES) and not is_shortage(printed)


def is_shortage(printed: str) -> bool:
    """Whether QEMU's output names a temporary shortage of the host."""
    return any(os.strerror(number) in printed for number in (errno.ENOMEM, errno.EBUSY, errno.EMFILE, errno.EAGAIN))


def kvm_obstacle() -> str | None:
    """Why KVM cannot be tried; None if it can."""
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


def _name(machine: Machine) -> str:
    return f"kvm-{fingerprint(machine)}"


def fingerprint(machine: Machine) -> str:
    """32 hexadecimal digits for this host's kernel and processor, and this machine on it."""
    from kata_runtime.fast_hashlib import sha256

    try:
        binary = os.stat(machine.qemu)
        built = f"{binary.st_size} {binary.st_mtime_ns}"
    except OSError:
        built = ""
    facts = "\0".join([os.uname().release, _processor(), built, *machine])
    return sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return ""
