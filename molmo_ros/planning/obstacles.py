"""What an arm must not touch: boxes that are known beforehand, and cells of space that a depth camera saw filled.

Boxes come from a YAML file (`load_boxes`):

    boxes:
      table: {size_m: [1.1, 1.6, 0.1], xyz_m: [0.72, 0.0, -0.05], yaw_rad: 0.0, may_touch: [upper_arm_link]}

`may_touch` names links for which this box is no obstacle. The robot's base always may: moving the arm cannot
change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

#: A cell needs this many points to count as filled: single ones are noise of the depth camera.
FEWEST_POINTS = 3


class ObstacleError(ValueError):
    """A box cannot be used; the message names it and what it takes."""


@dataclass(frozen=True, eq=False)
class Box:
    """A box of `size_m` (x, y, z; edges in its own frame) around the origin of `T_base_box` (4x4)."""

    name: str
    size_m: tuple[float, float, float]
    T_base_box: np.ndarray
    may_touch: tuple[str, ...] = ()

    @classmethod
    def upright(
        cls,
        name: str,
        size_m: tuple[float, float, float],
        centre_m: tuple[float, float, float],
        yaw_rad: float = 0.0,
        may_touch: tuple[str, ...] = (),
    ) -> Box:
        """A box that stands, turned about z."""
        if not (np.isfinite([*size_m, *centre_m, yaw_rad]).all() and min(size_m) > 0):
            raise ObstacleError(
                f"box {name!r}: size {size_m} must be positive, and size, centre and yaw finite"
            )
        c, s = np.cos(yaw_rad), np.sin(yaw_rad)
        T = np.eye(4)
        T[:2, :2] = [[c, -s], [s, c]]
        T[:3, 3] = centre_m
        return cls(name, size_m, T, may_touch)


@dataclass(frozen=True, eq=False)
class Voxels:
    """Filled cells: the middles of cubes of `size_m`, base frame (N, 3)."""

    centres_N3: np.ndarray
    size_m: float

    def __len__(self) -> int:
        return len(self.centres_N3)


def load_boxes(file: Path) -> tuple[Box, ...]:
    """Read boxes from YAML (see the head of this module); raises ObstacleError that names what is wrong."""
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ObstacleError(f"there is no obstacle file {file}") from error
    except yaml.YAMLError as error:
        raise ObstacleError(f"{file} is not YAML: {error}") from error
    if not isinstance(entries, Mapping) or set(entries) != {"boxes"}:
        raise ObstacleError(f"{file} takes one entry, boxes: a name with size_m and xyz_m for each")
    return tuple(_box(str(name), entry, file) for name, entry in (entries["boxes"] or {}).items())


def _box(name: str, entry: Any, file: Path) -> Box:
    known = {"size_m", "xyz_m", "yaw_rad", "may_touch"}
    if not isinstance(entry, Mapping) or not {"size_m", "xyz_m"} <= set(entry) <= known:
        raise ObstacleError(
            f"{file}: box {name!r} takes size_m and xyz_m, and may have yaw_rad and may_touch"
        )
    try:
        sx, sy, sz = (float(value) for value in entry["size_m"])
        x, y, z = (float(value) for value in entry["xyz_m"])
        yaw = float(entry.get("yaw_rad", 0.0))
    except (TypeError, ValueError) as error:
        raise ObstacleError(f"{file}: box {name!r}: size_m and xyz_m take three numbers each") from error
    touch = tuple(str(link) for link in entry.get("may_touch", ()))
    return Box.upright(name, (sx, sy, sz), (x, y, z), yaw, touch)


def voxels_from_points(
    points_base_N3: np.ndarray,
    size_m: float,
    *,
    fewest_points: int = FEWEST_POINTS,
    low_m: tuple[float, float, float] = (-1.5, -1.5, -0.2),
    high_m: tuple[float, float, float] = (1.5, 1.5, 1.5),
) -> Voxels:
    """Cells of `size_m` within the box `low_m` .. `high_m` that hold at least `fewest_points` finite points."""
    points = np.asarray(points_base_N3, dtype=float).reshape(-1, 3)
    inside = (points > low_m).all(axis=1) & (points < high_m).all(axis=1)  # NaN is never inside
    cells, counts = np.unique(np.floor(points[inside] / size_m).astype(np.int64), axis=0, return_counts=True)
    return Voxels((cells[counts >= fewest_points] + 0.5) * size_m, size_m)


def free_to_rest(voxels: Voxels, feet_base_K3: np.ndarray, radius_m: float) -> Voxels:
    """Without the cells that reach above a foot's level from below, within `radius_m` of it: what a thing is put on.

    A surface lies anywhere in its cell, so the cell's top may stand over it by the whole of its size.
    """
    feet, half_m = np.asarray(feet_base_K3, dtype=float).reshape(-1, 3), voxels.size_m / 2
    off = voxels.centres_N3[:, None] - feet
    in_the_way = np.hypot(off[..., 0], off[..., 1]) < radius_m + half_m
    in_the_way &= np.abs(off[..., 2]) < half_m
    return Voxels(voxels.centres_N3[~in_the_way.any(axis=1)], voxels.size_m)


def without_target(points_base_N3: np.ndarray, target_base_M3: np.ndarray, margin_m: float) -> np.ndarray:
    """The points (K, 3) further than `margin_m` from every point of the target: the thing to grasp is no
    obstacle."""
    if len(target_base_M3) == 0 or len(points_base_N3) == 0:
        return points_base_N3
    from scipy.spatial import cKDTree

    distance_m, _ = cKDTree(target_base_M3).query(points_base_N3, distance_upper_bound=margin_m)
    kept: np.ndarray = points_base_N3[~np.isfinite(distance_m)]
    return kept
