"""The simulated cell as a robot that a task can use: checked plans, noisy depth, and cameras that are not quite where
they are said to be. Nothing of the scene's truth passes through here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.frame import Frame
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros.planning.motion import Motion, plan_motion
from molmo_ros.planning.obstacles import Box
from molmo_ros.planning.pick_robot import FAR, NEAR, Pointed
from molmo_ros.planning.reach import ReachOptions, ReachPlan
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.planning.table_view import Sight
from molmo_ros.planning.trajectory import Trajectory
from molmo_ros.pointing.point import Point2D
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


Pointing = Callable[[np.ndarray, str], tuple[Point2D, ...]]
# What the camera sees nearer to the arm than this is the arm.
_PADDING_M = 0.03


class CellArm:
    """One scene of a cell, as `pick_robot.PickRobot`."""

    def __init__(
        self,
        cell: RobotCell,
        scene: RoboplanScene,
        pointing: Pointing,
        boxes: tuple[Box, ...],
        seed: int,
        mounting: MountingError | None = None,
        depth_noise: str = "d435",
    ) -> None:
        """`pointing` answers a colour picture (H, W, 3) and words; `boxes` always stand there."""
        self._cell, self._scene, self._noise = cell, scene, depth_noise
        self._pointing, self._boxes = pointing, boxes
        self._planning = ReachOptions(speed_scale=0.7, approach_speed_m_s=0.12, seed=seed % 1000)
        self._opening_m = scene.robot.gripper.max_opening_m if scene.robot.gripper else 0.0
        self._way_in: Trajectory | None = None
        self._rng = np.random.default_rng([seed, 77])
        mounting = mounting or MountingError()
        self._T_true_said = {name: mounting.drawn(self._rng) for name in (FAR, NEAR)}

    def point(self, words: str, camera: str) -> Pointed:
        sight = self.look(camera)
        return Pointed(sight, self._pointing(sight.frame.color_HW3, words))

    def look(self, camera: str) -> Sight:
        view = self._cell.look(camera)
        truth = self._cell.camera(camera)
        width, height = self._cell.tabletop.render_size
        K = truth.K((width, height))
        depth_m = noisy_depth(view.depth_m, float(K[0, 0]), self._rng, self._noise)
        model = CameraModel.from_info(width=width, height=height, k=K)
        frame = Frame(view.color, depth_m, model, round(1e9 * self._cell.physics.time_s), camera)
        return Sight(frame, truth.T_base_camera @ self._T_true_said[camera])

    def joints(self) -> np.ndarray:
        return self._cell.physics.joints()[0]

    def tool(self) -> np.ndarray:
        return self._scene.goal_pose(self.joints())

    def on_arm(self, points_base_N3: np.ndarray) -> np.ndarray:
        return self._scene.on_robot(self.joints(), points_base_N3, _PADDING_M)

    def plan(self, motion: Motion) -> None:
        self._planned(motion)

    def move(self, motion: Motion) -> None:
        plan = self._planned(motion)
        self._way_in = None
        for _, part in plan.parts():
            outcome = self.follow(part)
            if not outcome.ok:
                raise PointingError(outcome.code, outcome.message)
        self._way_in = plan.approach

    def follow(self, trajectory: Trajectory) -> Outcome:
        """Along a trajectory to its end."""
        result: Following = self._cell.follow(trajectory, self._scene.limits)
        if result.state == "reached":
            return Outcome()
        said = _SAID.get(result.state, "the motion was " + result.state)
        return Outcome(Code.EXECUTION_FAILED, said.format(result.error_rad))

    def grip(self, opening_m: float) -> float:
        self._opening_m = self._cell.grip(opening_m)
        return self._opening_m

    def _planned(self, motion: Motion) -> ReachPlan:
        self._scene.set_opening(self._opening_m)  # unless the motion says otherwise
        return plan_motion(
            self._scene, self._boxes, self.joints(), motion, self._planning, way_in=self._way_in
        )
