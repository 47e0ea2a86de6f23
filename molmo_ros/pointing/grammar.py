"""Points in Molmo's words.

    <point x="61.5" y="40.6" alt="mug">mug</point>
    <points x1="12.0" y1="30.4" x2="55.1" y2="31.9" alt="cups">cups</points>
    There are none.

Coordinates are percent of the width and height of the original image. Nothing is escaped in these tags, so
they are read with regular expressions, not as XML. An answer cut off in the middle keeps its whole points.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_OPENING = re.compile(r"<points?(?=\s)")
_PAIR = re.compile(
    r"""\s*x(\d*)\s*=\s*["']?\s*(\d+(?:\.\d+)?)\s*["'],?\s*y\1\s*=\s*["']?\s*(\d+(?:\.\d+)?)\s*["']"""
)
_ALT = re.compile(r"""\s*alt\s*=\s*"(.*?)"\s*(?:>|$)""", re.DOTALL)
_CLICK = re.compile(r"Click\(\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*\)")
_ABSENT = re.compile(
    r"there (?:are|is) (?:none|no\b)|(?:this|that) isn.t in the image|not in the image", re.IGNORECASE
)


@dataclass(frozen=True)
class SpokenPoint:
    """A point as the answer gives it: percent of width and height, its label, and where its numbers stand.

    `x_span`, `y_span`: characters of the two numbers in the answer.
    """

    x: float
    y: float
    label: str
    x_span: tuple[int, int]
    y_span: tuple[int, int]


def spoken_points(answer: str) -> list[SpokenPoint]:
    """All whole points in an answer, in its order. Points outside 0..100 percent are dropped."""
    points = []
    for opening in _OPENING.finditer(answer):
        pairs, end = [], opening.end()
        while pair := _PAIR.match(answer, end):
            pairs.append(pair)
            end = pair.end()
        alt = _ALT.match(answer, end)
        label = alt.group(1).strip() if alt else ""
        points += [_point(p.group(2), p.group(3), label, p.span(2), p.span(3)) for p in pairs]
    if not points:
        points = [_point(c.group(1), c.group(2), "", c.span(1), c.span(2)) for c in _CLICK.finditer(answer)]
    return [point for point in points if 0 <= point.x <= 100 and 0 <= point.y <= 100]


def says_absent(answer: str) -> bool:
    """Whether the answer says, in any of Molmo's ways, that the thing is not there."""
    return not spoken_points(answer) and _ABSENT.search(answer) is not None


def _point(x: str, y: str, label: str, x_span: tuple[int, int], y_span: tuple[int, int]) -> SpokenPoint:
    return SpokenPoint(float(x), float(y), label, x_span, y_span)
