"""From a posture to a goal: a checked plan, or an outcome that says what is in the way.

    scene = RoboplanScene(load_robot("fr3"))
    scene.set_obstacles([Box.upright("table", (1.1, 1.6, 0.1), (0.72, 0.0, -0.05))])
    plan = plan_reach(scene, joints, [T_base_goal], ReachOptions())
    plan.move, plan.approach, plan.retreat

A plan is a free motion to a place before the goal, a straight approach along the goal's z and a straight retreat.
Every trajectory is checked for collisions at its samples and between them, and against the limits, after all
that was done to it. What a plan is depends on the scene, the start, the goals and the seed alone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from molmo_ros.outcome import Code, PointingError
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.planning.trajectory import Trajectory, limit_violation

# A hand that has closed around something stands this near to where its way in ended.
_AT_ITS_END_RAD = 0.05
# Postures nearer than this to each other are at both ends of one straight line.
_SAME_WAY_RAD = 0.8
_HALF_TURN = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class ReachOptions:
    """How a goal is to be reached.

    `approach_m`, `retreat_m`: lengths of the straight parts, 0 = none. `speed_scale` (0..1]: share of the joints'
    limits of speed and acceleration; `approach_speed_m_s` of the tool on straight parts, times `speed_scale`.
    `attempts`: how many postures before the goals are tried. `budget_s`: checked between the stages; the caps of
    the scene end each stage. `half_turns`: a symmetric gripper may come turned by half a turn about the approach;
    not so when it holds something beside its middle.
    """

    approach_m: float = 0.10
    retreat_m: float = 0.10
    speed_scale: float = 1.0
    approach_speed_m_s: float = 0.15
    attempts: int = 24
    budget_s: float = 10.0
    seed: int = 0
    half_turns: bool = True

    def __post_init__(self) -> None:
        if not (0.0 <= self.approach_m <= 1.0 and 0.0 <= self.retreat_m <= 1.0):
            raise PointingError(
                Code.INVALID_REQUEST,
                f"approach {self.approach_m} m and retreat {self.retreat_m} m must be within 0 .. 1 m",
            )
        if not 0.0 < self.speed_scale <= 1.0:
            raise PointingError(
                Code.INVALID_REQUEST, f"speed_scale is {self.speed_scale}: it takes more than 0, at most 1"
            )


@dataclass(frozen=True, eq=False)
class ReachPlan:
    """Trajectories, each beginning where the one before ends; `approach` and `retreat` None when not asked for.

    `goal_index` is the goal taken, `attempts` how many postures were tried, `planning_s` the time it took.
    """

    move: Trajectory
    approach: Trajectory | None
    retreat: Trajectory | None
    goal_index: int
    attempts: int
    planning_s: float

    def parts(self) -> list[tuple[str, Trajectory]]:
        """("move" | "approach" | "retreat", trajectory), in their order."""
        named = (("move", self.move), ("approach", self.approach), ("retreat", self.retreat))
        return [(name, trajectory) for name, trajectory in named if trajectory is not None]


def plan_reach(
    scene: RoboplanScene,
    start: np.ndarray,
    goals: Sequence[np.ndarray],
    options: ReachOptions | None = None,
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> ReachPlan:
    """A plan to the first of the goals (4x4, base frame; z = approach, x = closing) that can be reached.

    Raises PointingError: START_IN_COLLISION, UNREACHABLE, BLOCKED with what, PLANNING_FAILED, TIMEOUT, CANCELLED,
    INVALID_REQUEST.
    """
    options = options or ReachOptions()
    return _Reach(scene, start, goals, options, cancelled).plan()


def plan_joints(
    scene: RoboplanScene, start: np.ndarray, goal: np.ndarray, options: ReachOptions | None = None
) -> Trajectory:
    """A checked motion to a posture. Raises PointingError as `plan_reach` does."""
    options = options or ReachOptions()
    scene.set_seed(options.seed)
    inside = _checked_start(scene, start)
    outside = scene.outside_limits(goal)
    if outside:
        raise PointingError(Code.UNREACHABLE, f"the posture asked for is not possible: {outside}")
    if scene.collides(goal):
        raise PointingError(
            Code.BLOCKED, f"in the posture asked for, {_listed(scene.contacts(goal))}; free the way"
        )
    path = scene.find_path(inside, goal)
    if path is None:
        raise PointingError(Code.PLANNING_FAILED, _no_way(scene))
    trajectory = scene.timed(path, options.speed_scale)
    fault = _fault(scene, trajectory)
    if fault:
        raise fault
    return trajectory


def plan_back(scene: RoboplanScene, start: np.ndarray, way_in: Trajectory | None) -> Trajectory:
    """The way back along the straight approach that the arm came by, checked anew.

    A straight line solved from below may end at a joint's limit where the one from above did not: only the very way in
    is known to exist. It may begin in contact, as with something just grasped that stands on the table; once free, it
    must stay so. Raises PointingError: PLANNING_FAILED when the arm does not stand at the end of `way_in`, BLOCKED.
    """
    if way_in is None or np.abs(start - way_in.positions[-1]).max() > _AT_ITS_END_RAD:
        raise PointingError(
            Code.PLANNING_FAILED, "the arm does not stand at the end of an approach: there is no way back along it"
        )
    back = way_in.reversed()
    fault = _fault(scene, back, _first_free(scene, back))
    if fault:
        raise fault
    return back


def _first_free(scene: RoboplanScene, trajectory: Trajectory) -> int:
    """The first sample that touches nothing; the last one if all do."""
    samples = enumerate(trajectory.positions)
    return next((i for i, joints in samples if not scene.collides(joints)), len(trajectory.positions) - 1)


class _Reach:
    """One search for a plan, with what went wrong so far."""

    def __init__(
        self,
        scene: RoboplanScene,
        start: np.ndarray,
        goals: Sequence[np.ndarray],
        options: ReachOptions,
        cancelled: Callable[[], bool],
    ) -> None:
        if len(goals) == 0:
            raise PointingError(Code.INVALID_REQUEST, "no goal to plan to")
        for goal in goals:
            _check_goal(np.asarray(goal))
        self._scene, self._options, self._cancelled = scene, options, cancelled
        self._began_s = time.monotonic()
        scene.set_seed(options.seed)
        self._start = _checked_start(scene, start)
        turns = scene.robot.symmetric and options.half_turns
        self._poses = [
            (index, pose)
            for index, goal in enumerate(goals)
            for pose in ([goal, goal @ _HALF_TURN] if turns else [goal])
        ]
        self._rng = np.random.default_rng(options.seed)
        self._faults: Counter[Code] = Counter()
        self._reasons: dict[Code, str] = {}
        self._attempts = 0

    def plan(self) -> ReachPlan:
        while self._attempts < self._options.attempts:
            round_ = self._attempts // len(self._poses)
            candidates = self._candidates(self._seed_of(round_))
            for index, pose, joints in candidates:
                self._check_time()
                plan = self._through(index, pose, joints)
                if plan is not None:
                    return plan
        raise self._failure()

    def _seed_of(self, round_: int) -> np.ndarray:
        """Where IK begins: here, then at rest, then anywhere."""
        if round_ == 0:
            return self._start
        if round_ == 1:
            return np.array(self._scene.robot.ready_rad)
        return self._rng.uniform(self._scene.limits.lower, self._scene.limits.upper)

    def _candidates(self, near: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Postures before each goal, those of the first goal first and of one goal the nearest first."""
        found = []
        for index, pose in self._poses:
            self._check_time()
            self._attempts += 1
            joints = self._scene.solve_ik(_before(pose, self._options.approach_m), near)
            if joints is None:
                self._explain_ik(pose, near)
                continue
            found.append((index, pose, joints))
        return sorted(found, key=lambda c: (c[0], float(np.abs(c[2] - self._start).max())))

    def _through(self, index: int, pose: np.ndarray, joints: np.ndarray) -> ReachPlan | None:
        """The whole plan by way of one posture before the goal, or None with the reason noted."""
        scene, options = self._scene, self._options
        approach = retreat = None
        at_goal = joints
        if options.approach_m > 0:
            approach = self._straight(joints, pose, options.approach_m, 0.0, "approach")
            if approach is None:
                return None
            at_goal = approach.positions[-1]
        if options.retreat_m > 0:
            if approach is not None and options.retreat_m == options.approach_m:
                retreat = approach.reversed()
            else:
                retreat = self._straight(at_goal, pose, 0.0, options.retreat_m, "retreat")
                if retreat is None:
                    return None
        self._check_time()
        path = scene.find_path(self._start, joints if approach is None else approach.positions[0])
        if path is None:
            self._note(Code.PLANNING_FAILED, _no_way(scene))
            return None
        try:
            move = scene.timed(path, options.speed_scale)
        except PointingError as error:
            self._note(error.outcome.code, error.outcome.message)
            return None
        if not self._is_sound(move):
            return None
        return ReachPlan(move, approach, retreat, index, self._attempts, time.monotonic() - self._began_s)

    def _straight(
        self, joints: np.ndarray, pose: np.ndarray, from_m: float, to_m: float, what: str
    ) -> Trajectory | None:
        # A line takes ten times as long to solve for as its end: once one was in vain, those whose end touches
        # something are not tried.
        if self._faults:
            end = self._scene.solve_ik(_before(pose, to_m), joints, collisions=False)
            if end is not None and np.abs(end - joints).max() < _SAME_WAY_RAD and self._scene.collides(end):
                self._note_blocked(f"on the {what}, ", end)
                return None
        # From where the tool is, within IK's tolerance, so that the line begins at this very posture.
        ends = [self._scene.goal_pose(joints), _before(pose, to_m)]
        line = self._scene.straight(joints, ends, self._options.approach_speed_m_s, self._options.speed_scale)
        if line is None:
            self._note(
                Code.UNREACHABLE,
                f"a straight {what} of {max(from_m, to_m):.2f} m leaves the arm's reach or its joints' limits",
            )
            return None
        return line if self._is_sound(line, f"on the {what}, ") else None

    def _is_sound(self, trajectory: Trajectory, where: str = "") -> bool:
        """Whether nothing is wrong with it; what is wrong is noted."""
        fault = _fault(self._scene, trajectory, in_words=Code.BLOCKED not in self._reasons)
        if fault:
            self._note(fault.outcome.code, where + fault.outcome.message)
        return fault is None

    def _note_blocked(self, where: str, joints: np.ndarray) -> None:
        """What touches what is asked once only: it takes longer than to find that something does."""
        if Code.BLOCKED in self._reasons:
            self._faults[Code.BLOCKED] += 1
        else:
            self._note(Code.BLOCKED, where + _touching(self._scene, joints))

    def _explain_ik(self, pose: np.ndarray, near: np.ndarray) -> None:
        """Unreachable, or blocked? The same search without obstacles tells."""
        if Code.BLOCKED in self._reasons:
            self._faults[Code.BLOCKED] += 1
            return
        x, y, z = pose[:3, 3]
        before = _before(pose, self._options.approach_m)
        free = self._scene.solve_ik(before, near, collisions=False)
        if free is None:
            self._note(
                Code.UNREACHABLE,
                f"no joint positions reach ({x:.3f}, {y:.3f}, {z:.3f}) m in {self._scene.robot.base} with this "
                f"orientation ({np.linalg.norm(pose[:3, 3]):.2f} m from the base); move it nearer or turn it",
            )
            return
        touching = _touching(self._scene, free)
        self._note(Code.BLOCKED, f"at ({x:.3f}, {y:.3f}, {z:.3f}) m {touching}; free the place")

    def _note(self, code: Code, reason: str) -> None:
        self._faults[code] += 1
        self._reasons.setdefault(code, reason)

    def _check_time(self) -> None:
        if self._cancelled():
            raise PointingError(Code.CANCELLED, "planning was cancelled")
        if time.monotonic() - self._began_s > self._options.budget_s:
            so_far = f"; so far: {self._failure().outcome.message}" if self._faults else ""
            raise PointingError(
                Code.TIMEOUT,
                f"no plan within {self._options.budget_s:g} s, {self._attempts} attempts{so_far}",
            )

    def _failure(self) -> PointingError:
        """What came nearest: a way that was not found, then something in the way, then nothing within reach."""
        for code in (Code.PLANNING_FAILED, Code.BLOCKED, Code.UNREACHABLE):
            if code in self._reasons:
                return PointingError(code, self._reasons[code])
        raise AssertionError("a plan failed without a reason")


def _fault(
    scene: RoboplanScene, trajectory: Trajectory, free_from: int = 0, *, in_words: bool = True
) -> PointingError | None:
    """What is wrong with a finished trajectory: a limit, or a collision, between samples too, from that sample on.
    What touches what takes longer to tell than that something does; it is not told unless `in_words`."""
    over = limit_violation(trajectory, scene.limits)
    if over:
        return PointingError(Code.PLANNING_FAILED, f"the planned {over}")
    hit = scene.first_collision(trajectory.positions[free_from:])
    if hit is None:
        return None
    return PointingError(Code.BLOCKED, _touching(scene, hit) if in_words else "the arm touches something")


def _checked_start(scene: RoboplanScene, start: np.ndarray) -> np.ndarray:
    start = np.asarray(start, dtype=float)
    if start.shape != (len(scene.limits.names),) or not np.isfinite(start).all():
        raise PointingError(
            Code.INVALID_REQUEST,
            f"the start has joints {start.tolist()}; needed are {len(scene.limits.names)} finite numbers",
        )
    inside = scene.pulled_inside(start)
    if scene.collides(inside):
        raise PointingError(
            Code.START_IN_COLLISION,
            f"where the arm is now, {_listed(scene.contacts(inside))}; move it away by hand",
        )
    return inside


def _check_goal(goal: np.ndarray) -> None:
    if goal.shape != (4, 4) or not np.isfinite(goal).all():
        raise PointingError(Code.INVALID_REQUEST, "a goal is not a finite 4x4 pose")
    if np.abs(goal[:3, :3] @ goal[:3, :3].T - np.eye(3)).max() > 1e-3 or np.linalg.det(goal[:3, :3]) < 0:
        raise PointingError(Code.INVALID_REQUEST, "a goal's orientation is no rotation")


def _before(pose: np.ndarray, distance_m: float) -> np.ndarray:
    """The pose so far back against its approach."""
    T = pose.copy()
    T[:3, 3] -= distance_m * pose[:3, 2]
    return T


def _touching(scene: RoboplanScene, joints: np.ndarray) -> str:
    return _listed(scene.contacts(joints)) or "the arm touches something"


def _listed(contacts: Sequence[str]) -> str:
    return " and ".join(contacts)


def _no_way(scene: RoboplanScene) -> str:
    return (
        f"no way to the goal was found with {scene.caps.max_nodes} nodes: too much stands around; "
        "free the way, or raise max_nodes"
    )
