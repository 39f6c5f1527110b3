"""Fuzzing in short: the corpus and changes of it, the same ones in every run; make fuzz does it for long."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
from tests.fuzz import corpus

if TYPE_CHECKING:
    from collections.abc import Sequence

_MUTATIONS = 4000
_LARGEST_BYTES = 8192
# A hundred times what the slowest needs on a busy machine.
_SECONDS = 2.0
_NUMBERS = [0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


@pytest.mark.parametrize("name", corpus.TARGETS)
def test_corpus_and_changes_of_it(name: str) -> None:
    """Whatever a decoder or parser is fed, it gives a value or a KataError, in little time."""
    target = corpus.TARGETS[name]
    inputs = corpus.load(name)
    assert inputs
    chance = random.Random(name)
    for data in [*inputs, *(_changed(chance, inputs) for _ in range(_MUTATIONS))]:
        began = time.process_time()
        try:
            target.run(data)
        except BaseException as error:
            error.add_note(f"{name} was fed {data.hex()}")
            raise
        assert time.process_time() - began < _SECONDS, data.hex()


def _changed(chance: random.Random, inputs: Sequence[bytes]) -> bytes:
    """An input with a few changes of the kinds that fuzzers make."""
    data = bytearray(chance.choice(inputs))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        place = chance.randrange(len(data) + 1)
        size = chance.choice((1, 2, 4, 8, 64))
        match chance.randrange(6):
            case 0:
                del data[place : place + size]
            case 1:
                data[place:place] = chance.randbytes(size)
            case 2:
                data[place : place + size] = chance.randbytes(size)
            case 3:
                width = chance.choice((1, 2, 4))
                number = chance.choice(_NUMBERS) & (1 << 8 * width) - 1
                data[place : place + width] = number.to_bytes(width, chance.choice(("little", "big")))
            case 4:
                other = chance.choice(inputs)
                start = chance.randrange(len(other) + 1)
                data[place : place + size] = other[start : start + chance.randrange(256)]
            case _:
                data[place:place] = data[max(place - size, 0) : place] * chance.choice((1, 2, 100))
    return bytes(data[:_LARGEST_BYTES])
