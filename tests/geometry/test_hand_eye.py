"""Hand-eye calibration: random poses are found, noise costs what it says, motions that cannot tell are refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.charuco import BoardSight
from molmo_ros.geometry.hand_eye import MOUNTINGS, BoardView, Mounting, calibrate_hand_eye, check_turns
from molmo_ros.geometry.pose import inverse
from molmo_ros.outcome import Code, PointingError

K = [600.0, 0.0, 319.5, 0.0, 600.0, 239.5, 0.0, 0.0, 1.0]
PINHOLE = CameraModel.from_info(width=640, height=480, k=K)
BENT = CameraModel.from_info(width=640, height=480, k=K, d=[-0.25, 0.08, 0.001, -0.001, 0.0])
GRID = np.array([(0.035 * i, 0.035 * j, 0.0) for j in range(1, 5) for i in range(1, 7)])


def pose(rng: np.random.Generator, most_rad: float, most_m: float) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(rng.uniform(0, most_rad) * unit(rng)).as_matrix()
    T[:3, 3] = rng.uniform(-most_m, most_m, 3)
    return T


def unit(rng: np.random.Generator) -> np.ndarray:
    v = rng.normal(size=3)
    return np.asarray(v / np.linalg.norm(v))


def tilted_every_way(rng: np.random.Generator) -> np.ndarray:
    return Rotation.from_rotvec(rng.uniform(-0.6, 0.6, 3)).as_matrix()


def make_views(
    T_mount_camera: np.ndarray,
    T_carrier_board: np.ndarray,
    mounting: Mounting,
    rng: np.random.Generator,
    *,
    count: int = 15,
    noise_px: float = 0.0,
    camera: CameraModel = PINHOLE,
    turn: Callable[[np.random.Generator], np.ndarray] = tilted_every_way,
    print_scale: float = 1.0,
) -> list[BoardView]:
    views: list[BoardView] = []
    while len(views) < count:
        T_camera_board = np.eye(4)
        T_camera_board[:3, :3] = turn(rng)
        T_camera_board[:3, 3] = rng.uniform((-0.15, -0.1, 0.5), (0.15, 0.1, 0.9))
        T_camera_board[:3, 3] -= T_camera_board[:3, :3] @ GRID.mean(axis=0)
        pixels = camera.project(print_scale * GRID @ T_camera_board[:3, :3].T + T_camera_board[:3, 3])
        if not ((pixels > 0).all() and (pixels < (640, 480)).all()):
            continue
        T_mount_carrier = T_mount_camera @ T_camera_board @ inverse(T_carrier_board)
        T_base_hand = T_mount_carrier if mounting == "eye_to_hand" else inverse(T_mount_carrier)
        views.append(BoardView(T_base_hand, BoardSight(GRID, pixels + rng.normal(0, noise_px, pixels.shape))))
    return views


def off(T_true: np.ndarray, T: np.ndarray) -> tuple[float, float]:
    """Distance and angle."""
    T_off = inverse(T_true) @ T
    return float(np.linalg.norm(T_off[:3, 3])), float(Rotation.from_matrix(T_off[:3, :3]).magnitude())


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from(MOUNTINGS), st.sampled_from((PINHOLE, BENT)))
def test_any_camera_and_board_are_found_again(seed: int, mounting: Mounting, camera: CameraModel) -> None:
    rng = np.random.default_rng(seed)
    T_mount_camera, T_carrier_board = pose(rng, 3.1, 1.0), pose(rng, 3.1, 0.2)
    views = make_views(T_mount_camera, T_carrier_board, mounting, rng, count=8, camera=camera)
    found = calibrate_hand_eye(views, camera, mounting)
    np.testing.assert_allclose(found.T_mount_camera, T_mount_camera, atol=1e-5)
    np.testing.assert_allclose(found.T_carrier_board, T_carrier_board, atol=1e-5)
    assert found.rms_px < 1e-3
    assert found.board_scale == pytest.approx(1.0, abs=1e-4)


def test_noise_costs_what_the_sigmas_say() -> None:
    shares = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        truth = pose(rng, 3.1, 1.0)
        views = make_views(truth, pose(rng, 3.1, 0.2), "eye_to_hand", rng, noise_px=0.3)
        found = calibrate_hand_eye(views, PINHOLE, "eye_to_hand")
        assert found.rms_px == pytest.approx(0.3 * np.sqrt(2), rel=0.1)
        distance_m, angle = off(truth, found.T_mount_camera)
        assert distance_m < 0.003
        shares.append((distance_m / found.sigma_m, angle / found.sigma_rad))
    # Errors in three directions, against the sigma of the worst: neither boasting nor shy.
    assert (np.mean(shares, axis=0) < 2.5).all()
    assert (np.mean(shares, axis=0) > 0.5).all()


def test_turns_about_one_axis_are_refused_and_another_axis_is_named() -> None:
    rng = np.random.default_rng(1)

    def about_one(rng: np.random.Generator) -> np.ndarray:
        return Rotation.from_rotvec([0.0, 0.0, rng.uniform(-0.7, 0.7)]).as_matrix()

    board = np.eye(4)
    views = make_views(pose(rng, 3.1, 1.0), board, "eye_to_hand", rng, turn=about_one)
    with pytest.raises(
        PointingError, match=r"one axis only, \(0.0, 0.0, 1.0\).*tilt it by 20 to 40"
    ) as refused:
        calibrate_hand_eye(views, PINHOLE, "eye_to_hand")
    assert refused.value.outcome.code == Code.UNCERTAIN


def test_a_hand_that_was_only_shifted_is_refused() -> None:
    rng = np.random.default_rng(2)
    views = make_views(
        pose(rng, 3.1, 1.0), np.eye(4), "eye_in_hand", rng, turn=lambda _: np.diag([1.0, 1.0, 1.0])
    )
    with pytest.raises(PointingError, match="turned by at most 0 degrees"):
        calibrate_hand_eye(views, PINHOLE, "eye_in_hand")


def test_turns_about_two_axes_are_enough() -> None:
    turns = [(0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (-0.5, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, -0.5, 0.0)]
    poses = [np.eye(4) for _ in turns]
    for T, turn in zip(poses, turns, strict=True):
        T[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    check_turns(poses)


def test_too_few_views_are_refused() -> None:
    rng = np.random.default_rng(3)
    views = make_views(np.eye(4), np.eye(4), "eye_to_hand", rng, count=4)
    with pytest.raises(PointingError, match="at least 5") as refused:
        calibrate_hand_eye(views, PINHOLE, "eye_to_hand")
    assert refused.value.outcome.code == Code.INVALID_REQUEST


@pytest.mark.parametrize("mounting", MOUNTINGS)
def test_views_with_a_wrong_hand_are_left_out(mounting: Mounting) -> None:
    rng = np.random.default_rng(4)
    truth = pose(rng, 3.1, 1.0)
    views = make_views(truth, pose(rng, 3.1, 0.2), mounting, rng, noise_px=0.2)
    for number in (3, 11):
        views[number] = BoardView(views[number].T_base_hand @ pose(rng, 0.3, 0.08), views[number].sight)
    found = calibrate_hand_eye(views, PINHOLE, mounting)
    assert found.left_out == (3, 11)
    assert min(found.view_rms_px[3], found.view_rms_px[11]) > 4 * found.rms_px
    assert off(truth, found.T_mount_camera)[0] < 0.002


def test_the_other_mounting_than_said_is_noticed() -> None:
    rng = np.random.default_rng(5)
    views = make_views(pose(rng, 3.1, 1.0), pose(rng, 3.1, 0.2), "eye_to_hand", rng)
    with pytest.raises(PointingError, match="contradict") as refused:
        calibrate_hand_eye(views, PINHOLE, "eye_in_hand")
    assert refused.value.outcome.code == Code.UNCERTAIN


def test_a_print_of_another_size_than_said_is_noticed() -> None:
    rng = np.random.default_rng(6)
    views = make_views(
        pose(rng, 3.1, 1.0), pose(rng, 3.1, 0.2), "eye_to_hand", rng, noise_px=0.2, print_scale=0.97
    )
    found = calibrate_hand_eye(views, PINHOLE, "eye_to_hand")
    assert found.board_scale == pytest.approx(0.97, abs=0.003)
    assert found.board_scale_sigma < 0.003


def test_a_hand_pose_that_is_none_is_refused_by_its_number() -> None:
    rng = np.random.default_rng(7)
    views = make_views(np.eye(4), np.eye(4), "eye_to_hand", rng)
    views[2] = BoardView(2 * views[2].T_base_hand, views[2].sight)
    with pytest.raises(PointingError, match="view 3"):
        calibrate_hand_eye(views, PINHOLE, "eye_to_hand")
