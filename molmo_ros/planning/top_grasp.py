"""Ways to take a thing from straight above, searched over a height map of what the hand sees.

Wherever both fingers find room to go down, and something stands between them, a gripper can close: around the
whole thing, or around a part of it, such as the wall of a bowl that is wider than the gripper. Room is judged by
heights alone, whoever they belong to; only what is closed upon must be of the thing itself. Cells that nobody
saw are taken for free, and grasps beside them come last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CELL_M = 0.002
#: Directions of closing that are tried, over half a turn: around the whole thing, and around a part of it.
DIRECTIONS = 24
PART_DIRECTIONS = 12
#: Of the fingers' depth, how much goes down beside a part of a thing.
PART_DEPTHS = (0.35, 0.7)
#: Places on the thing that are tried for closing around a part of it.
PLACES = 40
_HALF_WINDOW_M = 0.11
# Less of the thing than this between the fingers is no hold.
_LEAST_HOLD_M = 0.006
# A cell's height is that of so many in ten of its points: above are flying pixels. With fewer points it was not seen.
_HEIGHT_SHARE = 0.7
_FEWEST_POINTS = 3
# What reaches this little above the tips' level is noise, or slides away.
_SLACK_M = 0.002


@dataclass(frozen=True)
class Fingers:
    """Two parallel fingers (metres): how far they open, how thick (along the closing) and wide (across it) they are,
    how far they go below a thing's top, what they keep from the table, and how much room they want beside what
    they close around: `least_room_m` at least, `ample_room_m` is plenty."""

    max_opening_m: float = 0.078
    thickness_m: float = 0.017
    width_m: float = 0.022
    depth_m: float = 0.030
    clearance_m: float = 0.005
    least_room_m: float = 0.003
    ample_room_m: float = 0.010


@dataclass(frozen=True, eq=False)
class TopGrasp:
    """`T_base_grasp` (4x4; z = approach down, x = closing, origin between the finger tips), the width that is closed
    upon, how far to open before, and a score: more is better."""

    T_base_grasp: np.ndarray
    width_m: float
    opening_m: float
    score: float
    around_all: bool


def top_grasps(
    points_base_N3: np.ndarray,
    own_base_M3: np.ndarray,
    table_z_m: float,
    fingers: Fingers | None = None,
) -> tuple[TopGrasp, ...]:
    """Grasps of the thing with points `own_base_M3` among all that is seen, best first; none when nothing fits.

    Best: around the whole thing before a part of it, near its middle, with room for the fingers.
    """
    fingers = fingers or Fingers()
    if len(own_base_M3) == 0:
        return ()
    top_m = np.percentile(own_base_M3[:, 2], 98)
    upper = own_base_M3[own_base_M3[:, 2] > top_m - 0.4 * max(top_m - table_z_m, 0.01)]
    middle = (np.percentile(upper[:, :2], 2, axis=0) + np.percentile(upper[:, :2], 98, axis=0)) / 2
    heights = _Heights(points_base_N3, own_base_M3, middle, table_z_m)
    found = []
    places = _spread(upper, PLACES)
    for direction in np.arange(DIRECTIONS) * np.pi / DIRECTIONS:
        found += _around_all(heights, middle, direction, fingers)
    for direction in np.arange(PART_DIRECTIONS) * np.pi / PART_DIRECTIONS:
        for place in places:
            for share in PART_DEPTHS:
                found += _around_part(heights, place[:2], direction, fingers, share, middle)
    return tuple(sorted(found, key=lambda grasp: -grasp.score))


class _Heights:
    """Heights on a grid around the thing, and which cells are the thing's."""

    def __init__(
        self, points_N3: np.ndarray, own_M3: np.ndarray, middle: np.ndarray, table_z_m: float
    ) -> None:
        self.table_z_m = table_z_m
        self._origin = middle - _HALF_WINDOW_M
        self._count = int(2 * _HALF_WINDOW_M / CELL_M)
        self._grid = np.full((self._count, self._count), -np.inf)
        self._own = np.zeros((self._count, self._count), bool)
        cells, inside = self._cells(points_N3)
        flat = cells[inside] @ [self._count, 1]
        heights = points_N3[inside, 2]
        order = np.lexsort((heights, flat))
        flat, heights = flat[order], heights[order]
        seen, starts, counts = np.unique(flat, return_index=True, return_counts=True)
        enough = counts >= _FEWEST_POINTS
        ranks = starts[enough] + np.floor(_HEIGHT_SHARE * (counts[enough] - 1)).astype(int)
        self._grid.flat[seen[enough]] = heights[ranks]
        cells, inside = self._cells(own_M3)
        self._own[cells[inside, 0], cells[inside, 1]] = True

    def _cells(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(invalid="ignore"):
            cells = np.floor((points[:, :2] - self._origin) / CELL_M)
        inside = np.logical_and(cells >= 0, cells < self._count)
        inside = np.asarray(np.all(inside, axis=1))
        return np.where(inside[:, None], cells, 0).astype(int), inside

    def strip(
        self, centre: np.ndarray, direction: float, half_length_m: float, half_width_m: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Along a direction: positions (n,), the highest point across the strip at each, whether it is the thing's,
        and the share of cells that nobody saw."""
        x = np.arange(-half_length_m, half_length_m + CELL_M / 2, CELL_M)
        y = np.arange(-half_width_m, half_width_m + CELL_M / 2, CELL_M)
        c, s = np.cos(direction), np.sin(direction)
        at = np.stack(
            [centre[0] + c * x[:, None] - s * y[None], centre[1] + s * x[:, None] + c * y[None]], axis=-1
        )
        cells, inside = self._cells(at.reshape(-1, 2))
        heights = np.where(inside, self._grid[cells[:, 0], cells[:, 1]], -np.inf).reshape(len(x), len(y))
        own = (self._own[cells[:, 0], cells[:, 1]] & inside).reshape(len(x), len(y))
        return x, heights.max(axis=1), own.any(axis=1), (~np.isfinite(heights)).mean(axis=1)


def _around_all(heights: _Heights, middle: np.ndarray, direction: float, fingers: Fingers) -> list[TopGrasp]:
    """Closing on the thing from its outermost sides."""
    x, high, own, unseen = heights.strip(middle, direction, 0.075, fingers.width_m / 2)
    mine = own & (high > heights.table_z_m + 0.006)
    if not mine.any():
        return []
    top = float(high[mine].max())
    tip = max(top - fingers.depth_m, heights.table_z_m + fingers.clearance_m)
    held = mine & (high > tip + _SLACK_M)
    if not held.any() or top - tip < _LEAST_HOLD_M:
        return []
    first, last = int(np.flatnonzero(held)[0]), int(np.flatnonzero(held)[-1])
    return _closed(heights, middle, direction, fingers, (x, high, unseen), first, last, tip, middle, True)


def _around_part(
    heights: _Heights,
    place: np.ndarray,
    direction: float,
    fingers: Fingers,
    depth_share: float,
    middle: np.ndarray,
) -> list[TopGrasp]:
    """Closing on what stands at one place of the thing, up to the next gap on either side."""
    x, high, own, unseen = heights.strip(place, direction, 0.075, fingers.width_m / 2)
    here = len(x) // 2
    top = float(high[here])
    tip = max(top - depth_share * fingers.depth_m, heights.table_z_m + fingers.clearance_m)
    occupied = high > tip + _SLACK_M
    if not (own[here] and occupied[here]) or top - tip < _LEAST_HOLD_M:
        return []
    first = last = here
    while first > 0 and occupied[first - 1]:
        first -= 1
    while last < len(x) - 1 and occupied[last + 1]:
        last += 1
    if not own[first : last + 1].all():
        return []  # it is joined to something else
    return _closed(heights, place, direction, fingers, (x, high, unseen), first, last, tip, middle, False)


def _closed(
    heights: _Heights,
    centre: np.ndarray,
    direction: float,
    fingers: Fingers,
    strip: tuple[np.ndarray, np.ndarray, np.ndarray],
    first: int,
    last: int,
    tip_m: float,
    middle: np.ndarray,
    around_all: bool,
) -> list[TopGrasp]:
    """The grasp that closes from cell `first` to `last` of a strip, if both fingers find room beside them."""
    x, high, unseen = strip
    width = float(x[last] - x[first]) + CELL_M
    free = high < tip_m - 0.001
    rooms = []
    for start, step in ((first - 1, -1), (last + 1, 1)):
        cell, room = start, 0.0
        while 0 <= cell < len(x) and free[cell]:
            room += CELL_M
            cell += step
        rooms.append(room - fingers.thickness_m)
    room = min(*rooms, (fingers.max_opening_m - width) / 2, fingers.ample_room_m)
    if room < fingers.least_room_m:
        return []
    shift = (x[first] + x[last]) / 2
    c, s = np.cos(direction), np.sin(direction)
    at = centre + shift * np.array([c, s])
    aside = float(np.hypot(*(at - middle)))
    beside = max(round(fingers.thickness_m / CELL_M), 1)
    hidden = float(np.mean([*unseen[max(first - beside, 0) : first], *unseen[last + 1 : last + 1 + beside]]))
    score = (1.0 if around_all else 0.0) - 8.0 * aside - 2.0 * width + 20.0 * room - 0.3 * hidden
    T = np.eye(4)
    T[:3, :3] = np.array([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, -1.0]])
    T[:3, 3] = [*at, tip_m]
    return [TopGrasp(T, width, width + 2 * room, score, around_all)]


def _spread(points_N3: np.ndarray, count: int) -> np.ndarray:
    """So many of the points, evenly over their order."""
    return points_N3[np.linspace(0, len(points_N3) - 1, min(count, len(points_N3))).astype(int)]
