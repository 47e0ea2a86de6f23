"""RVL: what was written is read back, by a bit-by-bit reading of the paper's code too; broken bytes are refused."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from molmo_ros.nodes.rvl import BrokenRvl, decode_rvl, encode_rvl

DEPTHS = arrays(np.uint16, st.integers(1, 300), elements=st.sampled_from([0, 0, 1, 800, 801, 799, 65535]))


def decoded_step_by_step(data: bytes, pixels: int) -> list[int]:
    """One nibble at a time, as the paper describes it."""
    words = iter(np.frombuffer(data, "<u4").tolist())
    state = {"word": 0, "left": 0}

    def number() -> int:
        value, shift = 0, 0
        while True:
            if not state["left"]:
                state["word"], state["left"] = next(words), 8
            nibble = state["word"] >> 28
            state["word"] = (state["word"] << 4) & 0xFFFFFFFF
            state["left"] -= 1
            value |= (nibble & 7) << shift
            shift += 3
            if not nibble & 8:
                return value

    image: list[int] = []
    before = 0
    while len(image) < pixels:
        image += [0] * number()
        for _ in range(number()):
            folded = number()
            before += (folded >> 1) ^ -(folded & 1)
            image.append(before)
    return image


@given(DEPTHS)
def test_a_depth_image_comes_back_as_it_was(image: np.ndarray) -> None:
    assert decode_rvl(encode_rvl(image), image.size).tolist() == image.tolist()


@given(DEPTHS)
def test_it_is_read_as_the_paper_reads_it(image: np.ndarray) -> None:
    data = encode_rvl(image)
    assert decoded_step_by_step(data, image.size) == decode_rvl(data, image.size).tolist()


def test_known_bytes() -> None:
    """0 zeros, 2 others (+1000 folds to 2000, -1 to 1), 1 zero, 0 others, written out by hand."""
    nibbles = [0, 2, 8 | 0, 8 | 2, 8 | 7, 3, 1, 1, 0]
    nibbles += [0] * (-len(nibbles) % 8)
    words = [int("".join(f"{n:x}" for n in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8)]
    data = np.array(words, "<u4").tobytes()
    assert decode_rvl(data, 3).tolist() == [1000, 999, 0]
    assert encode_rvl(np.array([1000, 999, 0], np.uint16)) == data


@given(st.binary(max_size=200), st.integers(1, 500))
def test_any_bytes_are_an_image_or_refused(data: bytes, pixels: int) -> None:
    with suppress(BrokenRvl):
        assert decode_rvl(data, pixels).shape == (pixels,)


def test_a_cut_image_is_refused() -> None:
    image = np.arange(1, 2001, dtype=np.uint16)
    with pytest.raises(BrokenRvl):
        decode_rvl(encode_rvl(image)[:100], image.size)
