from collections.abc import Sequence

import numpy as np
import pytest
from box_scenes import Box, depth_of_boxes, pose_looking_at
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.depth import depth_at
from molmo_ros.geometry.grasp import GraspPlan, grasp_poses, plan_grasp
from molmo_ros.geometry.gripper_room import Gripper
from molmo_ros.geometry.pose import Approach, check_rigid, inverse
from molmo_ros.geometry.support_plane import PlanePrior, fit_support_plane
from molmo_ros.outcome import Code, PointingError
from molmo_ros.sim.depth_noise import noisy_depth

GRIPPER = Gripper()
CEREAL = Box(0.5, 0.0, 0.4, (0.06, 0.03, 0.08))


def planned(
    camera: CameraModel,
    boxes: Sequence[Box],
    *,
    eye: Sequence[float] = (0.9, 0.05, 0.6),
    at: Sequence[float] | None = None,
    gripper: Gripper = GRIPPER,
    approach: Approach = "top_down",
    noise: str = "none",
    T_base_world: np.ndarray | None = None,
) -> GraspPlan:
    """The plan for the first box, pointed at the middle of its top (or at `at`)."""
    T_world_camera = pose_looking_at(eye, [0.5, 0.0, 0.0])
    T = T_world_camera if T_base_world is None else T_base_world @ T_world_camera
    depth = noisy_depth(
        depth_of_boxes(camera, T_world_camera, boxes), camera.fx, np.random.default_rng(0), noise
    )
    prior = PlanePrior(T_world_camera[2, :3])
    support = fit_support_plane(depth, camera, prior)
    wanted = [boxes[0].x_m, boxes[0].y_m, boxes[0].size_m[2]] if at is None else at
    u, v = camera.project((inverse(T_world_camera) @ [*wanted, 1])[:3])[0]
    sample = depth_at(depth, camera, u, v, sigma_px=1.0, support=support)
    return plan_grasp(depth, camera, T, support, sample, gripper=gripper, approach=approach)


def turn_between(first: float, second: float, period: float = np.pi) -> float:
    off = (first - second) % period
    return float(min(off, period - off))


@settings(max_examples=40)
@given(
    x=st.floats(0.4, 0.6), y=st.floats(-0.1, 0.1), yaw=st.floats(-1.57, 1.57), width=st.floats(0.02, 0.05),
    more=st.floats(1.3, 2.0), height=st.floats(0.03, 0.12), around=st.floats(-1.2, 1.2), up=st.floats(0.6, 1.25),
)  # fmt: skip
def test_a_box_is_taken_across_its_shorter_side_wherever_the_camera_stands(
    camera: CameraModel,
    x: float, y: float, yaw: float, width: float, more: float, height: float, around: float, up: float,
) -> None:  # fmt: skip
    box = Box(x, y, yaw, (width, width * more, height))
    eye = [0.5 + 0.7 * np.cos(up) * np.cos(around), 0.7 * np.cos(up) * np.sin(around), 0.7 * np.sin(up)]
    plan = planned(camera, [box], eye=eye)
    assert plan.outcome.ok, plan.outcome
    assert plan.footprint.width_m == pytest.approx(width, abs=0.004)
    assert plan.footprint.length_m == pytest.approx(width * more, abs=0.004)
    # The highest points are taken for raised by the camera's noise, of which these pictures have none.
    assert plan.height_m == pytest.approx(height, abs=0.004)
    np.testing.assert_allclose(plan.top_base_m, [x, y, height], atol=0.004)
    best = plan.grasps[0]
    check_rigid("grasp", best.T_base_grasp)
    assert turn_between(best.yaw_rad, yaw) < np.radians(5)
    assert best.width_m == pytest.approx(width, abs=0.004)
    assert width - 0.002 < best.opening_m < width + 0.012
    np.testing.assert_allclose(best.T_base_grasp[:3, 2], [0, 0, -1], atol=2e-3)
    np.testing.assert_allclose(best.T_base_grasp[:2, 3], [x, y], atol=0.003)
    assert best.T_base_grasp[2, 3] == pytest.approx(max(height - 0.03, 0.008), abs=0.004)


def test_the_alternatives_are_half_a_turn_and_the_other_side_if_it_fits(camera: CameraModel) -> None:
    plan = planned(camera, [CEREAL])
    assert [grasp.outcome.code for grasp in plan.grasps] == [Code.OK] * 4
    yaws = [np.arctan2(grasp.T_base_grasp[1, 0], grasp.T_base_grasp[0, 0]) for grasp in plan.grasps]
    across = CEREAL.yaw_rad + np.pi / 2  # the box's y side is the short one
    assert [round(turn_between(yaw, across) / (np.pi / 2)) for yaw in yaws] == [0, 0, 1, 1]
    assert turn_between(yaws[0], yaws[1] + np.pi, 2 * np.pi) < 1e-6
    assert turn_between(yaws[2], yaws[3] + np.pi, 2 * np.pi) < 1e-6
    assert plan.usable == plan.grasps
    narrow = planned(camera, [CEREAL], gripper=Gripper(max_opening_m=0.05))
    assert [grasp.outcome.code for grasp in narrow.grasps] == [Code.OK] * 2 + [Code.TOO_WIDE] * 2
    assert narrow.usable == narrow.grasps[:2]


def test_of_two_half_turns_the_wrist_turns_less(camera: CameraModel) -> None:
    """An untwisted wrist closes along the base's y."""
    best, turned = planned(camera, [Box(0.5, 0.0, 0.2, (0.06, 0.03, 0.08))]).grasps[:2]
    assert best.T_base_grasp[1, 0] > 0 > turned.T_base_grasp[1, 0]


def test_a_thing_wider_than_the_gripper_names_the_excess(camera: CameraModel) -> None:
    plan = planned(camera, [Box(0.5, 0.0, 0.0, (0.10, 0.12, 0.06))])
    assert plan.outcome.code == Code.TOO_WIDE
    assert "more than its 80 mm" in plan.outcome.message
    assert plan.usable == ()


def test_a_neighbour_blocks_the_side_it_stands_on_and_the_other_closing_is_taken(camera: CameraModel) -> None:
    box = Box(0.5, 0.0, 0.0, (0.045, 0.035, 0.06))
    free = planned(camera, [box]).grasps[0]
    assert turn_between(free.yaw_rad, np.pi / 2) < 0.1
    neighbour = Box(0.5, 0.035 / 2 + 0.008 + 0.02, 0.0, (0.06, 0.04, 0.06))
    plan = planned(camera, [box, neighbour])
    assert plan.outcome.ok
    assert turn_between(plan.grasps[0].yaw_rad, 0.0) < 0.1
    blocked = [grasp for grasp in plan.grasps if grasp.outcome.code == Code.BLOCKED]
    assert len(blocked) == 2
    assert min(blocked[0].room.room_m) < 0.012
    assert max(blocked[0].room.room_m) > 0.05
    assert "mm too little" in blocked[0].outcome.message


def test_room_that_the_camera_does_not_see_is_told(camera: CameraModel) -> None:
    """Behind a tall box, seen from low, nobody knows what stands there."""
    plan = planned(
        camera, [Box(0.5, 0.0, 0.0, (0.03, 0.06, 0.12))], eye=(1.0, 0.0, 0.3), at=[0.5, 0.0, 0.119]
    )
    along_view = next(grasp for grasp in plan.grasps if turn_between(grasp.yaw_rad, 0.0) < 0.2)
    behind = 0 if along_view.T_base_grasp[0, 0] > 0 else 1
    assert along_view.room.hidden[behind] > 0.5
    assert along_view.room.hidden[1 - behind] < 0.2


def test_a_thing_at_the_edge_of_the_image_has_no_known_extent(camera: CameraModel) -> None:
    T = pose_looking_at([0.9, 0.0, 0.6], [0.5, 0.0, 0.0])
    depth = depth_of_boxes(camera, T, [Box(0.5, 0.0, 0.0, (0.06, 0.03, 0.08))])
    u, v = camera.project((inverse(T) @ [0.5, 0, 0.08, 1])[:3])[0]
    depth = depth.copy()
    cropped = CameraModel.from_info(
        width=640 - round(u), height=480, k=[600, 0, 320.5 - round(u), 0, 600, 238.5, 0, 0, 1], rectified=True
    )
    depth = np.ascontiguousarray(depth[:, round(u) :])
    support = fit_support_plane(depth, cropped, PlanePrior.from_gravity(T))
    plan = plan_grasp(depth, cropped, T, support, depth_at(depth, cropped, 5, v, support=support))
    assert plan.outcome.code == Code.AMBIGUOUS_DEPTH
    assert plan.usable == ()


def test_a_coin_is_too_flat_to_hold(camera: CameraModel) -> None:
    plan = planned(camera, [Box(0.5, 0.0, 0.0, (0.04, 0.04, 0.008))])
    assert plan.outcome.code == Code.BLOCKED
    assert "too flat" in plan.outcome.message


def test_tips_stay_clear_of_the_support(camera: CameraModel) -> None:
    for height in (0.02, 0.03, 0.05):
        plan = planned(camera, [Box(0.5, 0.0, 0.0, (0.05, 0.03, height))])
        assert plan.grasps[0].T_base_grasp[2, 3] >= GRIPPER.tip_clearance_m - 0.002


def test_the_bare_table_is_no_thing(camera: CameraModel) -> None:
    with pytest.raises(PointingError, match="nothing stands on the support") as caught:
        planned(camera, [CEREAL], at=[0.42, -0.1, 0.0])
    assert caught.value.outcome.code == Code.NO_DEPTH


def test_against_a_side_the_fingers_come_along_its_normal(camera: CameraModel) -> None:
    tall = Box(0.5, 0.0, 0.0, (0.05, 0.05, 0.16))
    plan = planned(camera, [tall], eye=(1.0, 0.0, 0.35), at=[0.525, 0.0, 0.09], approach="surface_normal")
    best = plan.grasps[0]
    np.testing.assert_allclose(best.T_base_grasp[:3, 2], [-1, 0, 0], atol=0.03)
    assert plan.footprint.width_m == pytest.approx(0.05, abs=0.006)


def test_a_base_that_is_not_level_sees_the_same_grasp(camera: CameraModel) -> None:
    """The arm hangs on a wall; approach is still against the support's normal."""
    T_base_world = np.eye(4)
    T_base_world[:3, :3] = Rotation.from_euler("xyz", [0.3, 1.2, -0.4]).as_matrix()
    T_base_world[:3, 3] = 0.3, -0.2, 0.5
    level = planned(camera, [CEREAL])
    tilted = planned(camera, [CEREAL], T_base_world=T_base_world)
    expected = T_base_world @ level.grasps[0].T_base_grasp
    np.testing.assert_allclose(tilted.grasps[0].T_base_grasp[:3, 2], expected[:3, 2], atol=1e-6)
    np.testing.assert_allclose(tilted.grasps[0].T_base_grasp[:3, 3], expected[:3, 3], atol=2e-3)
    assert abs(tilted.grasps[0].T_base_grasp[:3, 0] @ expected[:3, 0]) > np.cos(np.radians(4))


@pytest.mark.parametrize("noise", ["d435", "kinect"])
def test_noise_leaves_millimetres(camera: CameraModel, noise: str) -> None:
    plan = planned(camera, [CEREAL, Box(0.42, 0.12, 0.9, (0.05, 0.05, 0.1))], noise=noise)
    assert plan.footprint.width_m == pytest.approx(0.03, abs=0.006)
    np.testing.assert_allclose(plan.top_base_m, [0.5, 0.0, 0.08], atol=0.008)
    assert turn_between(plan.grasps[0].yaw_rad, CEREAL.yaw_rad + np.pi / 2) < np.radians(6)


def test_a_moved_plan_is_the_same_in_the_world(camera: CameraModel) -> None:
    plan = planned(camera, [CEREAL])
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", 1.0).as_matrix()
    T[:3, 3] = 1.0, 2.0, 0.0
    moved = plan.moved(T)
    np.testing.assert_allclose(moved.top_base_m, (T @ [*plan.top_base_m, 1])[:3])
    for before, after in zip(plan.grasps, moved.grasps, strict=True):
        np.testing.assert_allclose(after.T_base_grasp, T @ before.T_base_grasp)
    middle = moved.T_base_plan @ [*moved.footprint.centre, 0, 1]
    np.testing.assert_allclose(middle[:2], moved.top_base_m[:2], atol=1e-3)


def test_the_way_of_a_grasp_comes_along_it_and_leaves_straight_up() -> None:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("y", 135, degrees=True).as_matrix()
    T[:3, 3] = 0.5, 0.1, 0.2
    way = grasp_poses(T, approach_m=0.08, retreat_m=0.12)
    np.testing.assert_allclose(way.approach[:3, 3], T[:3, 3] - 0.08 * T[:3, 2])
    np.testing.assert_allclose(way.retreat[:3, 3], [0.5, 0.1, 0.32])
    np.testing.assert_array_equal(way.grasp, T)
    for pose in (way.approach, way.retreat):
        np.testing.assert_array_equal(pose[:3, :3], T[:3, :3])


@pytest.mark.parametrize("offset", [-0.01, np.nan, np.inf])
def test_offsets_that_are_none_are_refused(offset: float) -> None:
    with pytest.raises(PointingError, match="approach_m"):
        grasp_poses(np.eye(4), approach_m=offset)
    with pytest.raises(PointingError, match="T_base_grasp"):
        grasp_poses(np.diag([1, 1, 2.0, 1]))
