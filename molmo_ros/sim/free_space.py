"""Where the table is free: seen, on the table top, and clear of everything that stands on it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from molmo_ros.sim.mujoco_model import TABLE_CENTRE_M, TABLE_HALF_M
from molmo_ros.sim.scene import SceneObject, SceneState

#: What keeps this distance from a thing's footprint is clear of it.
CLEAR_M = 0.01

#: Things must not be put on the edge of the table, nor against the foot of the arm.
EDGE_M, ARM_FOOT_M = 0.03, 0.10

_FLAT_M = 0.004


def free_table(
    state: SceneState,
    depth_m_HW: NDArray[np.float32],
    ids_HW: NDArray[np.int32],
    *,
    clear_m: float = CLEAR_M,
    every: int = 1,
) -> NDArray[np.bool_]:
    """The pixels that show free table; with `every` > 1 only every so many-th pixel of each row and column.

    `depth_m_HW` (along the optical axis, without noise) and `ids_HW` are those of the rendered scene.
    """
    height, width = ids_HW.shape
    v, u = np.mgrid[0:height:every, 0:width:every]
    K, T = state.camera.K((width, height)), state.camera.T_base_camera
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], axis=-1)
    points = rays * depth_m_HW[::every, ::every, None] @ T[:3, :3].T + T[:3, 3]
    xy = points[..., :2]
    with np.errstate(invalid="ignore"):
        free = (np.abs(points[..., 2]) < _FLAT_M) & (ids_HW[::every, ::every] == 0)
    free &= (np.abs(xy - TABLE_CENTRE_M) < np.array(TABLE_HALF_M[:2]) - EDGE_M).all(axis=-1)
    free &= np.hypot(xy[..., 0], xy[..., 1]) > ARM_FOOT_M
    for thing in state.objects:
        free &= ~(_distance_m(xy, thing) < clear_m)
    return np.asarray(free)


def _distance_m(xy: NDArray[np.float64], thing: SceneObject) -> NDArray[np.float64]:
    """From points on the table to the thing's footprint: a circle, or a rectangle where it is long."""
    away = xy - np.array(thing.centre_m[:2])
    if thing.shape.half_m is None:
        return np.asarray(np.hypot(away[..., 0], away[..., 1]) - thing.shape.reach_m)
    c, s = np.cos(thing.yaw_rad), np.sin(thing.yaw_rad)
    own = np.abs(away @ np.array([[c, -s], [s, c]])) - np.array(thing.shape.half_m)
    return np.asarray(np.linalg.norm(np.maximum(own, 0), axis=-1) + np.minimum(own.max(axis=-1), 0))


def emptiest_spot(free_HW: NDArray[np.bool_], least_share: float = 0.03) -> tuple[float, float] | None:
    """(u, v) of the middle of the widest free place, or None where none is wide enough.

    `least_share`: how far the nearest pixel that is not free, or the picture's edge, must be, of its width.
    """
    framed = np.pad(free_HW.astype(np.uint8), 1)
    room = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(room.argmax()), room.shape)
    if room[row, column] < least_share * free_HW.shape[1]:
        return None
    return float(column), float(row)
