"""What a camera sees of a table whose height is known: its own pose made level with it, what stands on it, and
whether a place is empty.

A camera that is mounted a degree off sees a tilted table. Turned about itself and lifted until the table lies
where it is known to lie, two of its three angles and its height are right again; what is left is its turn about
the vertical and its place on the level.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from molmo_ros.geometry.frame import Frame
from molmo_ros.geometry.rotation import from_rotation_vector
from molmo_ros.geometry.support_plane import PlanePrior, SupportPlane, fit_support_plane
from molmo_ros.outcome import Code, PointingError

#: A camera's pose may be wrong by this much and still be made level.
MOST_TILT_RAD = 0.06
MOST_LIFT_M = 0.06
#: What rises less than this above the table is the table.
LOWEST_THING_M = 0.008
_SMALLEST_THING_PX = 40
_SPECK_M = 0.008
# Pixels of the depth image that are looked at for obstacles: one in so many, both ways.
_STRIDE = 2
_FLYING_PERCENT = 5
# So far behind a point must be what is seen there, that the point is gone and not only noisy.
_SEEN_PAST_M = 0.03


@dataclass(frozen=True, eq=False)
class Sight:
    """One look: the frame, and where its camera was in the arm's base (4x4)."""

    frame: Frame
    T_base_camera: np.ndarray


@dataclass(frozen=True, eq=False)
class TableView:
    """A sight made level with the table at height `table_z_m` (base frame); `support` in the camera's frame."""

    sight: Sight
    support: SupportPlane
    table_z_m: float

    @property
    def frame(self) -> Frame:
        return self.sight.frame

    @property
    def T_base_camera(self) -> np.ndarray:
        return self.sight.T_base_camera

    def points_base(self) -> np.ndarray:
        """Where each pixel's surface is (H, W, 3), NaN without depth."""
        frame = self.frame
        assert frame.depth_m is not None
        height, width = frame.depth_m.shape
        xy = frame.camera.normalised_window(0, 0, width, height)
        z = frame.depth_m[..., None].astype(float)
        T = self.T_base_camera
        points = np.concatenate([xy * z, z], axis=-1) @ T[:3, :3].T + T[:3, 3]
        return np.where(np.isfinite(z), points, np.nan)

    def thing_near(self, place_base_m: np.ndarray, within_m: float) -> np.ndarray | None:
        """Points (N, 3) of what stands nearest to a place on the level, if that is within `within_m` of it.

        One thing is what hangs together in the image without a step in depth."""
        points = self.points_base()
        standing = points[..., 2] > self.table_z_m + LOWEST_THING_M
        aside = np.hypot(points[..., 0] - place_base_m[0], points[..., 1] - place_base_m[1])
        near = standing & (aside < within_m + 0.1)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(near.astype(np.uint8), connectivity=4)
        large = [n for n in range(1, count) if stats[n, cv2.CC_STAT_AREA] >= _SMALLEST_THING_PX]
        distance = {n: float(np.nanpercentile(aside[labels == n], 2)) for n in large}
        if not distance or min(distance.values()) > within_m:
            return None
        # A speck may lie nearer than the thing that it belongs to.
        near_enough = min(distance.values()) + _SPECK_M
        largest = max(
            (n for n in large if distance[n] <= near_enough), key=lambda n: int(stats[n, cv2.CC_STAT_AREA])
        )
        thing: np.ndarray = points[labels == largest]
        return thing

    def filled_share(self, centre_base_m: np.ndarray, radius_m: float, least_height_m: float) -> float:
        """Of the depth seen within a circle on the level: the share that rises above `least_height_m`; NaN when
        hardly anything is seen there."""
        points = self.points_base()[::_STRIDE, ::_STRIDE].reshape(-1, 3)
        inside = np.hypot(points[:, 0] - centre_base_m[0], points[:, 1] - centre_base_m[1]) < radius_m
        if inside.sum() < 20:
            return float("nan")
        return float((points[inside, 2] > self.table_z_m + least_height_m).mean())

    def height_within(self, centre_base_m: np.ndarray, radius_m: float) -> float:
        """How high things rise above the table within a circle on the level; 0 where nothing stands."""
        points = self.standing_points()
        inside = np.hypot(*(points[:, :2] - centre_base_m[:2]).T) < radius_m
        return height_of(points[inside], self.table_z_m) if inside.any() else 0.0

    def seen_through(self, points_base_N3: np.ndarray) -> np.ndarray:
        """Which of the points (N,) the camera looks past: nothing is there any more. What something hides, or what
        lies at the edge of something or of the picture, may still be there."""
        frame, gone = self.frame, np.zeros(len(points_base_N3), bool)
        assert frame.depth_m is not None
        in_camera = (points_base_N3 - self.T_base_camera[:3, 3]) @ self.T_base_camera[:3, :3]
        ahead = np.flatnonzero(in_camera[:, 2] > 0.0)
        u, v = np.rint(frame.camera.project(in_camera[ahead])).T
        height, width = frame.depth_m.shape
        inside = (u >= 1) & (u < width - 1) & (v >= 1) & (v < height - 1)
        ahead, u, v = ahead[inside], u[inside].astype(int), v[inside].astype(int)
        nearest_m = cv2.erode(np.nan_to_num(frame.depth_m, nan=0.0), np.ones((3, 3), np.uint8))
        gone[ahead] = nearest_m[v, u] > in_camera[ahead, 2] + _SEEN_PAST_M
        return gone

    def standing_points(self) -> np.ndarray:
        """What rises above the table (N, 3)."""
        points = self.points_base()[::_STRIDE, ::_STRIDE].reshape(-1, 3)
        standing: np.ndarray = points[points[:, 2] > self.table_z_m + 0.012]
        return standing


def height_of(points_base_N3: np.ndarray, table_z_m: float) -> float:
    """How high they rise above the table, but for those that fly: from afar three in a hundred may."""
    return float(np.percentile(points_base_N3[:, 2], 100 - _FLYING_PERCENT)) - table_z_m


def level_view(sight: Sight, table_z_m: float = 0.0) -> TableView:
    """The sight with its camera's pose corrected by the table.

    Raises PointingError: NO_DEPTH or AMBIGUOUS_DEPTH where no table is seen, TF_UNAVAILABLE where it lies so far
    from where it should that the camera's pose cannot be meant.
    """
    frame, T = sight.frame, sight.T_base_camera
    if frame.depth_m is None:
        raise PointingError(Code.NO_DEPTH, "the frame has no depth image")
    support = fit_support_plane(frame.depth_m, frame.camera, PlanePrior.from_gravity(T, 2 * MOST_TILT_RAD))
    normal = T[:3, :3] @ support.normal_cam
    tilt = float(np.arccos(np.clip(normal[2], -1.0, 1.0)))
    axis = np.cross(normal, [0.0, 0.0, 1.0])
    length = float(np.linalg.norm(axis))
    turn = from_rotation_vector(axis / length * tilt) if length > 1e-9 else np.eye(3)
    level = T.copy()
    level[:3, :3] = turn @ T[:3, :3]
    lift = table_z_m - (support.offset_m + float((level[:3, :3] @ support.normal_cam) @ level[:3, 3]))
    level[2, 3] += lift
    if tilt > MOST_TILT_RAD or abs(lift) > MOST_LIFT_M:
        raise PointingError(
            Code.TF_UNAVAILABLE,
            f"the table is seen {np.degrees(tilt):.1f} degrees tilted and {1e3 * abs(lift):.0f} mm off its height: "
            "the camera's pose is wrong; run molmo_ros calibrate",
        )
    return TableView(replace(sight, T_base_camera=level), support, table_z_m)
