"""The simulated cell as a robot that a task can use: noisy depth, and cameras that are not quite where they are
said to be. Nothing of the scene's truth passes through here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.frame import Frame
from molmo_ros.outcome import Code, Outcome
from molmo_ros.planning.table_view import Sight
from molmo_ros.planning.trajectory import JointLimits, Trajectory
from molmo_ros.sim.depth_noise import noisy_depth
from molmo_ros.sim.following import Following
from molmo_ros.sim.robot_cell import RobotCell

_SAID = {
    "path_tolerance": "something holds the arm, {:.3f} rad from its path",
    "goal_tolerance": "the arm came to rest {:.3f} rad from its goal",
}


@dataclass(frozen=True)
class MountingError:
    """How far cameras are from where they are said to be: this far in some direction, and turned by this much
    about some axis; each camera in its own way, the same for a whole scene."""

    distance_m: float = 0.0
    angle_rad: float = 0.0

    def drawn(self, rng: np.random.Generator) -> np.ndarray:
        """T_true_said (4x4), in the camera's frame."""
        direction, axis = rng.normal(size=(2, 3))
        T = np.eye(4)
        T[:3, :3] = Rotation.from_rotvec(self.angle_rad * axis / np.linalg.norm(axis)).as_matrix()
        T[:3, 3] = self.distance_m * direction / np.linalg.norm(direction)
        return T


class CellArm:
    """One scene of a cell, as `pick_place.Arm`."""

    def __init__(
        self,
        cell: RobotCell,
        limits: JointLimits,
        seed: int,
        mounting: MountingError | None = None,
        depth_noise: str = "d435",
    ) -> None:
        self._cell, self._limits, self._noise = cell, limits, depth_noise
        self._rng = np.random.default_rng([seed, 77])
        mounting = mounting or MountingError()
        self._T_true_said = {name: mounting.drawn(self._rng) for name in ("camera", "wrist")}

    def joints(self) -> np.ndarray:
        return self._cell.physics.joints()[0]

    def follow(self, trajectory: Trajectory) -> Outcome:
        result: Following = self._cell.follow(trajectory, self._limits)
        if result.state == "reached":
            return Outcome()
        said = _SAID.get(result.state, "the motion was " + result.state)
        return Outcome(Code.EXECUTION_FAILED, said.format(result.error_rad))

    def grip(self, opening_m: float) -> float:
        return self._cell.grip(opening_m)

    def look(self, camera: str) -> Sight:
        view = self._cell.look(camera)
        truth = self._cell.camera(camera)
        width, height = self._cell.tabletop.render_size
        K = truth.K((width, height))
        depth_m = noisy_depth(view.depth_m, float(K[0, 0]), self._rng, self._noise)
        model = CameraModel.from_info(width=width, height=height, k=K)
        frame = Frame(view.color, depth_m, model, round(1e9 * self._cell.physics.time_s), camera)
        return Sight(frame, truth.T_base_camera @ self._T_true_said[camera])
