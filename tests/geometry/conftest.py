"""Synthetic scenes whose depth is known exactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from molmo_ros.geometry.camera_model import CameraModel


@pytest.fixture(scope="session")
def camera() -> CameraModel:
    """640x480, 600 px focal length, no distortion."""
    return CameraModel.from_info(
        width=640, height=480, k=[600, 0, 320.5, 0, 600, 238.5, 0, 0, 1], rectified=True
    )


@pytest.fixture(scope="session")
def plane_depth(camera: CameraModel) -> Callable[[np.ndarray, float], np.ndarray]:
    """Depth image of the plane through (0, 0, distance) with a normal, float32 metres."""

    def render(normal: np.ndarray, distance_m: float) -> np.ndarray:
        v, u = np.mgrid[: camera.height, : camera.width]
        rays = camera.rays(np.column_stack([u.ravel(), v.ravel()]))
        depth = normal[2] * distance_m / (rays @ normal)
        return depth.reshape(camera.height, camera.width).astype(np.float32)

    return render
