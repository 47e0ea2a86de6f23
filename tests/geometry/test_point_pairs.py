"""The camera's pose from spots that the arm touched: exact without noise, without outliers, and never from a line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from molmo_ros.geometry.point_pairs import fit_point_pairs
from molmo_ros.geometry.pose import inverse
from molmo_ros.outcome import Code, PointingError


def camera_pose(rng: np.random.Generator) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    T[:3, 3] = rng.uniform(-1, 1, 3)
    return T


def spots(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.uniform((0.3, -0.4, 0.0), (0.7, 0.4, 0.3), (count, 3))


def seen(T_base_camera: np.ndarray, points_base: np.ndarray) -> np.ndarray:
    T = inverse(T_base_camera)
    return points_base @ T[:3, :3].T + T[:3, 3]


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(5, 30), st.booleans())
def test_any_camera_is_found_again_even_from_a_flat_table(seed: int, count: int, flat: bool) -> None:
    rng = np.random.default_rng(seed)
    T, points = camera_pose(rng), spots(rng, count)
    points[:3] = (0.3, -0.3, 0.0), (0.7, -0.3, 0.0), (0.5, 0.4, 0.0)
    if flat:
        points[:, 2] = 0.0
    found = fit_point_pairs(seen(T, points), points)
    np.testing.assert_allclose(found.T_base_camera, T, atol=1e-9)
    assert found.left_out == ()


def test_noise_costs_what_the_sigmas_say() -> None:
    shares = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        T, points = camera_pose(rng), spots(rng, 16)
        found = fit_point_pairs(seen(T, points) + rng.normal(0, 0.002, points.shape), points)
        T_off = inverse(T) @ found.T_base_camera
        angle = Rotation.from_matrix(T_off[:3, :3]).magnitude()
        shares.append((np.linalg.norm(T_off[:3, 3]) / found.sigma_m, angle / found.sigma_rad))
    assert (np.mean(shares, axis=0) < 2.5).all()
    assert (np.mean(shares, axis=0) > 0.5).all()


@settings(max_examples=20)
@given(st.integers(0, 2**31))
def test_clicks_beside_the_spot_are_left_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    T, points = camera_pose(rng), spots(rng, 12)
    in_camera = seen(T, points) + rng.normal(0, 0.001, points.shape)
    wrong = sorted(rng.choice(12, 3, replace=False).tolist())
    directions = rng.normal(size=(3, 3))
    in_camera[wrong] += 0.08 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    found = fit_point_pairs(in_camera, points)
    assert found.left_out == tuple(wrong)
    assert (found.off_m[wrong] > 0.03).all()
    assert found.rms_m < 0.005
    assert np.linalg.norm((inverse(T) @ found.T_base_camera)[:3, 3]) < 0.02


def test_spots_in_a_line_are_refused_and_told_where_others_would_help() -> None:
    rng = np.random.default_rng(1)
    line = np.array([0.5, 0.0, 0.1]) + np.linspace(-0.4, 0.4, 10)[:, None] * (0.0, 1.0, 0.0)
    points = line + rng.normal(0, 0.002, line.shape)
    with pytest.raises(PointingError, match=r"in one line.*to its side") as refused:
        fit_point_pairs(seen(camera_pose(rng), points), points)
    assert refused.value.outcome.code == Code.UNCERTAIN


def test_a_line_with_one_false_spot_beside_it_is_refused_too() -> None:
    rng = np.random.default_rng(2)
    points = np.array([0.5, 0.0, 0.1]) + np.linspace(-0.4, 0.4, 10)[:, None] * (0.0, 1.0, 0.0)
    points = np.vstack([points, (0.8, 0.0, 0.1)])
    in_camera = seen(camera_pose(rng), points)
    in_camera[-1] += (0.5, 0.5, 0.5)
    with pytest.raises(PointingError) as refused:
        fit_point_pairs(in_camera, points)
    assert refused.value.outcome.code == Code.UNCERTAIN


def test_pairs_that_disagree_are_refused() -> None:
    rng = np.random.default_rng(3)
    with pytest.raises(PointingError, match="agree") as refused:
        fit_point_pairs(spots(rng, 12), spots(rng, 12))
    assert refused.value.outcome.code == Code.UNCERTAIN


@pytest.mark.parametrize(
    ("camera", "base"),
    [
        (np.zeros((3, 3)), np.zeros((3, 3))),
        (np.zeros((6, 3)), np.zeros((5, 3))),
        (np.full((6, 3), np.nan), np.zeros((6, 3))),
    ],
)
def test_what_are_no_pairs_is_refused(camera: np.ndarray, base: np.ndarray) -> None:
    with pytest.raises(PointingError) as refused:
        fit_point_pairs(camera, base)
    assert refused.value.outcome.code == Code.INVALID_REQUEST
