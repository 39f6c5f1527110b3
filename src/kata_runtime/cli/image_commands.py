"""image build and image clean: the guest kernel and initrd, and the templates booted from them."""

from __future__ import annotations

from pathlib import Path

from kata_runtime.cli.streams import notify, write_line
from kata_runtime.guest.image import DEFAULT_DESTINATION, build_image, image_is_current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.cli.argument_parser import Call


def run(call: Call) -> int:
    """Carry out an image command."""
    return _clean(call) if call.command.words[1] == "clean" else _build(call)


def _clean(call: Call) -> int:
    """Remove the templates, but not the image."""
    from kata_runtime.cli.settings import config_path_of
    from kata_runtime.sandbox.config import load_config
    from kata_runtime.sandbox.template import TemplateStore

    directory = load_config(config_path_of(call), notify).template_path
    count = TemplateStore(Path(directory)).clean()
    notify(f"{count} template{'s' * (count != 1)} removed from {directory}")
    return 0


def _build(call: Call) -> int:
    """Build the image with progress on standard error, and print its path."""
    given = call.value("--destination")
    destination = Path(given or DEFAULT_DESTINATION)
    kernel = call.value("--kernel")
    modules = call.value("--modules")
    include = tuple(call.options.get("--include", ()))
    if call.value("--if-outdated") is None or not image_is_current(destination, include):
        build_image(
            destination,
            include=include,
            kernel=Path(kernel) if kernel else None,
            modules=Path(modules) if modules else None,
            progress=notify,
        )
    write_line(str(destination))
    return 0
