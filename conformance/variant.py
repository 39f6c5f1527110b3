"""What a run does otherwise than the runs whose results are kept."""

from __future__ import annotations

from typing import NamedTuple


class Variant(NamedTuple):
    """``runtime``: another runtime's program, or empty; ``delay``: seconds by which start and exec return later."""

    runtime: str = ""
    delay: int = 0
