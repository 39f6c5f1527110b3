"""image build: the guest kernel and initrd."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kata_runtime.cli.streams import tell, write_line
from kata_runtime.guest.image import DEFAULT_DESTINATION, build_image

if TYPE_CHECKING:
    from kata_runtime.cli.grammar import Call


def run(call: Call) -> int:
    """Build the image, show progress on standard error, print where it lies."""
    given = call.value("--destination")
    destination = Path(given) if given else DEFAULT_DESTINATION
    kernel = call.value("--kernel")
    modules = call.value("--modules")
    build_image(
        destination,
        include=tuple(call.options.get("--include", ())),
        kernel=Path(kernel) if kernel else None,
        modules=Path(modules) if modules else None,
        progress=tell,
    )
    write_line(str(destination))
    return 0
