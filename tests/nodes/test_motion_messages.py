"""Motions to goals of MoveToGoal and back, and clouds as other nodes send them."""

from __future__ import annotations

import numpy as np
import pytest
from geometry_msgs.msg import Point, Vector3
from sensor_msgs.msg import JointState, PointCloud2, PointField
from std_msgs.msg import Header

from molmo_ros.nodes.motion_messages import cloud_message, goal_of, held_of, opening_of, points_of, posture_of
from molmo_ros.outcome import PointingError
from molmo_ros.planning.motion import HeldBox, Motion
from molmo_ros.planning.obstacles import Voxels

NAMES = ("a", "b")
POINTS = np.array([[0.1, -0.2, 0.3], [1.0, 2.0, 3.0]])


def test_a_motion_survives_its_message() -> None:
    T = np.eye(4)
    T[:3, 3] = [0.4, 0.1, 0.2]
    held = HeldBox((0.03, 0.04, 0.05), (0.0, 0.01, 0.02))
    motion = Motion(
        (T,), approach_m=0.1, opening_m=0.05, held=held, around=Voxels(POINTS, 0.015), half_turns=False, attempts=7
    )
    goal = goal_of(motion, Header(frame_id="base"), NAMES, 0.3, plan_only=True)
    assert (goal.approach_offset, goal.gripper_opening, goal.speed_scale) == (0.1, 0.05, 0.3)
    assert goal.plan_only and goal.one_way_round and not goal.back and goal.attempts == 7
    assert goal.goals[0].header.frame_id == goal.obstacles.header.frame_id == "base"
    assert held_of(goal.held_size, goal.held_centre) == held
    np.testing.assert_allclose(points_of(goal.obstacles), POINTS, atol=1e-6)
    assert posture_of(goal.posture, NAMES) is None


def test_a_posture_is_read_by_name() -> None:
    goal = goal_of(Motion(posture=np.array([1.0, 2.0])), Header(), NAMES, 0.0, plan_only=False)
    mixed = JointState(name=["b", "c", "a"], position=[2.0, 9.0, 1.0])
    for message in (goal.posture, mixed):
        posture = posture_of(message, NAMES)
        assert posture is not None
        assert posture.tolist() == [1.0, 2.0]
    with pytest.raises(PointingError, match="missing: b"):
        posture_of(JointState(name=["a"], position=[1.0]), NAMES)


def test_a_size_of_zeros_is_an_empty_hand_and_half_a_size_is_none() -> None:
    assert held_of(Vector3(), Point()) is None
    with pytest.raises(PointingError, match="held_size"):
        held_of(Vector3(x=0.1, y=0.1), Point())


def test_a_cloud_with_colours_and_the_other_byte_order_is_read() -> None:
    names = ("rgb", "z", "y", "x")
    fields = [PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in enumerate(names)]
    columns = np.column_stack([[7.0, 7.0], POINTS[:, ::-1]])
    cloud = PointCloud2(height=1, width=2, fields=fields, is_bigendian=True, point_step=20, row_step=40)
    cloud.data = np.column_stack([columns, [0.0, 0.0]]).astype(">f4").tobytes()
    np.testing.assert_allclose(points_of(cloud), POINTS, atol=1e-6)


def test_a_cloud_that_is_cut_short_or_has_no_points_in_it_is_refused() -> None:
    cloud = cloud_message(POINTS, Header())
    cloud.width = 3
    with pytest.raises(PointingError, match="shorter"):
        points_of(cloud)
    cloud = cloud_message(POINTS, Header())
    cloud.fields = cloud.fields[:2]
    with pytest.raises(PointingError, match="x, y, z"):
        points_of(cloud)
    assert len(points_of(PointCloud2())) == 0


@pytest.mark.parametrize(
    ("said_m", "opening_m"), [(0.0, None), (0.05, 0.05), (0.08, 0.08), (-1.5e-6, None), (0.0809, 0.08)]
)
def test_an_opening_may_be_a_hair_beyond_what_is_possible_as_measured_ones_are(
    said_m: float, opening_m: float | None
) -> None:
    assert opening_of(said_m, 0.08) == opening_m


@pytest.mark.parametrize("said_m", [-0.01, 0.09, float("nan"), float("inf")])
def test_an_opening_that_cannot_be_is_refused(said_m: float) -> None:
    with pytest.raises(PointingError, match="gripper_opening"):
        opening_of(said_m, 0.08)
