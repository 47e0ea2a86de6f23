"""Points in JSON: Qwen-VL, Gemini Robotics-ER and Moondream.

    [{"point_2d": [512, 300], "label": "mug"}]        Qwen-VL: x, y
    [{"point": [300, 512], "label": "mug"}]           Gemini Robotics-ER: y, x
    {"points": [{"x": 0.5, "y": 0.4}]}                Moondream

Answers come with prose and ```json fences around them, end in the middle when tokens run out, and may nest
brackets or digits far deeper than `json.loads` survives. So every point is found by its key alone. Inside a
JSON string that key cannot occur: its quotes would be escaped there.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

from molmo_ros.pointing.spoken_point import NUMBER, Extent, SpokenPoint, spoken_point

_JSON_NUMBER = rf"{NUMBER}(?:[eE][+-]?[0-9]{{1,4}})?"
#: A string, or what a cut answer leaves of one: without its closing quote.
_STRING = r'"(?P<text>(?:[^"\\]++|\\.)*+)(?P<closed>"?)'
_LABEL = re.compile(rf'(?<!\\)"label"\s*+:\s*+{_STRING}', re.DOTALL)
_EMPTY = re.compile(
    r'\s*+(?:```\w*+)?\s*+(?:\[\s*+\]|\{\s*+\}|\{\s*+"points"\s*+:\s*+\[\s*+\]\s*+\})\s*+(?:```)?\s*+'
)


def _pair_under(key: str, first: str, second: str) -> re.Pattern[str]:
    """Matches `"key": [1, 2]`; some models put their numbers in quotes."""
    one, two = (f'"?+(?P<{name}>{_JSON_NUMBER})"?+' for name in (first, second))
    return re.compile(rf'(?<!\\)"{key}"\s*+:\s*+\[\s*+{one}\s*+,\s*+{two}\s*+\]')


_POINT_2D = _pair_under("point_2d", "x", "y")
_POINT_YX = _pair_under("point", "y", "x")
_XY_OBJECT = re.compile(
    rf'(?<!\\)"x"\s*+:\s*+(?P<x>{_JSON_NUMBER})\s*+,\s*+"y"\s*+:\s*+(?P<y>{_JSON_NUMBER})'
    r"(?=\s*+[,}])"
)


def point_2d_points(answer: str, extent: Extent) -> list[SpokenPoint]:
    """All whole points under "point_2d", x first; those outside the extent are dropped."""
    return _points(answer, _POINT_2D, extent)


def point_yx_points(answer: str, extent: Extent) -> list[SpokenPoint]:
    """All whole points under "point", y first; those outside the extent are dropped."""
    return _points(answer, _POINT_YX, extent)


def xy_object_points(answer: str, extent: Extent) -> list[SpokenPoint]:
    """All whole points of the form {"x": ..., "y": ...}; those outside the extent are dropped."""
    return _points(answer, _XY_OBJECT, extent)


def is_empty_list(answer: str) -> bool:
    """Whether the answer is JSON without anything in it: how these models say that a thing is absent."""
    return _EMPTY.fullmatch(answer) is not None


def _points(answer: str, pattern: re.Pattern[str], extent: Extent) -> list[SpokenPoint]:
    matches = list(pattern.finditer(answer))
    points = []
    for index, match in enumerate(matches):
        before = matches[index - 1].end() if index else 0
        after = matches[index + 1].start() if index + 1 < len(matches) else len(answer)
        point = spoken_point(match, "x", "y", extent)
        if point:
            points.append(replace(point, label=_label(answer, (before, match.start()), (match.end(), after))))
    return points


def _label(answer: str, before: tuple[int, int], after: tuple[int, int]) -> str:
    """The "label" of the object that a point stands in: the nearest one with no brace between them."""
    behind = _LABEL.search(answer, *after)
    if behind and _no_brace(answer, after[0], behind.start()):
        return _unescaped(behind)
    ahead = list(_LABEL.finditer(answer, *before))
    if ahead and _no_brace(answer, ahead[-1].end(), before[1]):
        return _unescaped(ahead[-1])
    return ""


def _no_brace(answer: str, start: int, end: int) -> bool:
    return answer.find("{", start, end) < 0 and answer.find("}", start, end) < 0


def _unescaped(label: re.Match[str]) -> str:
    """The text of a JSON string: as it stands if an escape in it is wrong, "" if it is cut off."""
    if not label.group("closed"):
        return ""
    text = label.group("text")
    try:
        read = str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text.strip()
    # Half of a surrogate pair is valid JSON, but no text that could be sent or printed.
    return read.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
