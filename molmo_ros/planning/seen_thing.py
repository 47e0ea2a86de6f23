"""A thing as depth shows it: which points are its own, how high and wide it is, and whether it still stands there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from molmo_ros.geometry.gripper_room import Gripper
from molmo_ros.geometry.locate import Located, locate
from molmo_ros.outcome import Code, PointingError
from molmo_ros.planning.motion import HeldBox
from molmo_ros.planning.table_view import TableView
from molmo_ros.pointing.point import Point2D

#: A thing's points count as its own this far outside of its outline.
OWN_MARGIN_M = 0.012
# Half the width of a thing whose outline cannot be told from afar.
_UNKNOWN_REACH_M = 0.05
# Fewer points than this, or cells, say nothing about a place.
_FEWEST_POINTS = 30
_FEWEST_CELLS = 12
_CELL_M = 0.006
# A thing lower than this is looked at whole.
_LOW_M = 0.03
# A cell belongs to what was put down when it rose by this share of the thing's height, and so many cells, as a
# share of the square around the thing, make a thing.
_RISEN_SHARE = 0.35
_SEEN_SHARE = 0.5
_THING_SHARE = 0.08


@dataclass(frozen=True, eq=False)
class SeenThing:
    """The thing as last seen: its points (N, 3), the middle of its top (3,), its height above the table, and how
    wide it is at most."""

    own_base_N3: np.ndarray
    middle_base: np.ndarray
    height_m: float
    extent_m: float

    @classmethod
    def of(cls, own_base_N3: np.ndarray, table_z_m: float) -> SeenThing:
        """From its points, seen from above."""
        top = float(np.percentile(own_base_N3[:, 2], 98))
        # Of a tall thing a view from aside shows flanks; a low one may be thick at one end only.
        upper = own_base_N3[own_base_N3[:, 2] > top - max(0.4 * (top - table_z_m), _LOW_M)]
        low, high = np.percentile(upper[:, :2], 2, axis=0), np.percentile(upper[:, :2], 98, axis=0)
        middle = np.array([*(low + high) / 2, top])
        return cls(own_base_N3, middle, top - table_z_m, float(np.hypot(*(high - low))))

    def seen_too(self, view: TableView) -> SeenThing:
        """With what another view shows of it: from above a thing hides its own sides."""
        reach_m = self.extent_m / 2 + OWN_MARGIN_M
        more = view.thing_near(self.middle_base, reach_m)
        if more is None:
            return self
        return replace(
            self, own_base_N3=np.concatenate([self.own_base_N3, within(more, self.middle_base, reach_m)])
        )

    def held_at(self, T_base_tool: np.ndarray, table_z_m: float) -> HeldBox:
        """The box that the hand carries once it has closed around the thing at this pose."""
        above_foot = float(T_base_tool[2, 3]) - table_z_m
        wide = float(np.clip(0.75 * self.extent_m, 0.02, 0.2))
        aside = T_base_tool[:3, :3].T @ [*(self.middle_base - T_base_tool[:3, 3])[:2], 0.0]
        return HeldBox((wide, wide, above_foot), (*aside[:2], above_foot / 2 - 0.002))


def located_in(view: TableView, point: Point2D) -> Located:
    """Where the thing at a point is. Raises PointingError when depth does not tell."""
    located = locate(view.frame, point, view.T_base_camera, support=view.support, gripper=Gripper())
    if not np.isfinite(located.position_base_m).all():
        raise PointingError(located.outcome.code, located.outcome.message)
    return located


def thing_at(view: TableView, located: Located) -> SeenThing:
    """The thing as far as it can be told from afar: what stands within its footprint. Raises PointingError(NO_DEPTH)
    when nothing stands there."""
    middle, reach = np.array(located.position_base_m), _UNKNOWN_REACH_M
    if located.grasp is not None:
        footprint = located.grasp.footprint
        top = np.array(located.grasp.top_base_m)
        half = float(np.hypot(footprint.width_m, footprint.length_m)) / 2
        # A footprint that the point does not lie in is another thing's.
        if np.hypot(*(top - middle)[:2]) < half + OWN_MARGIN_M:
            middle, reach = top, half
    own = view.thing_near(middle, reach + OWN_MARGIN_M)
    if own is None and reach < _UNKNOWN_REACH_M:
        # An unevenness where a bowl's floor was pointed at is not the thing.
        middle, reach = np.array(located.position_base_m), _UNKNOWN_REACH_M
        own = view.thing_near(middle, reach + OWN_MARGIN_M)
    if own is None:
        raise PointingError(
            Code.NO_DEPTH, "nothing stands on the table where the model points; point at a thing"
        )
    own = within(own, middle, reach + OWN_MARGIN_M)
    height = float(np.percentile(own[:, 2], 98)) - view.table_z_m
    return SeenThing(own, middle, height, 2 * reach)


def within(points_N3: np.ndarray, middle: np.ndarray, radius_m: float) -> np.ndarray:
    """Those of the points that lie so near to a middle on the level; all, if none does."""
    inside = np.hypot(points_N3[:, 0] - middle[0], points_N3[:, 1] - middle[1]) < radius_m
    return points_N3[inside] if inside.any() else points_N3


def still_stands(points_base_N3: np.ndarray, thing: SeenThing, table_z_m: float) -> bool:
    """Whether something as high as the thing stands where it was; False as well where too little is seen."""
    low = points_base_N3[points_base_N3[:, 2] < table_z_m + thing.height_m + 0.02]
    there = np.hypot(*(low[:, :2] - thing.middle_base[:2]).T) < 0.3 * thing.extent_m
    if there.sum() < _FEWEST_POINTS:
        return False
    return float((low[there, 2] > table_z_m + 0.5 * thing.height_m).mean()) > 0.5


def has_arrived(
    before_N3: np.ndarray, after_N3: np.ndarray, place_base: np.ndarray, thing: SeenThing
) -> bool | None:
    """Whether something of about the thing's size stands at a place now that did not before; None when too little of
    the place is seen to tell. Points (N, 3) of one standing camera, without the arm."""
    half_m = 0.5 * thing.extent_m + 0.02
    low, high = (_heights(points, place_base, half_m) for points in (before_N3, after_N3))
    rise = high - low
    seen = np.isfinite(rise)
    # Where it stands itself: what lies around may be seen well, and this beyond the picture's edge.
    across = np.arange(len(rise)) - (len(rise) - 1) / 2
    own = np.hypot(across[:, None], across) * _CELL_M < thing.extent_m / 2
    own_seen = float(seen[own].mean())
    if seen.sum() < max(_FEWEST_CELLS, 0.3 * rise.size) or own_seen < _SEEN_SHARE:
        return None
    risen_m2 = float((rise[seen] > _RISEN_SHARE * thing.height_m).sum()) * _CELL_M**2
    return risen_m2 > _THING_SHARE * own_seen * thing.extent_m**2


def _heights(points_N3: np.ndarray, place_base: np.ndarray, half_m: float) -> np.ndarray:
    """Heights on a grid around a place (n, n), NaN where nothing is seen."""
    count = int(np.ceil(2 * half_m / _CELL_M))
    with np.errstate(invalid="ignore"):
        cells = np.floor((points_N3[:, :2] - place_base[:2] + half_m) / _CELL_M)
    inside = np.logical_and(cells >= 0, cells < count).all(axis=1)
    flat = cells[inside].astype(int) @ [count, 1]
    heights = points_N3[inside, 2]
    sums, seen = np.bincount(flat, heights, count**2), np.bincount(flat, minlength=count**2)
    return np.where(seen > 0, sums / np.maximum(seen, 1), np.nan).reshape(count, count)
