"""Booting from a template where there is one, and storing one where there is none."""

from __future__ import annotations

from kata_runtime.errors import HostError, KataError
from kata_runtime.fast_contextlib import ExitStack
from kata_runtime.guest import wire
from kata_runtime.sandbox.boot_failure import BootError
from kata_runtime.sandbox.template import TemplateStore
from kata_runtime.vmm.accelerator import fingerprint, is_shortage
from kata_runtime.vmm.snapshot import save_devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from kata_runtime.sandbox.boot import StoreTemplate
    from kata_runtime.sandbox.config import Config
    from kata_runtime.sandbox.template import Template
    from kata_runtime.vmm.accelerator import Machine
    from kata_runtime.vmm.monitor import Monitor

    class Start(Protocol):
        """``boot`` with the arguments for one sandbox and accelerator."""

        def __call__(
            self, *, seconds: float, template: Template | None = None, keep: StoreTemplate | None = None
        ) -> None: ...


# Deadline from starting QEMU to the agent's answer: 0.2 s on an idle host.
_LOAD_SECONDS = 20.0


def template_key(machine: Machine, arguments: Sequence[str]) -> str:
    """The name of a VM's template: a hash of everything that its state depends on.

    That is the host's kernel and processor, QEMU, kernel and initrd (path, size, modification time), QEMU's
    ``arguments``, and the version of the agent's protocol.
    """
    from kata_runtime.fast_hashlib import sha256

    facts = "\0".join([fingerprint(machine), str(wire.VERSION), *arguments])
    return sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def boot_with_template(config: Config, key: str, start: Start, seconds: float, progress: Callable[[str], None]) -> None:
    """Start from the template of ``key``; if there is none, boot within ``seconds`` and store the booted VM as one.

    A template that cannot be loaded is removed, and reported to ``progress``.

    :raise BootError, HostError: as ``boot``.
    """
    # QEMU leaves memory out of the saved state only if it is shared memory.
    if config.template == "off" or not config.shared_memory:
        start(seconds=seconds)
        return
    store = TemplateStore(config.template_path)
    with store.opened(key) as template:
        if template is not None:
            try:
                start(seconds=_LOAD_SECONDS, template=template)
            except BootError as error:
                # A shortage of the host is no reason to remove the template.
                if not is_shortage(error.printed):
                    store.drop(key)
                progress(f"the sandbox is booted, since its template could not be loaded: {error.message}")
            else:
                return
    _boot_and_keep(store, key, start, seconds, progress)


def _boot_and_keep(
    store: TemplateStore, key: str, start: Start, seconds: float, progress: Callable[[str], None]
) -> None:
    def keep(memory: int, monitor: Monitor, /) -> None:
        try:
            store.save(key, memory, lambda file: save_devices(monitor, file))
        except KataError as error:
            progress(f"no template is kept, so that later sandboxes boot, too: {error}")

    with ExitStack() as stack:
        is_ours = False
        try:
            is_ours = stack.enter_context(store.making(key))
        except HostError as error:
            progress(f"no template is kept, so that later sandboxes boot, too: {error}")
        start(seconds=seconds, keep=keep if is_ours else None)
