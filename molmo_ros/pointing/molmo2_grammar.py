r"""Points in the words of Molmo2: pictures, several pictures, videos and tracks, and its two legacy forms.

    <points coords="1 1 900 400 2 911 800">cups</points>                 one picture
    <points coords="1 1 555 169;2 2 649 154 3 709 162">boats</points>    two pictures
    <tracks coords="0.0 1 635 522;0.5 1 606 490 2 511 124">cars</tracks> a video
    <points alt="free text" coords="...">cups</points>
    <points cups\t-\t1 99.0 80.0/>                                       compact_v1, percent
    <points cups\t-\t1 990 800/>                                         compact_v2, per mille

In `coords` every group begins with the number of its picture or, with a decimal point, its seconds; triples
of object number, x and y follow, per mille of width and height. Released models put `;` between groups
("html-v2"), pre-trained ones a tab ("html-v1"); `:` and `,` are read as well, as in AI2's own reader
(allenai/molmo2, `olmo/preprocessing/point_formatter.py`). MolmoPoint's tokens in the same tag are no numbers
and yield nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from molmo_ros.pointing.spoken_point import NUMBER, PER_MILLE, Extent, SpokenPoint, spoken_point

_OPENING = re.compile(r"<(points?|tracks?)\s++(?=(?:alt|coords)\s*+=)")
_COORDS = re.compile(r'coords\s*+=\s*+"')
_ALT = re.compile(r'alt\s*+=\s*+"')
_ALT_END = re.compile(r'"\s*+coords\s*+=\s*+"')
_TAG_END = re.compile(r'"\s*+/?>')
_TAG_CLOSE = re.compile(r"</(?:point|track)")
_GROUP = re.compile(r" *+([0-9]{1,9})(\.[0-9]{1,9})?(?= )")
_TO_NEXT_GROUP = re.compile(r'[^"<\t:;,]*+[\t:;,]')
# A number counts only with its end in sight: 100 at the end of a cut answer may have become 1000.
_TRIPLE = re.compile(r' ++([0-9]{1,9}) ++(-?[0-9]{1,4}) ++(-?[0-9]{1,4})(?=[ \t:;,"])')

_COMPACT_OPENING = re.compile(r"<points(?=\s)")
_COMPACT_WORDS = re.compile(r"\s([^\t]*+)\t([^\t]*+)\t")
_COMPACT_TRIPLE = re.compile(rf" *+([0-9]{{1,9}}) ++({NUMBER}) ++({NUMBER})(?=[ /])")


def molmo2_points(answer: str) -> list[SpokenPoint]:
    """All whole points of `<points coords=...>` and `<tracks coords=...>` tags, with picture, time and object.

    The label is `alt` where given, else the text inside the tag. Points outside 0..1000 are dropped.
    """
    openings = list(_OPENING.finditer(answer))
    points = []
    for opening, end in zip(openings, _ends(openings, answer), strict=True):
        alt = _ALT.match(answer, opening.end(), end)
        coords = (_ALT_END.search if alt else _COORDS.match)(answer, alt.end() if alt else opening.end(), end)
        if coords is None:
            continue
        is_track = opening.group(1).startswith("track")
        triples = list(_triples(answer, coords.end(), end, is_track))
        if not triples:
            continue
        coords_end = triples[-1].match.end()
        words = answer[alt.end() : coords.start()] if alt else _inner_text(answer, coords_end, end)
        label = words.strip()
        points += [triple.point(label) for triple in triples]
    return [point for point in points if point]


def compact_points(answer: str, extent: Extent) -> list[SpokenPoint]:
    """All whole points of the legacy forms; the label is the second field, or the first where that is "-".

    Args:
        answer: what the model said.
        extent: `PERCENT` for compact_v1, `PER_MILLE` for compact_v2.
    """
    openings = list(_COMPACT_OPENING.finditer(answer))
    points = []
    for opening, end in zip(openings, _ends(openings, answer), strict=True):
        words = _COMPACT_WORDS.match(answer, opening.end(), end)
        if words is None:
            continue
        label = (words.group(1) if words.group(2).strip() == "-" else words.group(2)).strip()
        position = words.end()
        while triple := _COMPACT_TRIPLE.match(answer, position, end):
            points.append(spoken_point(triple, 2, 3, extent, label, object_id=int(triple.group(1))))
            position = triple.end()
    return [point for point in points if point]


def _ends(openings: list[re.Match[str]], answer: str) -> list[int]:
    """Where each tag's text ends at the latest: at the next opening."""
    return [opening.start() for opening in openings[1:]] + ([len(answer)] if openings else [])


class _Triple(NamedTuple):
    """Object number, x and y, and the picture or the time that their group begins with."""

    match: re.Match[str]
    image: int | None
    time_s: float | None

    def point(self, label: str) -> SpokenPoint | None:
        object_id = int(self.match.group(1))
        return spoken_point(self.match, 2, 3, PER_MILLE, label, self.image, self.time_s, object_id)


def _triples(answer: str, start: int, end: int, is_track: bool) -> Iterator[_Triple]:
    """What stands in one `coords` value. A group with a fault in it keeps what came before the fault."""
    position = start
    while True:
        if group := _GROUP.match(answer, position, end):
            position = group.end()
            timed = is_track or group.group(2) is not None
            image = None if timed else int(group.group(1))
            time_s = float(group.group(1) + (group.group(2) or "")) if timed else None
            while triple := _TRIPLE.match(answer, position, end):
                position = triple.end()
                yield _Triple(triple, image, time_s)
        separator = _TO_NEXT_GROUP.match(answer, position, end)
        if separator is None:
            return
        position = separator.end()


def _inner_text(answer: str, start: int, end: int) -> str:
    """Text between `coords` and the closing tag, or up to `end` if that is missing."""
    tag_end = _TAG_END.search(answer, start, end)
    if tag_end is None:
        return ""
    close = _TAG_CLOSE.search(answer, tag_end.end(), end)
    return answer[tag_end.end() : close.start()] if close else ""
