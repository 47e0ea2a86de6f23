from dataclasses import replace

import numpy as np
import pytest
from box_scenes import Box, depth_of_boxes, pose_looking_at
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from molmo_ros.geometry import (
    CameraModel,
    Frame,
    Gripper,
    Limits,
    Located,
    PlanePrior,
    fit_support_plane,
    locate,
)
from molmo_ros.geometry.motion import MotionError, carried
from molmo_ros.geometry.pose import inverse
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros.pointing.point import Point2D

NO_DRIFT = MotionError(0.0, 0.0, 0.0)
FIXED_POSES = ("T_fixed_base_then", "T_fixed_base_now")


def pose(x: float, y: float, yaw: float) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", yaw).as_matrix()
    T[:2, 3] = x, y
    return T


@pytest.fixture(scope="module")
def located(camera: CameraModel) -> Located:
    """A box, seen and graspable, 0.6 m before the base."""
    T = pose_looking_at([0.1, 0.0, 0.6], [0.6, 0.0, 0.0])
    depth = depth_of_boxes(camera, T, [Box(0.6, 0.0, 0.4, (0.06, 0.04, 0.05))])
    frame = Frame(np.zeros((480, 640, 3), np.uint8), depth, camera, stamp_ns=0, frame_id="camera")
    u, v = camera.project((inverse(T) @ [0.6, 0, 0.05, 1])[:3])[0]
    point = Point2D(u=u, v=v, label="box", confidence=0.9, sigma_px=2.0, index=0)
    support = fit_support_plane(depth, camera, PlanePrior.from_gravity(T))
    found = locate(frame, point, T, support=support, gripper=Gripper())
    assert found.outcome.ok
    assert found.grasp is not None
    return found


poses = st.builds(pose, st.floats(-3, 3), st.floats(-3, 3), st.floats(-3.1, 3.1))


@given(then=poses, now=poses)
def test_a_carried_target_stays_where_it_is_in_the_fixed_frame(
    located: Located, then: np.ndarray, now: np.ndarray
) -> None:
    moved = carried(located, then, now, NO_DRIFT)
    np.testing.assert_allclose(
        now @ [*moved.position_base_m, 1], then @ [*located.position_base_m, 1], atol=1e-9
    )
    np.testing.assert_allclose(now @ moved.T_base_target, then @ located.T_base_target, atol=1e-9)
    np.testing.assert_allclose(now[:3, :3] @ moved.normal_base, then[:3, :3] @ located.normal_base, atol=1e-9)
    assert moved.grasp is not None
    assert located.grasp is not None
    for after, before in zip(moved.grasp.grasps, located.grasp.grasps, strict=True):
        np.testing.assert_allclose(now @ after.T_base_grasp, then @ before.T_base_grasp, atol=1e-9)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(moved.position_cov_m2), np.linalg.eigvalsh(located.position_cov_m2), atol=1e-12
    )


def test_a_base_that_stood_still_changes_nothing(located: Located) -> None:
    here = pose(1.0, 2.0, 0.5)
    moved = carried(located, here, here, MotionError())
    np.testing.assert_allclose(moved.position_cov_m2, located.position_cov_m2, atol=1e-12)
    np.testing.assert_allclose(moved.T_base_target, located.T_base_target, atol=1e-12)


def test_the_drift_of_a_straight_way_is_added(located: Located) -> None:
    error = MotionError(translation_per_m=0.05, rotation_per_rad=0.0, rotation_rad_per_m=0.0)
    moved = carried(located, pose(0, 0, 0), pose(0.4, 0, 0), error)
    added = moved.position_cov_m2 - located.position_cov_m2
    np.testing.assert_allclose(added, 0.02**2 * np.eye(3), atol=1e-12)
    assert moved.grasp is not None
    assert located.grasp is not None
    np.testing.assert_allclose(moved.grasp.position_cov_m2 - located.grasp.position_cov_m2, added, atol=1e-12)


def test_the_drift_of_a_turn_grows_with_the_distance_of_the_target(located: Located) -> None:
    error = MotionError(translation_per_m=0.0, rotation_per_rad=0.1, rotation_rad_per_m=0.0)
    moved = carried(located, pose(0, 0, 0), pose(0, 0, 0.5), error)
    R = pose(0, 0, -0.5)[:3, :3]
    added = moved.position_cov_m2 - R @ located.position_cov_m2 @ R.T
    across = np.cross([0, 0, 1], moved.position_base_m)
    across /= np.linalg.norm(across)
    assert across @ added @ across == pytest.approx(
        (0.05 * np.linalg.norm(moved.position_base_m)) ** 2, rel=1e-6
    )
    assert moved.position_base_m @ added @ moved.position_base_m == pytest.approx(0, abs=1e-12)


def test_a_loop_is_as_uncertain_as_its_way_was_long(located: Located) -> None:
    here = pose(0, 0, 0)
    looped = carried(located, here, here, MotionError(0.02, 0.0, 0.0), way_m=3.0)
    np.testing.assert_allclose(
        looped.position_cov_m2 - located.position_cov_m2, 0.06**2 * np.eye(3), atol=1e-12
    )


def test_the_covariance_after_a_drive_holds_the_truth_as_often_as_it_says(located: Located) -> None:
    rng = np.random.default_rng(0)
    error = MotionError(0.03, 0.03, 0.02)
    inside = 0
    for _ in range(1500):
        then, now = pose(*rng.uniform(-1, 1, 3)), pose(*rng.uniform(-1, 1, 3))
        T_now_then = inverse(now) @ then
        drift = error.of(
            float(np.linalg.norm(T_now_then[:3, 3])),
            float(Rotation.from_matrix(T_now_then[:3, :3]).magnitude()),
        )
        slip = np.eye(4)
        slip[:3, :3] = Rotation.from_rotvec(rng.normal(0, drift.rotation_rad, 3)).as_matrix()
        slip[:3, 3] = rng.normal(0, drift.translation_m, 3)
        truth_then = rng.multivariate_normal(located.position_base_m, located.position_cov_m2)
        truth_now = (slip @ T_now_then @ [*truth_then, 1])[:3]
        moved = carried(located, then, now, error)
        miss = moved.position_base_m - truth_now
        inside += miss @ np.linalg.solve(moved.position_cov_m2, miss) < 7.815
    assert 0.92 <= inside / 1500 <= 0.98


def test_limits_are_checked_where_the_target_is_now(located: Located) -> None:
    limits = Limits(workspace_max_m=(0.8, 1.0, 1.0))
    away = carried(located, pose(0, 0, 0), pose(-0.5, 0, 0), NO_DRIFT, limits=limits)
    assert away.outcome.code == Code.OUTSIDE_WORKSPACE
    back = carried(away, pose(-0.5, 0, 0), pose(0, 0, 0), NO_DRIFT, limits=limits)
    assert back.outcome.ok
    unsure = Limits(max_sigma_m=0.02)
    assert (
        carried(located, pose(0, 0, 0), pose(2, 0, 0), MotionError(), limits=unsure).outcome.code
        == Code.UNCERTAIN
    )


def test_what_was_refused_stays_refused(located: Located) -> None:
    unclear = replace(located, outcome=Outcome(Code.AMBIGUOUS_DEPTH, "two things"))
    assert carried(unclear, pose(0, 0, 0), pose(1, 0, 0), NO_DRIFT).outcome.code == Code.AMBIGUOUS_DEPTH
    lost = Located(Outcome(Code.NO_DEPTH, "nothing"))
    assert carried(lost, pose(0, 0, 0), pose(1, 0, 0), NO_DRIFT) is lost


@pytest.mark.parametrize("bad", FIXED_POSES)
def test_a_pose_that_is_not_rigid_is_named(located: Located, bad: str) -> None:
    then, now = (np.diag([1, 2, 1, 1.0]) if bad == name else np.eye(4) for name in FIXED_POSES)
    with pytest.raises(PointingError, match=f"{bad} is not rigid") as caught:
        carried(located, then, now, NO_DRIFT)
    assert caught.value.outcome.code == Code.TF_UNAVAILABLE


@pytest.mark.parametrize("field", ["translation_per_m", "rotation_per_rad", "rotation_rad_per_m"])
@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_an_error_that_is_none_is_named(field: str, value: float) -> None:
    with pytest.raises(PointingError, match=field):
        MotionError(**{field: value})


def test_a_way_of_negative_length_is_refused(located: Located) -> None:
    with pytest.raises(PointingError, match="way_m is -1"):
        carried(located, np.eye(4), np.eye(4), NO_DRIFT, way_m=-1.0)
