"""Florence-2's location tokens: boxes and outlines, of which the centre is the point.

    red mug<loc_100><loc_200><loc_300><loc_400>                          a box: left, top, right, bottom
    red mug<loc_1><loc_2><loc_9><loc_2><loc_9><loc_8><sep>...</s>        an outline: x, y of each corner

There are 1000 bins per side, and bin b means (b + 0.5) / 1000 of it. Boxes and outlines look alike, eight
tokens may be two boxes or four corners: the task that was asked for says which. Special tokens (`<sep>`,
`</poly>`, `</s>`) must be kept when the answer is decoded, since only they show that an outline is whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from molmo_ros.pointing.spoken_point import PER_MILLE, SpokenPoint

_BINS = 1000
_LOCATION = re.compile(r"<loc_([0-9]{1,9})>")
_SPECIAL = re.compile(r"</?(?:s|pad|poly|sep|od|box|bbox)>")


def box_points(answer: str) -> list[SpokenPoint]:
    """Centres of all whole boxes. The spans are those of the left and the top edge's numbers."""
    points = []
    for label, run in _runs(answer):
        for start in range(0, len(run) - 3, 4):
            points += _centre(run[start : start + 4], label)
    return points


def outline_points(answer: str) -> list[SpokenPoint]:
    """Centres of the boxes around all whole outlines; the spans are those of their first corner's numbers.

    An outline that nothing follows may have lost its last corners to a token limit and is left out.
    """
    points = []
    for label, run in _runs(answer):
        end = run[-1].end()
        if len(run) >= 6 and len(run) % 2 == 0 and not "<loc_".startswith(answer[end : end + 5]):
            points += _centre(run, label)
    return points


def _runs(answer: str) -> Iterator[tuple[str, list[re.Match[str]]]]:
    """Location tokens that stand side by side, with the words before them.

    A run without words of its own, as behind `<sep>`, is another part of what was named before.
    """
    run: list[re.Match[str]] = []
    label, words_from = "", 0
    for location in _LOCATION.finditer(answer):
        if run and run[-1].end() != location.start():
            yield label, run
            words_from, run = run[-1].end(), []
        if not run:
            label = _SPECIAL.sub("", answer[words_from : location.start()]).strip() or label
        run.append(location)
    if run:
        yield label, run


def _centre(corners: Sequence[re.Match[str]], label: str) -> list[SpokenPoint]:
    """The centre in percent, or nothing if a bin does not exist."""
    bins = [int(corner.group(1)) for corner in corners]
    if max(bins) >= _BINS:
        return []
    x, y = ((min(side) + max(side) + 1) / 2 * 100 / _BINS for side in (bins[::2], bins[1::2]))
    return [SpokenPoint(x, y, label, corners[0].span(1), corners[1].span(1), PER_MILLE)]
