"""Points in the words of Molmo, first generation, and what an answer says without a point.

    <point x="61.5" y="40.6" alt="mug">mug</point>
    <points x1="12.0" y1="30.4" x2="55.1" y2="31.9" alt="cups">cups</points>
    Counting the <points ...>cups</points> shows a total of 2.
    There are none.

Coordinates are percent of the width and height of the original image. Nothing is escaped in these tags, so
they are read with regular expressions, not as XML. AI2's evaluation also reads four looser forms, which
unreleased and fine-tuned checkpoints speak (allenai/molmo, `olmo/util.py`):

    Click(61.5, 40.6)      (61.5, 40.6)      x1="61.5" y1="40.6" outside a tag      p=615,406 or 1=615,406

The last is per mille and may also stand inside a tag. Once a tag has been spoken the other forms count no
longer: numbers in brackets behind a tag are prose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from molmo_ros.pointing.spoken_point import NUMBER, PER_MILLE, PERCENT, Extent, SpokenPoint, spoken_point

__all__ = [
    "SpokenPoint",
    "admits_none",
    "says_absent",
    "spoken_points",
    "stated_total",
    "tagged_points",
]

_OPENING = re.compile(r"<points?(?=\s)")
_ATTRIBUTES = (
    rf"""x(?P<n>[0-9]{{0,9}})\s*+=\s*+["']?+\s*+(?P<x>{NUMBER})\s*+["'],?+\s*+"""
    rf"""y(?P=n)\s*+=\s*+["']?+\s*+(?P<y>{NUMBER})\s*+["']"""
)
# At the very end of an answer, 100 may be a whole number or a 1000 cut short: it is not read.
_PER_MILLE = (
    r"(?<![\w.])(?:[0-9]{1,4}|p)\s*+=\s*+(?P<px>[0-9]{3,4}+)\s*+,\s*+"
    r"(?P<py>[0-9]{3,4}+)(?=[^0-9]|(?<![,\s]100)\Z)"
)
_PAIR = re.compile(rf"\s*+(?:{_ATTRIBUTES}|{_PER_MILLE})")
_LOOSE = re.compile(
    rf"Click\(\s*+(?P<cx>{NUMBER})\s*+,\s*+(?P<cy>{NUMBER})\s*+\)"
    r"|\((?P<bx>[0-9]{1,9}\.[0-9]),? ?(?P<by>[0-9]{1,9}\.[0-9])\)"
    rf"|(?<!\w){_ATTRIBUTES}|{_PER_MILLE}"
)
_ALT = re.compile(r'\s*+alt\s*+=\s*+"')
_ALT_END = re.compile(r'"\s*+/?>')
_TAG_END = re.compile(r"\s*+>")

_POINT_BEGINS = re.compile(r'<(?:points?|tracks?)\s|<loc_|"(?:point_2d|point|x)"\s*+:|\([0-9]')
_ABSENT = re.compile(
    r"there(?: is| are|.s) (?:none|no\b|not any)|there (?:is|are)n.t an?y?\b"
    r"|\b(?:not|isn.t|aren.t) (?:(?:visible|present|shown) )?in (?:the|this) (?:image|picture|photo)",
    re.IGNORECASE,
)
_COUNT = re.compile(
    r"(?:</(?:points?|tracks)|/)>\s*+shows a total of ([0-9]{1,6})(?=[^0-9])"
    r"|\bthere (?:is|are) ([0-9]{1,6})\s*+(?=<(?:points?|tracks)\s)",
    re.IGNORECASE,
)


def spoken_points(answer: str) -> list[SpokenPoint]:
    """All whole points in an answer, in its order. Points outside 0..100 percent are dropped."""
    tags = list(_tags(answer, per_mille=True))
    first_tag = tags[0].start if tags else len(answer)
    return [*_loose_points(answer, first_tag), *_points_of(tags, answer, PERCENT)]


def tagged_points(answer: str, extent: Extent) -> list[SpokenPoint]:
    """The points that stand as `x=".." y=".."` in tags; those outside `extent` are dropped.

    Models of other families write Molmo's tags when asked to, in their own scale.
    """
    return _points_of(list(_tags(answer, per_mille=False)), answer, extent)


def says_absent(answer: str) -> bool:
    """Whether the answer says, in any of Molmo's ways, that the thing is not there."""
    return not spoken_points(answer) and admits_none(answer)


def admits_none(answer: str) -> bool:
    """Whether the answer begins with words such as "There are none." or "This isn't in the image."

    Only words before the first beginning of a point count: a label is no answer, not even that of a point
    which is refused.
    """
    begin = _POINT_BEGINS.search(answer)
    return _ABSENT.search(answer, 0, begin.start() if begin else len(answer)) is not None


def stated_total(answer: str) -> int | None:
    """How many things the answer says it counted, None where it does not say.

    Read from "Counting the <points ...>cups</points> shows a total of 2." and "There are 2 <points ...>", in
    the tags of any Molmo, not from the number of points, which a token limit may have cut short.
    """
    count = _COUNT.search(answer)
    return int(count.group(1) or count.group(2)) if count else None


class _Tag(NamedTuple):
    """A tag that has coordinates: where it begins, and its pairs."""

    start: int
    pairs: list[re.Match[str]]


def _tags(answer: str, per_mille: bool) -> Iterator[_Tag]:
    for opening in _OPENING.finditer(answer):
        pairs, end = [], opening.end()
        while (pair := _PAIR.match(answer, end)) and (per_mille or pair.group("x")):
            pairs.append(pair)
            end = pair.end()
        if pairs:
            yield _Tag(opening.start(), pairs)


def _points_of(tags: Sequence[_Tag], answer: str, extent: Extent) -> list[SpokenPoint]:
    ends = [*(tag.start for tag in tags[1:]), len(answer)]
    points: list[SpokenPoint | None] = []
    for tag, end in zip(tags, ends, strict=False):
        label = _label(answer, tag.pairs[-1].end(), end)
        points += [_point(pair, extent, label) for pair in tag.pairs]
    return [point for point in points if point]


def _loose_points(answer: str, end: int) -> Iterator[SpokenPoint]:
    for match in _LOOSE.finditer(answer):
        if match.start() >= end:
            return
        names = ("cx", "cy") if match.group("cx") else ("bx", "by") if match.group("bx") else None
        point = spoken_point(match, *names, PERCENT) if names else _point(match, PERCENT, "")
        if point:
            yield point


def _point(pair: re.Match[str], extent: Extent, label: str) -> SpokenPoint | None:
    if pair.group("px"):
        return spoken_point(pair, "px", "py", PER_MILLE, label)
    return spoken_point(pair, "x", "y", extent, label)


def _label(answer: str, start: int, end: int) -> str:
    """Words of the tag whose coordinates end at `start`, sought up to `end`; "" if they are cut off.

    They stand in `alt`, or without one between the tags. A quote inside `alt` is told from the closing one by
    the `>` behind the latter.
    """
    if alt := _ALT.match(answer, start, end):
        closing = _ALT_END.search(answer, alt.end(), end)
        return answer[alt.end() : closing.start()].strip() if closing else ""
    if tag_end := _TAG_END.match(answer, start, end):
        inner = answer[tag_end.end() : end]
        return inner[: max(inner.find("</point"), 0)].strip()
    return ""
