"""Points as plain tuples: RoboPoint.

    [(0.52, 0.31), (0.55, 0.30)]

x and y are fractions of width and height; there are no labels.
"""

from __future__ import annotations

import re

from molmo_ros.pointing.spoken_point import NUMBER, Extent, SpokenPoint, spoken_point

_TUPLE = re.compile(rf"\(\s*+({NUMBER})\s*+,\s*+({NUMBER})\s*+,?\s*+\)")


def tuple_points(answer: str, extent: Extent) -> list[SpokenPoint]:
    """All whole tuples of two numbers within the extent, in the answer's order."""
    points = [spoken_point(match, 1, 2, extent) for match in _TUPLE.finditer(answer)]
    return [point for point in points if point]
