"""The table with an arm that moves: physics and pictures of one scene, in simulated time.

    cell = RobotCell()
    cell.reset(7)
    cell.follow(trajectory)             # returns when the motion ended
    cell.grip(0.0)
    view = cell.look("wrist")

Headless it runs many times faster than real time; pictures are drawn only when somebody looks.
"""

from __future__ import annotations

import numpy as np

from molmo_ros.planning.trajectory import JointLimits, Trajectory
from molmo_ros.sim.arm import ArmModel
from molmo_ros.sim.following import Follower, Following
from molmo_ros.sim.fr3 import FINGERS, FR3_ARM, JOINTS, T_HAND_WRIST_CAMERA, WRIST_FOVY_DEG
from molmo_ros.sim.physics import TICK_S, TablePhysics
from molmo_ros.sim.scene import SceneRecipe, SceneState, draw_scene
from molmo_ros.sim.surroundings import SceneCamera
from molmo_ros.sim.tabletop import TabletopScene, View

#: Fingers are given this long to close or open.
GRIP_S = 0.6


class RobotCell:
    """One FR3 at one table. GL belongs to the thread that made it, as in TabletopScene."""

    def __init__(
        self,
        render_size: tuple[int, int] = (640, 480),
        recipe: SceneRecipe | None = None,
        samples: int = 0,
        arm: ArmModel = FR3_ARM,
    ) -> None:
        """`arm`: the FR3, perhaps with something drawn on it."""
        self.tabletop = TabletopScene(render_size, recipe, samples, arm)
        self._physics: TablePhysics | None = None
        self._frame = 0

    @property
    def physics(self) -> TablePhysics:
        if self._physics is None:
            raise RuntimeError("no scene yet: call reset(seed) first")
        return self._physics

    @property
    def state(self) -> SceneState:
        """The scene as it was drawn, before anything moved."""
        assert self.tabletop.state is not None
        return self.tabletop.state

    def reset(self, seed: int) -> SceneState:
        """Set up the scene of a seed (`draw_scene`), the arm at rest."""
        return self.show(draw_scene(seed, self.tabletop.recipe))

    def show(self, state: SceneState) -> SceneState:
        """Set up a given scene."""
        self._physics = TablePhysics(state)
        self._frame = 0
        self.tabletop.show(state)
        self.physics.advance(0.2)  # things settle by the half millimetre that they are set down from
        self.physics.touches.clear()
        return state

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.physics.advance(seconds)

    def follow(self, trajectory: Trajectory, limits: JointLimits) -> Following:
        """Move along a trajectory of the arm's joints, and wait for its end."""
        physics = self.physics
        follower = Follower(trajectory, limits, physics.time_s)
        while True:
            physics.command(*follower.wanted(physics.time_s + TICK_S / 2))
            physics.advance(TICK_S)
            result = follower.judge(physics.joints()[0], physics.time_s)
            if result.ended:
                return result

    def grip(self, opening_m: float, force_n: float = 40.0) -> float:
        """Close or open the fingers; returns how far apart they ended."""
        self.physics.grip(opening_m, force_n)
        self.physics.advance(GRIP_S)
        return self.physics.opening_m()

    def look(self, camera: str = "camera", *, segmentation: bool = False) -> View:
        """A picture of now, by the "camera" on its stand or the one on the "wrist"."""
        self._pose_pictures()
        self._frame += 1
        return self.tabletop.render(segmentation=segmentation, frame=self._frame, camera=camera)

    def arm_transforms(self) -> list[tuple[str, str, np.ndarray]]:
        """(parent, child, T_parent_child) of every link now."""
        self._pose_pictures()
        return self.tabletop.arm_transforms()

    def camera(self, name: str = "camera") -> SceneCamera:
        """Pose (base frame, now) and field of view of a camera: the truth, for calibration to be judged by."""
        if name == "camera":
            return self.state.camera
        T = np.eye(4)
        chain = {child: (parent, T_pc) for parent, child, T_pc in self.arm_transforms()}
        link = "fr3_hand"
        while link != "base_link":
            parent, T_parent_link = chain[link]
            T, link = T_parent_link @ T, parent
        return SceneCamera(T @ T_HAND_WRIST_CAMERA, float(np.radians(WRIST_FOVY_DEG)))

    def close(self) -> None:
        self.tabletop.close()

    def _pose_pictures(self) -> None:
        joints, _ = self.physics.joints()
        named = dict(zip(JOINTS, joints, strict=True))
        named |= dict(zip(FINGERS, self.physics.finger_positions(), strict=True))
        self.tabletop.move(named, self.physics.objects())
