"""Trajectories as ROS messages, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from molmo_ros.nodes.messages import NANOSECONDS, duration
from molmo_ros.outcome import Code, PointingError
from molmo_ros.planning.trajectory import Trajectory


def trajectory_message(trajectory: Trajectory) -> JointTrajectory:
    """All samples with positions, velocities and accelerations; a stamp of zero means: begin at once."""
    message = JointTrajectory(joint_names=list(trajectory.joint_names))
    for time_s, position, velocity, acceleration in zip(
        trajectory.times_s,
        trajectory.positions,
        trajectory.velocities,
        trajectory.accelerations,
        strict=True,
    ):
        message.points.append(
            JointTrajectoryPoint(
                positions=position.tolist(),
                velocities=velocity.tolist(),
                accelerations=acceleration.tolist(),
                time_from_start=duration(float(time_s)),
            )
        )
    return message


def trajectory_from(message: JointTrajectory, joint_names: Sequence[str]) -> Trajectory:
    """A message's trajectory, with its joints in the order of `joint_names`.

    Velocities that are not given are taken from the positions. Raises PointingError(INVALID_REQUEST) for what no
    arm could follow: other joints, no points, numbers that are none, times that do not rise.
    """
    if sorted(message.joint_names) != sorted(joint_names):
        raise PointingError(
            Code.INVALID_REQUEST,
            f"the trajectory moves {', '.join(message.joint_names) or 'nothing'}; the arm's joints are "
            f"{', '.join(joint_names)}",
        )
    if not message.points:
        raise PointingError(Code.INVALID_REQUEST, "the trajectory has no points")
    columns = [list(message.joint_names).index(name) for name in joint_names]
    times = np.array(
        [p.time_from_start.sec + p.time_from_start.nanosec / NANOSECONDS for p in message.points]
    )
    if (np.diff(times) <= 0).any() or times[0] < 0:
        raise PointingError(Code.INVALID_REQUEST, "the times of the trajectory's points do not rise")
    positions = _rows([p.positions for p in message.points], columns, "positions")
    if positions is None:
        raise PointingError(Code.INVALID_REQUEST, "the trajectory's points have no positions")
    velocities = _rows([p.velocities for p in message.points], columns, "velocities")
    accelerations = _rows([p.accelerations for p in message.points], columns, "accelerations")
    if velocities is None:
        velocities = np.gradient(positions, times, axis=0) if len(times) > 1 else np.zeros_like(positions)
        velocities[[0, -1]] = 0.0
    if accelerations is None:
        accelerations = np.zeros_like(positions)
    return Trajectory(tuple(joint_names), times, positions, velocities, accelerations)


def _rows(values: list[Sequence[float]], columns: list[int], what: str) -> np.ndarray | None:
    """(N, D) of what every point has; None when no point has any."""
    if all(len(row) == 0 for row in values):
        return None
    if any(len(row) != len(columns) for row in values):
        raise PointingError(
            Code.INVALID_REQUEST, f"the trajectory's points do not all have {len(columns)} {what}"
        )
    rows = np.array([list(row) for row in values], dtype=float)[:, columns]
    if not np.isfinite(rows).all():
        raise PointingError(Code.INVALID_REQUEST, f"the trajectory's {what} are not all finite")
    return rows
