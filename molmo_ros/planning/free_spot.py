"""Empty spots of a table, by geometry alone: where a depth camera sees bare table, with room around, within reach.

No model is asked: whether a spot is empty is seen from the support plane. What the camera does not see counts as
taken.
"""

from __future__ import annotations

import cv2
import numpy as np

from molmo_ros.outcome import Code, PointingError
from molmo_ros.planning.table_view import LOWEST_THING_M, TableView

_CELL_M = 0.01
#: The part of the base frame that is searched: x and y, lowest and highest.
_LOW_M, _HIGH_M = np.array([-0.2, -0.9]), np.array([1.0, 0.9])
# A cell is bare table when it and its eight neighbours show so many points of it, and what stands up there is at most
# such a share, or one stray point.
_FEWEST_POINTS = 3
_LARGEST_NOISE_CELLS = 2
_STANDING_SHARE = 0.1
# What lies within this of the table's height tells how noisy heights are; a point that is so many times higher stands.
_TABLE_M = 0.03
_NOISE_SIGMAS, _SIGMA_PER_MEDIAN = 2.5, 1.48
# Room beyond this much more than needed is no better.
_AMPLE_M = 0.06
# Spots that are offered lie so far apart.
_APART_M = 0.08


def free_spots(
    view: TableView, radius_m: float, reach_m: tuple[float, float], *, most: int = 3
) -> list[np.ndarray]:
    """Middles (3,) of empty discs of `radius_m` on the table, best first: the roomiest, then those in the middle
    of the reach. `reach_m`: nearest and furthest distance from the base.

    Raises PointingError(NOT_FOUND) when no such spot is seen.
    """
    bare = _bare_table(view)
    room_m = _CELL_M * cv2.distanceTransform(
        np.pad(bare, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    )[1:-1, 1:-1]
    x, y = np.meshgrid(*(_middles(axis) for axis in (0, 1)), indexing="ij")
    away_m = np.hypot(x, y)
    # A cell's room is counted from its middle, and may end half a cell earlier.
    fits = (room_m - _CELL_M / 2 >= radius_m) & (away_m >= reach_m[0]) & (away_m <= reach_m[1])
    score = np.minimum(room_m, radius_m + _AMPLE_M) - 0.1 * np.abs(away_m - np.mean(reach_m))
    spots: list[np.ndarray] = []
    for cell in np.argsort(-np.where(fits, score, -np.inf), axis=None):
        i, j = np.unravel_index(cell, fits.shape)
        if not fits[i, j] or len(spots) == most:
            break
        spot = np.array([x[i, j], y[i, j], view.table_z_m])
        if all(np.hypot(*(spot - other)[:2]) >= _APART_M for other in spots):
            spots.append(spot)
    if not spots:
        raise PointingError(
            Code.NOT_FOUND,
            f"no empty spot {200 * radius_m:.0f} cm wide is seen {reach_m[0]:.2f} to {reach_m[1]:.2f} m from the "
            "base; clear some of the table, or say a place",
        )
    return spots


def _bare_table(view: TableView) -> np.ndarray:
    """Which cells show nothing but table."""
    points = view.points_base().reshape(-1, 3)
    points = points[np.isfinite(points).all(axis=1)]
    cells = np.floor((points[:, :2] - _LOW_M) / _CELL_M).astype(int)
    shape = np.ceil((_HIGH_M - _LOW_M) / _CELL_M).astype(int)
    inside = np.all((cells >= 0) & (cells < shape), axis=1)
    flat = cells[inside] @ [shape[1], 1]
    height_m = points[inside, 2] - view.table_z_m
    # By single points nothing is seen to stand that is lower than the noise, which the table itself shows.
    off_m = np.abs(height_m)[np.abs(height_m) < _TABLE_M]
    noise_m = _SIGMA_PER_MEDIAN * float(np.median(off_m)) if len(off_m) else 0.0
    high = np.abs(height_m) > max(LOWEST_THING_M, _NOISE_SIGMAS * noise_m)
    seen, standing, level = (
        cv2.boxFilter(
            np.bincount(flat, weights, int(shape.prod())).reshape(shape),
            *(-1, (3, 3)),
            normalize=False,
            borderType=cv2.BORDER_CONSTANT,
        )
        for weights in (np.ones(len(flat)), high.astype(float), np.where(high, 0.0, height_m))
    )
    stray = np.maximum(_STANDING_SHARE * seen, 1.0)
    bare: np.ndarray = (seen - standing >= _FEWEST_POINTS) & (standing <= stray)
    bare &= np.abs(level) <= LOWEST_THING_M * (seen - standing)
    # What stands in one cell is counted in the nine around it, so that smaller holes are noise at the threshold.
    _, hole, sizes, _ = cv2.connectedComponentsWithStats((~bare).astype(np.uint8))
    return bare | (sizes[hole, cv2.CC_STAT_AREA] <= _LARGEST_NOISE_CELLS)


def _middles(axis: int) -> np.ndarray:
    count = int(np.ceil((_HIGH_M[axis] - _LOW_M[axis]) / _CELL_M))
    return _LOW_M[axis] + _CELL_M * (np.arange(count) + 0.5)
