import numpy as np
import pytest

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.uncertainty import ExtrinsicError, position_cov_cam

FACING = np.array([0.0, 0.0, -1.0])


def test_a_facing_surface_gives_the_textbook_figures(camera: CameraModel) -> None:
    """On the axis: sideways z / f a pixel, along the axis sigma_z."""
    cov = position_cov_cam(camera, 320.5, 238.5, 0.9, FACING, sigma_px=3.0, sigma_z_m=0.004)
    np.testing.assert_allclose(cov, np.diag([(0.9 * 3 / 600) ** 2] * 2 + [0.004**2]), atol=1e-12)


def test_a_pixel_error_on_a_slope_moves_along_the_slope(camera: CameraModel) -> None:
    normal = np.array([0.0, -np.sin(1.0), -np.cos(1.0)])
    cov = position_cov_cam(camera, 400, 300, 0.8, normal, sigma_px=3.0, sigma_z_m=0.0)
    assert normal @ cov @ normal == pytest.approx(0, abs=1e-12)
    assert np.linalg.eigvalsh(cov)[1] > 0


def test_a_turned_camera_moves_far_points_more_and_never_along_the_ray(camera: CameraModel) -> None:
    error = ExtrinsicError(rotation_rad=0.01)
    cov = position_cov_cam(camera, 320.5, 238.5, 2.0, FACING, sigma_px=0, sigma_z_m=0, extrinsic=error)
    np.testing.assert_allclose(cov, np.diag([0.02**2, 0.02**2, 0]), atol=1e-12)


def test_a_surface_seen_edge_on_has_a_large_but_finite_error(camera: CameraModel) -> None:
    cov = position_cov_cam(camera, 320, 240, 1.0, np.array([0, -1.0, 0]), sigma_px=2, sigma_z_m=0.002)
    assert np.isfinite(cov).all()
    assert (2 / 600 * 10) ** 2 < cov[2, 2] < 0.1**2


def test_the_covariance_holds_the_truth_as_often_as_it_says(camera: CameraModel) -> None:
    """Monte Carlo over slopes, pixels, depths and mounting errors: the 95 % ellipsoid holds 90 to 99 %."""
    rng = np.random.default_rng(11)
    error = ExtrinsicError(translation_m=0.003, rotation_rad=0.005)
    inside = 0
    trials = 3000
    for _ in range(trials):
        slope = rng.uniform(0, np.radians(60))
        about = rng.uniform(0, 2 * np.pi)
        normal = np.array([np.sin(slope) * np.cos(about), np.sin(slope) * np.sin(about), -np.cos(slope)])
        uv = rng.uniform([50, 50], [590, 430])
        depth, sigma_px, sigma_z = rng.uniform(0.4, 1.5), rng.uniform(0.5, 6), rng.uniform(0.0005, 0.01)
        ray = camera.rays([uv])[0]
        if -normal @ ray < 0.3:
            normal = FACING
        truth = depth * ray
        pointed = uv + rng.normal(0, sigma_px, 2)
        pointed_ray = camera.rays([pointed])[0]
        measured_depth = (normal @ truth) / (normal @ pointed_ray) + rng.normal(0, sigma_z)
        believed = measured_depth * pointed_ray
        turn = rng.normal(0, error.rotation_rad, 3)
        mounted = truth + np.cross(turn, truth) + rng.normal(0, error.translation_m, 3)
        cov = position_cov_cam(
            camera,
            pointed[0],
            pointed[1],
            measured_depth,
            normal,
            sigma_px=sigma_px,
            sigma_z_m=sigma_z,
            extrinsic=error,
        )
        miss = believed - mounted
        inside += miss @ np.linalg.solve(cov, miss) < 7.815  # chi squared, 3 degrees of freedom, 95 %
    assert 0.90 <= inside / trials <= 0.99
