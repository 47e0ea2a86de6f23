"""RVL, the lossless code for depth images of A. D. Wilson, "Fast Lossless Depth Image Compression" (ISS 2017).

The stream alternates: how many zeros, how many non-zeros, then for each of those its difference to the non-zero
before it, zigzag folded to be positive. Every number is written in nibbles of three bits, lowest first, with the
fourth bit set when another follows; eight nibbles make a little-endian word, highest nibble first.
"""

from __future__ import annotations

import numpy as np

# 33 bits are more than any number here needs.
_MOST_NIBBLES = 11


class BrokenRvl(ValueError):
    """The bytes do not hold as many pixels as they should."""


def decode_rvl(data: bytes, pixels: int) -> np.ndarray:
    """The `pixels` uint16 values in row order. Raises BrokenRvl."""
    numbers = _numbers(data)
    image = np.zeros(pixels, np.int64)
    differences = np.where(numbers & 1, -((numbers + 1) >> 1), numbers >> 1)
    value, at, read = 0, 0, 0
    while at < pixels:
        if read + 2 > len(numbers):
            raise BrokenRvl(f"its rvl part ends after {at} of {pixels} pixels")
        zeros, others = int(numbers[read]), int(numbers[read + 1])
        at, read = at + zeros, read + 2
        if at + others > pixels or read + others > len(numbers) or zeros + others == 0:
            raise BrokenRvl(f"its rvl part does not fit {pixels} pixels")
        if others:
            run = value + np.cumsum(differences[read : read + others])
            image[at : at + others] = run
            value = int(run[-1])
        at, read = at + others, read + others
    if at > pixels or image.min(initial=0) < 0 or image.max(initial=0) > 0xFFFF:
        raise BrokenRvl("its rvl part holds depths that 16 bits cannot")
    return image.astype(np.uint16)


def encode_rvl(image: np.ndarray) -> bytes:
    """The code of a uint16 image; for tests and recordings, not for speed."""
    flat = image.astype(np.int64).ravel()
    nonzero = np.concatenate([[False], flat != 0, [False]])
    starts = np.flatnonzero(~nonzero[:-1] & nonzero[1:])
    ends = np.flatnonzero(nonzero[:-1] & ~nonzero[1:])
    nibbles: list[int] = []
    value = at = 0
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        _write(nibbles, start - at)
        _write(nibbles, end - start)
        for depth in flat[start:end].tolist():
            difference, value = depth - value, depth
            _write(nibbles, (difference << 1) ^ (difference >> 63))
        at = end
    if at < flat.size:
        _write(nibbles, flat.size - at)
        _write(nibbles, 0)
    nibbles += [0] * (-len(nibbles) % 8)
    high, low = np.array(nibbles, np.uint8).reshape(-1, 4, 2).transpose(2, 0, 1)
    return (high << 4 | low)[:, ::-1].astype(np.uint8).tobytes()


def _write(nibbles: list[int], number: int) -> None:
    while True:
        nibble, number = number & 7, number >> 3
        nibbles.append(nibble | 8 if number else nibble)
        if not number:
            return


def _numbers(data: bytes) -> np.ndarray:
    """All numbers of the stream (int64), the zeros that fill up the last word included."""
    words = np.frombuffer(data[: len(data) // 4 * 4], np.uint8).reshape(-1, 4)[:, ::-1].ravel()
    nibbles = np.column_stack([words >> 4, words & 15]).ravel()
    ends = np.flatnonzero(nibbles < 8)
    if not ends.size:
        return np.zeros(0, np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if int((ends - starts).max()) >= _MOST_NIBBLES:
        raise BrokenRvl("its rvl part holds a number of more than 32 bits")
    place = np.arange(ends[-1] + 1) - np.repeat(starts, ends - starts + 1)
    parts = (nibbles[: ends[-1] + 1].astype(np.int64) & 7) << (3 * place)
    return np.add.reduceat(parts, starts)
