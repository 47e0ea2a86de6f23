"""How far off a point may be: first-order propagation of pixel, depth and mounting errors to three
dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from molmo_ros.geometry.camera_model import CameraModel

# Rays closer to a surface than this (cosine to its normal) would give unbounded errors; about 87 degrees.
GRAZING_COSINE = 0.05


@dataclass(frozen=True)
class ExtrinsicError:
    """Standard deviations, per axis, of where the camera is mounted (hand-eye calibration): metres and
    radians.
    """

    translation_m: float = 0.0
    rotation_rad: float = 0.0


EXACTLY_MOUNTED = ExtrinsicError()


def position_cov_cam(
    camera: CameraModel,
    u: float,
    v: float,
    depth_m: float,
    normal_cam: np.ndarray,
    *,
    sigma_px: float,
    sigma_z_m: float,
    extrinsic: ExtrinsicError = EXACTLY_MOUNTED,
) -> np.ndarray:
    """Covariance (3x3, m^2, camera frame) of the surface point seen at a pixel.

    An error of the pixel moves the point *along the surface*, whose slope `normal_cam` gives (NaN: taken as
    facing the ray); an error of depth moves it along the ray; a mounting error moves everything about the
    camera. `sigma_px` per image axis, `sigma_z_m` along the optical axis.
    """
    around = np.array([[u, v], [u + 0.5, v], [u - 0.5, v], [u, v + 0.5], [u, v - 0.5]])
    rays = camera.rays(around)
    ray = rays[0]
    normal = normal_cam if np.isfinite(normal_cam).all() else -ray / np.linalg.norm(ray)
    slant = float(normal @ ray)
    steepest = -GRAZING_COSINE * float(np.linalg.norm(ray))
    slant = min(slant, steepest)
    # P = z ray with normal . P constant: dP = z (dray - ray (normal . dray) / (normal . ray))
    by_pixel = np.column_stack([rays[1] - rays[2], rays[3] - rays[4]])
    jacobian = depth_m * (by_pixel - np.outer(ray, normal @ by_pixel) / slant)

    point = depth_m * ray + camera.ray_origin_cam
    pointing: np.ndarray = sigma_px**2 * jacobian @ jacobian.T
    return pointing + sigma_z_m**2 * np.outer(ray, ray) + mounting_cov_cam(point, extrinsic)


def mounting_cov_cam(point_cam: np.ndarray, extrinsic: ExtrinsicError) -> np.ndarray:
    """Covariance (3x3, m^2, camera frame) of a point because the camera is mounted a little elsewhere."""
    turned = extrinsic.rotation_rad**2 * (point_cam @ point_cam * np.eye(3) - np.outer(point_cam, point_cam))
    moved: np.ndarray = extrinsic.translation_m**2 * np.eye(3)
    return turned + moved
