"""A point as a model speaks it, whatever its words: the one thing that all grammars of answers yield.

The grammars keep three rules. What is written decides, never the size of the numbers. A number outside its
scale is refused, never moved to the edge: a goal for a robot must not come from a slip of the tongue. And a
point is read from the characters up to its own end alone, so that an answer cut off by a token limit says
nothing that the whole answer would not have said.

All patterns of the grammars run in linear time: repeats whose neighbours could eat the same characters are
possessive (`*+`), and numbers have a bounded length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: A decimal number in ASCII digits. A minus is read so that its point can be refused without losing the next.
NUMBER = r"-?[0-9]{1,9}(?:\.[0-9]{1,20})?"


@dataclass(frozen=True)
class Extent:
    """What the answer's numbers say for the right and the lower edge of the picture: 100, 100 for percent."""

    x: float
    y: float


PERCENT = Extent(100, 100)
PER_MILLE = Extent(1000, 1000)
FRACTION = Extent(1, 1)


@dataclass(frozen=True)
class SpokenPoint:
    """A point as the answer gives it: percent of the original image's width and height, from its top left.

    `label`: the answer's words for it, "" if it has none.
    `x_span`, `y_span`: characters of the two numbers in the answer, which are spoken in the scale of `extent`.
    `image`: which of several pictures, from 1. `time_s`: seconds into a video. `object_id`: number of the
    thing, the same in every frame of a track. None where the format does not say.
    """

    x: float
    y: float
    label: str
    x_span: tuple[int, int]
    y_span: tuple[int, int]
    extent: Extent
    image: int | None = None
    time_s: float | None = None
    object_id: int | None = None


def spoken_point(
    match: re.Match[str],
    x: int | str,
    y: int | str,
    extent: Extent,
    label: str = "",
    image: int | None = None,
    time_s: float | None = None,
    object_id: int | None = None,
) -> SpokenPoint | None:
    """The point whose numbers are the groups `x` and `y` of a match; None if one is outside 0..extent."""
    across, down = float(match.group(x)), float(match.group(y))
    if not (0 <= across <= extent.x and 0 <= down <= extent.y):
        return None
    # Multiplied first: 911 per mille is 91.1 percent, not 91.10000000000001. The zero turns -0.0 into 0.0.
    percent = across * 100 / extent.x + 0.0, down * 100 / extent.y + 0.0
    return SpokenPoint(*percent, label, match.span(x), match.span(y), extent, image, time_s, object_id)
