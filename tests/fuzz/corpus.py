"""The inputs worth keeping for each target: a file of lines in hexadecimal, so that they can be read in a diff."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.guest_targets import GUEST_TARGETS
from tests.fuzz.ipvs_targets import IPVS_TARGETS
from tests.fuzz.user_targets import USER_TARGETS

DIRECTORY = Path(__file__).with_name("corpus")
TARGETS = {target.name: target for target in [*GUEST_TARGETS, *IPVS_TARGETS, *USER_TARGETS]}


def load(name: str) -> list[bytes]:
    """The inputs of a target."""
    return [bytes.fromhex(line) for line in (DIRECTORY / f"{name}.hex").read_text().splitlines()]


def save(name: str, inputs: set[bytes]) -> None:
    """Replace them; short ones come first."""
    lines = sorted((data.hex() for data in inputs), key=lambda line: (len(line), line))
    (DIRECTORY / f"{name}.hex").write_text("".join(f"{line}\n" for line in lines))
