"""Build the images named on the command line (default, test) where they are missing or out of date."""

from __future__ import annotations

import sys
from pathlib import Path

from kata_runtime.errors import KataError
from kata_runtime.guest.image import DEFAULT_DESTINATION, build_image, image_is_current

TEST_IMAGE = Path(DEFAULT_DESTINATION).with_name("image-test")
_TEST_PACKAGES = ("conntrack", "ethtool", "iproute2", "iputils-ping", "ipvsadm", "procps")
_KINDS = {"default": (Path(DEFAULT_DESTINATION), ()), "test": (TEST_IMAGE, _TEST_PACKAGES)}


def _show(step: str) -> None:
    print(f"image: {step}", file=sys.stderr, flush=True)


def main() -> int:
    """Return the exit status."""
    for kind in sys.argv[1:]:
        destination, include = _KINDS[kind]
        if image_is_current(destination, include):
            continue
        try:
            build_image(destination, include=include, progress=_show)
        except KataError as exc:
            _show(str(exc))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
