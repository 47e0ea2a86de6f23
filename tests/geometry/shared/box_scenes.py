"""Boxes on a table, drawn by intersecting rays: scenes for any camera whose truth is known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from molmo_ros.geometry.camera_model import CameraModel


@dataclass(frozen=True)
class Box:
    """A box that stands on the table: middle of its foot (x, y), turn about z, size along its own axes."""

    x_m: float
    y_m: float
    yaw_rad: float
    size_m: tuple[float, float, float]


def depth_of_boxes(
    camera: CameraModel, T_base_camera: np.ndarray, boxes: Sequence[Box], table_z_m: float = 0.0
) -> np.ndarray:
    """Exact depth image (float32 metres, NaN = sky) of boxes on an endless table, by intersecting rays."""
    v, u = np.mgrid[: camera.height, : camera.width]
    rays_cam = camera.rays(np.column_stack([u.ravel(), v.ravel()]))
    R, origin = T_base_camera[:3, :3], T_base_camera[:3, :3] @ camera.ray_origin_cam + T_base_camera[:3, 3]
    rays = rays_cam @ R.T
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = (table_z_m - origin[2]) / rays[:, 2]
        depth[~(depth > 0)] = np.inf
        for box in boxes:
            c, s = np.cos(box.yaw_rad), np.sin(box.yaw_rad)
            turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])
            half = np.array(box.size_m) / 2
            start = turn @ (origin - [box.x_m, box.y_m, table_z_m + half[2]])
            along = rays @ turn.T
            first, second = (-half - start) / along, (half - start) / along
            enters = np.minimum(first, second).max(axis=1)
            leaves = np.maximum(first, second).min(axis=1)
            hit = (enters < leaves) & (enters > 0)
            depth[hit] = np.minimum(depth[hit], enters[hit])
    depth[~np.isfinite(depth)] = np.nan
    return depth.reshape(camera.height, camera.width).astype(np.float32)


def pose_looking_at(eye_m: Sequence[float], at_m: Sequence[float]) -> np.ndarray:
    """T_base_camera (4x4) of a level camera at `eye_m` that looks at `at_m`."""
    forward = np.subtract(at_m, eye_m) / np.linalg.norm(np.subtract(at_m, eye_m))
    right = np.cross(forward, [0, 0, 1.0])
    if np.linalg.norm(right) < 1e-6:
        right = np.array([0, -1.0, 0])
    right = right / np.linalg.norm(right)
    T = np.eye(4)
    T[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    T[:3, 3] = eye_m
    return T
