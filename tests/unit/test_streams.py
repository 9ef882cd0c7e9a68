"""Taking the engine's streams apart."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from swarmkit.remote.streams import STDERR, STDOUT, SYSTEM_ERROR, Demultiplexer

FRAMES = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR, SYSTEM_ERROR]), st.binary(max_size=40)))


def encoded(frames: Sequence[tuple[int, bytes]]) -> bytes:
    return b"".join(struct.pack(">B3xI", kind, len(data)) + data for kind, data in frames)


@given(FRAMES, st.lists(st.integers(0, 500)))
def test_frames_are_the_same_however_the_stream_is_cut(
    frames: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    stream = encoded(frames)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    demultiplexer = Demultiplexer()
    found = [frame for start, end in pairwise(edges) for frame in demultiplexer.feed(stream[start:end])]
    assert found == frames


def test_a_frame_comes_only_when_it_is_whole() -> None:
    demultiplexer = Demultiplexer()
    stream = encoded([(STDOUT, b"whole"), (STDERR, b"half")])
    assert list(demultiplexer.feed(stream[:-1])) == [(STDOUT, b"whole")]
    assert list(demultiplexer.feed(stream[-1:])) == [(STDERR, b"half")]
