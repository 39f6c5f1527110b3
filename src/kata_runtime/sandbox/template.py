"""Templates: booted VMs on disk, from which later sandboxes of the same configuration and image start.

A template is a directory, named by a hash of everything that its state depends on, with the guest's memory, the state
of QEMU's devices and a description with the digests of both. It is written under a temporary name and then renamed.
"""

from __future__ import annotations

import os

from kata_runtime import fast_json
from kata_runtime.errors import HostError
from kata_runtime.fast_contextlib import ExitStack, contextmanager, suppress
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.sandbox.guest_memory import occupied_pages, store_memory
from kata_runtime.sandbox.lock import LockFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike

TEMPLATE_DIRECTORY = "/var/lib/kata-runtime/templates"
MEMORY, DEVICES = "memory", "devices"

_DESCRIPTION = "template.json"
_VERIFIED = "verified.json"
_SCRATCH = ".new-"
# How many are kept. Each has about 90 MB; a host usually has one or two configurations.
_KEPT_MAX = 8
_READ_BYTES = 1024 * 1024
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Template(NamedTuple):
    """An open template: descriptors of its memory and of its devices' state."""

    memory: int
    devices: int


class TemplateStore:
    """The templates in one directory, which only its owner can access."""

    def __init__(self, directory: str | PathLike[str] = TEMPLATE_DIRECTORY) -> None:
        self._directory = os.fspath(directory)

    @contextmanager
    def opened(self, key: str) -> Iterator[Template | None]:
        """Open the template of ``key``; None if there is no usable one. A damaged one is removed.

        The digests are verified once for each boot of the host, and again when the files have changed.
        """
        with ExitStack() as stack:
            place = self._place(key)
            template = None
            try:
                template = _open(place, stack)
                if not _is_whole(place, template):
                    template = None
                    _remove(place)
            except FileNotFoundError:
                template = None
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                template = None
                _remove(place)
            if template is not None:
                with suppress(OSError):
                    os.utime(place)  # the least recently used template is removed first
            yield template

    def drop(self, key: str) -> None:
        """Remove the template of ``key``, which could not be loaded."""
        _remove(self._place(key))

    @contextmanager
    def making(self, key: str) -> Iterator[bool]:
        """Try to reserve the creation of the template of ``key``; True if this process is to create it in the block.

        :raise HostError: the directory cannot be created.
        """
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            os.chmod(self._directory, 0o700)
        except OSError as error:
            raise HostError.of(f"cannot use {self._directory}", error) from error
        lock = LockFile(self._place(f".{key}.lock"))
        try:
            yield lock.try_acquire() and not os.path.exists(self._place(key))
        finally:
            lock.close()

    def save(self, key: str, memory: int, save_devices: Callable[[int], None]) -> None:
        """Store a paused VM: its ``memory``, and what ``save_devices`` writes to a descriptor.

        :raise HostError: the file system refused. :raise KataError: ``save_devices`` failed. Nothing is left then.
        """
        import tempfile

        try:
            scratch = tempfile.mkdtemp(prefix=_SCRATCH, dir=self._directory)
            try:
                _write(scratch, memory, save_devices)
                os.rename(scratch, self._place(key))
            finally:
                _remove(scratch)
            self._prune(key)
        except OSError as error:
            raise HostError.of(f"cannot keep a template in {self._directory}", error) from error

    def clean(self) -> int:
        """Remove all templates; returns their number.

        :raise HostError: the file system refused.
        """
        try:
            entries = list(os.scandir(self._directory))
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _remove(entry.path, ignore_errors=False)
                else:
                    os.unlink(entry.path)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise HostError.of(f"cannot remove {error.filename!r}", error) from error
        return sum(not entry.name.startswith(".") for entry in entries)

    def _place(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _prune(self, key: str) -> None:
        """Remove the least recently used templates, and temporary directories of killed commands."""
        entries = sorted(os.scandir(self._directory), key=lambda entry: entry.stat().st_mtime, reverse=True)
        kept = [entry for entry in entries if not entry.name.startswith(".")]
        for entry in kept[_KEPT_MAX:]:
            if entry.name != key:
                _remove(entry.path)
        for entry in entries:
            if entry.name.startswith(_SCRATCH) and _is_abandoned(entry.path):
                _remove(entry.path)


def _remove(directory: str, *, ignore_errors: bool = True) -> None:
    from shutil import rmtree  # most starts remove nothing

    rmtree(directory, ignore_errors=ignore_errors)


def _is_abandoned(scratch: str) -> bool:
    """Whether the process that wrote to a temporary directory has ended: it would hold a lock on the description."""
    try:
        lock = LockFile(os.path.join(scratch, _DESCRIPTION))
    except FileNotFoundError:
        return False
    try:
        return lock.try_acquire()
    finally:
        lock.close()


def _write(scratch: str, memory: int, save_devices: Callable[[int], None]) -> None:
    with ExitStack() as stack:
        # Held while the directory is written: see _is_abandoned.
        lock = LockFile(os.path.join(scratch, _DESCRIPTION))
        stack.callback(lock.close)
        lock.try_acquire()
        files = {
            name: _opened(os.path.join(scratch, name), os.O_RDWR | os.O_CREAT | os.O_EXCL, stack)
            for name in (MEMORY, DEVICES)
        }
        save_devices(files[DEVICES])
        store_memory(memory, files[MEMORY])
        for file in files.values():
            os.fsync(file)
        digests = {name: _digest(file) for name, file in files.items()}
        description = _opened(os.path.join(scratch, _DESCRIPTION), os.O_WRONLY, stack)
        os.write(description, fast_json.dumps({"sha256": digests}).encode())
        os.fsync(description)
        _note_verified(scratch, files)
        directory = _opened(scratch, os.O_RDONLY | os.O_DIRECTORY, stack)
        os.fsync(directory)


def _open(place: str, stack: ExitStack) -> Template:
    status = os.stat(place, follow_symlinks=False)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ValueError("somebody else can write there")
    return Template(*(_opened(os.path.join(place, name), os.O_RDONLY, stack) for name in (MEMORY, DEVICES)))


def _opened(path: str, flags: int, stack: ExitStack) -> int:
    opened = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    stack.callback(os.close, opened)
    return opened


def _is_whole(place: str, template: Template) -> bool:
    files = template._asdict()
    # ctime changes with the content and cannot be set by programs (inode(7)).
    with suppress(OSError, ValueError):
        if fast_json.loads(_text_of(os.path.join(place, _VERIFIED))) == _marks(files):
            return True
    expected = fast_json.loads(_text_of(os.path.join(place, _DESCRIPTION)))["sha256"]
    if {name: _digest(file) for name, file in files.items()} != expected:
        return False
    with suppress(OSError):
        _note_verified(place, files)
    return True


def _note_verified(place: str, files: dict[str, int]) -> None:
    with ExitStack() as stack:
        file = _opened(os.path.join(place, _VERIFIED), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, stack)
        os.write(file, fast_json.dumps(_marks(files)).encode())


def _marks(files: dict[str, int]) -> dict[str, object]:
    marks: dict[str, object] = {"boot": _text_of(_BOOT_ID).strip()}
    for name, file in files.items():
        status = os.fstat(file)
        marks[name] = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return marks


def _text_of(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def _digest(file: int) -> str:
    """SHA-256 of the file's length and of its non-empty pages, each run with its offset."""
    from hashlib import sha256

    digest = sha256(str(os.fstat(file).st_size).encode())
    for place, data in occupied_pages(file):
        digest.update(f" {place} {len(data)} ".encode())
        digest.update(data)
    # QEMU reads the devices from the offset, which SEEK_DATA and SEEK_HOLE have moved.
    os.lseek(file, 0, os.SEEK_SET)
    return digest.hexdigest()
