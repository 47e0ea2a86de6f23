"""How an arm's controller follows a trajectory: the wanted posture at every instant, and when it gives up.

What a ros2_control joint trajectory controller does, and one thing more: a heartbeat. Whoever commands must be
heard again within `heartbeat_s`, or the motion is braked along its own path.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from molmo_ros.planning.trajectory import JointLimits, Trajectory

#: Further than this from where it should be, the arm is held up by something.
PATH_TOLERANCE_RAD = 0.15
GOAL_TOLERANCE_RAD = 0.02
#: How long after its end a motion may take to come to rest at its goal.
GOAL_TIME_S = 1.0


@dataclass(frozen=True)
class Following:
    """State of a motion: "moving", or how it ended: "reached", "stopped", "path_tolerance", "goal_tolerance"."""

    state: str
    error_rad: float = 0.0

    @property
    def ended(self) -> bool:
        return self.state != "moving"


class Follower:
    """Follows one trajectory in the time of its caller."""

    def __init__(
        self, trajectory: Trajectory, limits: JointLimits, now_s: float, heartbeat_s: float | None = None
    ) -> None:
        """`heartbeat_s` None: no heartbeat is asked for."""
        self._trajectory, self._limits = trajectory, limits
        self._began_s = now_s
        self._heartbeat_s, self._heard_s = heartbeat_s, now_s
        self.stopping = False

    def heard(self, now_s: float) -> None:
        """The commander is alive."""
        self._heard_s = now_s

    def stop(self, now_s: float) -> None:
        """Brake, along the path."""
        if not self.stopping:
            self._trajectory = self._trajectory.braked(now_s - self._began_s, self._limits)
            self._began_s = now_s
            self.stopping = True

    def wanted(self, now_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Position and speed (D,) for the servos."""
        if self._heartbeat_s is not None and now_s - self._heard_s > self._heartbeat_s:
            self.stop(now_s)
        return self._trajectory.at(now_s - self._began_s)

    def progress(self, now_s: float) -> float:
        """0 .. 1 of the time that the motion takes."""
        return float(np.clip((now_s - self._began_s) / max(self._trajectory.duration_s, 1e-9), 0.0, 1.0))

    def judge(self, measured: np.ndarray, now_s: float) -> Following:
        """Where the motion is, given where the joints are."""
        wanted, _ = self._trajectory.at(now_s - self._began_s)
        error = float(np.abs(measured - wanted).max())
        over_s = now_s - self._began_s - self._trajectory.duration_s
        if error > PATH_TOLERANCE_RAD:
            return Following("path_tolerance", error)
        if over_s < 0:
            return Following("moving", error)
        if error <= GOAL_TOLERANCE_RAD:
            return Following("stopped" if self.stopping else "reached", error)
        return Following("goal_tolerance" if over_s > GOAL_TIME_S else "moving", error)
