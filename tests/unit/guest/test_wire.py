"""The frames between host and guest: exact bytes, round trips, and streams cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_runtime.guest import wire

frames = st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=300))


def _decoded(stream: bytes, cut: int) -> list[tuple[int, int, bytes]]:
    decoder = wire.Decoder()
    raw = decoder.feed(stream[:cut]) + decoder.feed(stream[cut:])
    return [wire.unpack_body(frame) for frame in raw]


def test_exact_bytes() -> None:
    """A frame is kind, request and payload with END and ESC escaped, then END."""
    assert wire.pack_frame(2, 258, b"a\xc0b\xdbc") == b"\x02\x00\x00\x01\x02a\xdb\xdcb\xdb\xddc\xc0"


@given(st.lists(frames, max_size=5), st.integers(0, 2000))
def test_round_trip(sent: list[tuple[int, int, bytes]], cut: int) -> None:
    """Frames come out as they went in, wherever the stream is cut in two."""
    assert _decoded(b"".join(wire.pack_frame(*frame) for frame in sent), cut) == sent


@given(frames, frames, st.data())
def test_half_a_frame_is_spoilt(
    lost: tuple[int, int, bytes], sent: tuple[int, int, bytes], data: st.DataObject
) -> None:
    """Of a frame that was cut off anywhere nothing arrives once the next client opens; its own frame does."""
    packed = wire.pack_frame(*lost)
    half = packed[: data.draw(st.integers(0, len(packed) - 1))]
    assert _decoded(half + wire.OPENING + wire.pack_frame(*sent), 0) == [sent]


@given(st.binary(max_size=500), frames)
def test_garbage_ends_at_the_opening(garbage: bytes, sent: tuple[int, int, bytes]) -> None:
    """After any bytes whatever, the frame that follows an opening is the last one decoded."""
    decoder = wire.Decoder()
    raw = decoder.feed(garbage + wire.OPENING + wire.pack_frame(*sent))
    assert wire.unpack_body(raw[-1]) == sent


@pytest.mark.parametrize("raw", [b"\x01\x00\x00\x00", b"\x01\x00\x00\x00\x00\xdba", b""])
def test_bad_bodies(raw: bytes) -> None:
    """Bodies that are too short, or escape nothing, are refused."""
    with pytest.raises(wire.FrameError):
        wire.unpack_body(raw)


_FULL = wire.MAX_BODY_BYTES - 5  # payload of the largest frame


@pytest.mark.parametrize("byte", [b"x", b"\xc0", b"\xdb"])
@pytest.mark.parametrize("step", [1 << 30, 100_000])
def test_the_largest_frame(byte: bytes, step: int) -> None:
    """A frame of exactly the limit passes, with or without escapes, at once or in parts; one byte more never does."""
    for size in (_FULL, _FULL + 1):
        decoder = wire.Decoder()
        stream = wire.pack_frame(1, 2, byte * size)
        parts = [stream[at : at + step] for at in range(0, len(stream), step)]
        if size == _FULL:
            raw = [frame for part in parts for frame in decoder.feed(part)]
            assert [wire.unpack_body(frame) for frame in raw] == [(1, 2, byte * size)]
        else:
            with pytest.raises(wire.FrameError, match="more than 524288 bytes"):
                [decoder.feed(part) for part in parts]
            with pytest.raises(wire.FrameError, match="a frame of 524289 bytes"):
                wire.unpack_body(stream[:-1])


def test_endless_frame() -> None:
    """A frame that never ends is refused once and not kept; the decoder goes on with the frame behind its end."""
    decoder = wire.Decoder()
    with pytest.raises(wire.FrameError):
        decoder.feed(bytes(wire.MAX_BODY_BYTES + 1))
    for _ in range(3):
        assert decoder.feed(bytes(1 << 20)) == []
    assert decoder.feed(b"rest\xc0" + wire.pack_frame(1, 2, b"x")) == [b"\x01\x00\x00\x00\x02x"]
    assert decoder.feed(wire.pack_frame(3, 4)) == [b"\x03\x00\x00\x00\x04"]


@pytest.mark.parametrize("payload", [b"", b"\0\0\0", b"\xff\xff\xff\xff", b"\0\0\x10\0"])
def test_outcomes_that_no_kernel_has(payload: bytes) -> None:
    """DONE without a whole errno, or with one beyond MAX_ERRNO, is refused."""
    with pytest.raises(wire.FrameError):
        wire.unpack_done(payload)


def test_text_of_an_outcome_is_bounded() -> None:
    """Of the text of DONE a page is kept."""
    assert wire.unpack_done(wire.pack_done(1, "x" * 100_000)) == (1, "x" * 4096)


_ASKED = st.integers(0, 50).flatmap(
    lambda length: st.lists(
        st.tuples(st.integers(length, 1 << 23), st.binary(min_size=length, max_size=length)), max_size=5
    )
)


def test_files() -> None:
    """A name is that of a file in /proc/net, but for one that is not there."""
    assert [wire.proc_file(name) for name in ("ip_vs", wire.MODULES)] == ["/proc/net/ip_vs", "/proc/modules"]


@given(st.integers(0, 0xFFFFFFFF), _ASKED)
def test_socket_options_round_trip(number: int, asked: list[tuple[int, bytes]]) -> None:
    """A request for socket options is read as it was packed."""
    found, sizes, arguments = wire.unpack_options(wire.pack_options(number, asked))
    assert (found, list(zip(sizes, arguments, strict=True))) == (number, asked)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (bytes(3), "a number that is cut short"),
        (bytes(9), "a socket option that is cut short"),
        (bytes(4) + b"\0\0\0\4\0\5hello", "socket options of 4 to 4 bytes with arguments of 5"),
        (bytes(4) + b"\0\0\0\5\0\5hell", "a socket option that is cut short"),
        (bytes(4) + b"\0\0\0\5\0\1a" + b"\0\0\0\6\0\2b", "socket options of 5 to 6 bytes with arguments of 1"),
        (bytes(4) + b"\0\x80\0\1\0\0", "socket options of 8388609 to 8388609 bytes with arguments of 0"),
    ],
)
def test_broken_socket_options(payload: bytes, reason: str) -> None:
    """A request that is cut short, or wants more than the agent may hold, is refused."""
    with pytest.raises(wire.FrameError) as refusal:
        wire.unpack_options(payload)
    assert str(refusal.value) == reason
