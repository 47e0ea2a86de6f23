"""Trajectories to messages and back, and messages that no arm could follow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("trajectory_msgs")

from trajectory_msgs.msg import JointTrajectory

from molmo_ros.nodes.trajectory_messages import trajectory_from, trajectory_message
from molmo_ros.outcome import Code, PointingError
from molmo_ros.planning.trajectory import Trajectory


def sweep() -> Trajectory:
    t = np.linspace(0.0, 1.0, 11)
    p = np.stack([t**2, -t], axis=1)
    return Trajectory(("a", "b"), t, p, np.stack([2 * t, -np.ones(11)], 1), np.stack([2 + 0 * t, 0 * t], 1))


def test_there_and_back_it_is_the_same_also_with_joints_in_another_order() -> None:
    message = trajectory_message(sweep())
    back = trajectory_from(message, ("b", "a"))
    np.testing.assert_allclose(back.positions, sweep().positions[:, ::-1])
    np.testing.assert_allclose(back.velocities, sweep().velocities[:, ::-1])
    np.testing.assert_allclose(back.times_s, sweep().times_s, atol=1e-9)


def test_velocities_that_are_not_given_come_from_the_positions() -> None:
    message = trajectory_message(sweep())
    for point in message.points:
        point.velocities, point.accelerations = [], []
    back = trajectory_from(message, ("a", "b"))
    np.testing.assert_allclose(back.velocities[1:-1, 1], -1.0)
    np.testing.assert_allclose(back.velocities[[0, -1]], 0.0)


def _drop_joint(message: JointTrajectory) -> None:
    message.joint_names = ["a"]


def _no_points(message: JointTrajectory) -> None:
    message.points = []


def _not_a_number(message: JointTrajectory) -> None:
    message.points[3].positions = [float("nan"), 0.0]


def _backwards(message: JointTrajectory) -> None:
    message.points[3].time_from_start.nanosec = 0
    message.points[3].time_from_start.sec = 0


def _short(message: JointTrajectory) -> None:
    message.points[3].positions = [0.0]


@pytest.mark.parametrize("spoil", [_drop_joint, _no_points, _not_a_number, _backwards, _short])
def test_what_no_arm_could_follow_is_refused(spoil: Callable[[JointTrajectory], None]) -> None:
    message = trajectory_message(sweep())
    spoil(message)
    with pytest.raises(PointingError) as refused:
        trajectory_from(message, ("a", "b"))
    assert refused.value.outcome.code == Code.INVALID_REQUEST
