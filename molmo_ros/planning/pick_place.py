"""Pick what some words name and put it elsewhere: the order of things, without ROS.

    task = PickPlace(robot, point, scene, PickOptions())
    report = task.run("the red mug", place=np.array([0.45, 0.3, 0.0]))

`look` from afar, `point` at what is asked for, find the grasp; come above it and look again from the hand, which is
near and so sees better where the thing is; `plan`, approach, `pick`; `lift`, and check by the fingers and by
another look that the thing is held and gone from its place; `place`, and check again. A grasp that failed is tried
once more after a fresh look. Nothing moves without a checked plan, and a stop is obeyed in every stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from molmo_ros.geometry.gripper_room import Gripper
from molmo_ros.geometry.locate import Located, locate
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros.planning.obstacles import Box, voxels_from_points, without_target
from molmo_ros.planning.reach import ReachOptions, ReachPlan, plan_joints, plan_line, plan_reach
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.planning.table_view import Sight, TableView, level_view
from molmo_ros.planning.top_grasp import Fingers, TopGrasp, top_grasps
from molmo_ros.planning.trajectory import Trajectory
from molmo_ros.pointing.point import Point2D

Point = Callable[[np.ndarray, str], tuple[Point2D, ...]]
FAR, NEAR = "camera", "wrist"


class Arm(Protocol):
    """What the task needs of a robot."""

    def joints(self) -> np.ndarray:
        """Measured positions of the arm's joints (D,)."""

    def follow(self, trajectory: Trajectory) -> Outcome:
        """Move along a trajectory, to its end or until stopped."""

    def grip(self, opening_m: float) -> float:
        """Fingers to this distance, or to what is between them; returns how far apart they ended."""

    def look(self, camera: str) -> Sight:
        """A frame of now, from the camera that stands ("camera") or the one on the hand ("wrist")."""


@dataclass(frozen=True)
class PickOptions:
    """How picks are made. `table_z_m`: height of the table in the base frame. `tries`: grasps at most. `boxes`:
    what always stands there, the table included. `uses_wrist`: look again from above before the grasp."""

    table_z_m: float = 0.0
    tries: int = 2
    boxes: tuple[Box, ...] = ()
    uses_wrist: bool = True
    hover_m: float = 0.14
    approach_m: float = 0.10
    # Things that the fingers close to less than this are not there.
    least_width_m: float = 0.003
    voxel_m: float = 0.015
    robot_padding_m: float = 0.03
    speed_scale: float = 0.7
    approach_speed_m_s: float = 0.12
    seed: int = 0
    fingers: Fingers = field(default_factory=Fingers)


# Ways to close that are planned to, best first, and postures tried for each.
_MOST_GRASPS = 10
_ATTEMPTS_PER_GRASP = 6
_PLACE_ATTEMPTS = 48
# A thing is looked for this far from where it was seen from afar, and its points count as its own this far out.
_MOVED_M = 0.03
_OWN_MARGIN_M = 0.012
# Half the width of a thing whose outline cannot be told from afar.
_UNKNOWN_REACH_M = 0.05


@dataclass(eq=False)
class PickReport:
    """What came of it: `stage` reached (look, plan, pick, lift, look_again, place, done), grasps tried, what was
    seen, the last grasp, and the width held."""

    outcome: Outcome = field(default_factory=Outcome)
    stage: str = "look"
    tries: int = 0
    seen: tuple[Located, ...] = ()
    place_seen: tuple[Located, ...] = ()
    grasp: np.ndarray | None = None
    width_m: float = float("nan")
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Target:
    """The thing as last seen: its points (N, 3), the middle of its top (3,), its height above the table, and how
    wide it is at most."""

    own_base_N3: np.ndarray
    middle_base: np.ndarray
    height_m: float
    extent_m: float

    @classmethod
    def of(cls, own_base_N3: np.ndarray, table_z_m: float) -> _Target:
        top = float(np.percentile(own_base_N3[:, 2], 98))
        upper = own_base_N3[own_base_N3[:, 2] > top - 0.4 * max(top - table_z_m, 0.01)]
        low, high = np.percentile(upper[:, :2], 2, axis=0), np.percentile(upper[:, :2], 98, axis=0)
        middle = np.array([*(low + high) / 2, top])
        return cls(own_base_N3, middle, top - table_z_m, float(np.hypot(*(high - low))))


class PickPlace:
    """One task at a time. `report` is told the stage whenever it changes; `stop` says why to stop, or ""."""

    def __init__(
        self,
        arm: Arm,
        point: Point,
        scene: RoboplanScene,
        options: PickOptions,
        *,
        report: Callable[[PickReport], None] = lambda _: None,
        stop: Callable[[], str] = lambda: "",
    ) -> None:
        self._arm, self._point, self._scene, self._options = arm, point, scene, options
        self._report, self._stop = report, stop
        self._home = arm.joints()

    def run(self, words: str, place: str | np.ndarray | None = None, *, dry_run: bool = False) -> PickReport:
        """Pick what the words name; put it in or on what `place` names, or at a point (3,) of the base frame with
        its foot, or hold it (None). Never raises PointingError: the report says what went wrong, and where."""
        done = PickReport()
        try:
            self._run(words, place, dry_run, done)
        except PointingError as error:
            done.outcome = error.outcome
        return done

    # ------------------------------------------------------------ the order of things

    def _run(self, words: str, place: str | np.ndarray | None, dry_run: bool, done: PickReport) -> None:
        while True:
            done.tries += 1
            try:
                target = self._pick(words, dry_run, done)
                break
            except PointingError as error:
                if error.outcome.code != Code.GRASP_FAILED or done.tries >= self._options.tries:
                    raise
                done.notes.append(f"try {done.tries}: {error.outcome.message}")
                self._withdraw()
        if not dry_run and place is not None:
            self._place(place, target, done)
        self._enter("done", done)

    def _pick(self, words: str, dry_run: bool, done: PickReport) -> _Target:
        self._enter("look", done)
        view = self._view(FAR)
        located = self._located(view, words)
        done.seen = (located,)
        target = self._target(view, located)
        self._enter("plan", done)
        self._see(view, target)
        if self._options.uses_wrist and not dry_run:
            view, target = self._from_above(target, done)
        plan, grasp = self._planned_grasp(view, target)
        assert plan.approach is not None
        done.grasp = self._scene.goal_pose(plan.approach.positions[-1])  # perhaps turned by half a turn
        if dry_run:
            return target
        self._enter("pick", done)
        self._arm.grip(grasp.opening_m)
        self._follow(plan.move)
        self._follow(plan.approach)
        done.width_m = self._arm.grip(0.0)
        if done.width_m < self._options.least_width_m:
            raise PointingError(
                Code.GRASP_FAILED,
                f"the fingers closed to {1e3 * done.width_m:.1f} mm: nothing is between them",
            )
        self._enter("lift", done)
        self._lift(plan.approach, done)
        self._enter("look_again", done)
        self._check_gone(target)
        return target

    def _planned_grasp(self, view: TableView, target: _Target) -> tuple[ReachPlan, TopGrasp]:
        """A plan to the best grasp that can be reached."""
        grasps = top_grasps(
            view.points_base().reshape(-1, 3),
            target.own_base_N3,
            self._options.table_z_m,
            self._options.fingers,
        )
        if not grasps:
            raise PointingError(
                Code.TOO_WIDE,
                f"nowhere do both fingers fit beside a part of it that is at most "
                f"{1e3 * self._options.fingers.max_opening_m:.0f} mm wide; clear the space around it",
            )
        failure: PointingError | None = None
        for grasp in grasps[:_MOST_GRASPS]:
            self._scene.set_opening(grasp.opening_m)
            options = self._reach(self._options.approach_m, 0.0, _ATTEMPTS_PER_GRASP)
            try:
                plan = plan_reach(
                    self._scene,
                    self._arm.joints(),
                    [grasp.T_base_grasp],
                    options,
                    cancelled=lambda: bool(self._stop()),
                )
            except PointingError as error:
                if error.outcome.code in (Code.CANCELLED, Code.START_IN_COLLISION, Code.TIMEOUT):
                    raise
                failure = failure or error
                continue
            return plan, grasp
        assert failure is not None
        raise failure

    def _lift(self, approach: Trajectory, done: PickReport) -> None:
        """Back the way that the hand came, which is known to be free."""
        self._scene.set_opening(done.width_m)
        self._follow(approach.reversed())
        held_m = self._arm.grip(0.0)
        if held_m < self._options.least_width_m:
            raise PointingError(
                Code.GRASP_FAILED, f"it slipped out: the fingers are {1e3 * held_m:.1f} mm apart"
            )

    def _check_gone(self, target: _Target) -> None:
        """The place that it was taken from is empty, as far as the camera sees it past the arm."""
        try:
            view = self._view(FAR)
        except PointingError:
            return  # the arm hides the table: the fingers alone have said that they hold something
        points = view.points_base().reshape(-1, 3)
        on_arm = self._scene.on_robot(self._arm.joints(), points, self._options.robot_padding_m)
        low = points[~on_arm & (points[:, 2] < target.height_m + self._options.table_z_m + 0.02)]
        there = np.hypot(*(low[:, :2] - target.middle_base[:2]).T) < 0.3 * target.extent_m
        if there.sum() < 30:
            return
        filled = float((low[there, 2] > self._options.table_z_m + 0.5 * target.height_m).mean())
        if filled > 0.5:
            raise PointingError(
                Code.GRASP_FAILED, "something still stands where it was taken from: not it was lifted"
            )

    def _place(self, place: str | np.ndarray, target: _Target, done: PickReport) -> None:
        self._enter("place", done)
        self._scene.release()
        goals = self._place_goals(place, target, done)
        self._hold(target, done)
        try:
            plan = plan_reach(
                self._scene,
                self._arm.joints(),
                goals,
                replace(self._reach(self._options.approach_m, 0.0, _PLACE_ATTEMPTS), half_turns=False),
                cancelled=lambda: bool(self._stop()),
            )
            self._follow(plan.move)
            assert plan.approach is not None
            self._follow(plan.approach)
        finally:
            self._scene.release()
        self._arm.grip(min(done.width_m + 0.03, self._options.fingers.max_opening_m))
        self._scene.set_opening(self._options.fingers.max_opening_m)
        self._withdraw()

    def _place_goals(self, place: str | np.ndarray, target: _Target, done: PickReport) -> list[np.ndarray]:
        """Tool poses that put the thing's middle over the place, turned all ways."""
        assert done.grasp is not None
        if isinstance(place, str):
            self._withdraw_view()
            view = self._view(FAR)
            located = self._located(view, place)
            done.place_seen = (located,)
            on = self._target(view, located)
            foot = np.array([*on.middle_base[:2], self._options.table_z_m + on.height_m + 0.01])
        else:
            foot = np.array([*place[:2], max(float(place[2]), self._options.table_z_m) + 0.004])
        above_foot = float(done.grasp[2, 3]) - self._options.table_z_m
        offset = target.middle_base[:2] - done.grasp[:2, 3]
        goals = []
        for turn in np.arange(8) * np.pi / 4:
            c, s = np.cos(turn), np.sin(turn)
            Rz = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
            T = np.eye(4)
            T[:3, :3] = Rz @ done.grasp[:3, :3]
            T[:2, 3] = foot[:2] - Rz[:2, :2] @ offset
            T[2, 3] = foot[2] + above_foot
            goals.append(T)
        return goals

    # ------------------------------------------------------------ seeing

    def _view(self, camera: str) -> TableView:
        return level_view(self._arm.look(camera), self._options.table_z_m)

    def _located(self, view: TableView, words: str) -> Located:
        points = self._point(view.frame.color_HW3, words)
        if not points:
            raise PointingError(Code.NOT_FOUND, f"the model sees no {words!r}")
        located = locate(view.frame, points[0], view.T_base_camera, support=view.support, gripper=Gripper())
        if not np.isfinite(located.position_base_m).all():
            raise PointingError(located.outcome.code, located.outcome.message)
        return located

    def _target(self, view: TableView, located: Located) -> _Target:
        """The thing as far as it can be told from afar: what stands within its footprint."""
        middle, reach = np.array(located.position_base_m), _UNKNOWN_REACH_M
        if located.grasp is not None:
            footprint = located.grasp.footprint
            top, half = (
                np.array(located.grasp.top_base_m),
                float(np.hypot(footprint.width_m, footprint.length_m)) / 2,
            )
            # A footprint that the point does not lie in is another thing's.
            if np.hypot(*(top - middle)[:2]) < half + _OWN_MARGIN_M:
                middle, reach = top, half
        own = view.thing_near(middle, reach + _OWN_MARGIN_M)
        if own is None:
            raise PointingError(
                Code.NO_DEPTH, "nothing stands on the table where the model points; point at a thing"
            )
        own = _within(own, middle, reach + _OWN_MARGIN_M)
        height = float(np.percentile(own[:, 2], 98)) - self._options.table_z_m
        return _Target(own, middle, height, 2 * reach)

    def _from_above(self, target: _Target, done: PickReport) -> tuple[TableView, _Target]:
        """The same thing, seen from the hand above it."""
        hovers = []
        for turn in np.arange(8) * np.pi / 4:
            T = np.eye(4)
            c, s = np.cos(turn), np.sin(turn)
            T[:3, :3] = np.array([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, -1.0]])
            T[:3, 3] = target.middle_base + [0.0, 0.0, self._options.hover_m]
            hovers.append(T)
        plan = plan_reach(
            self._scene,
            self._arm.joints(),
            hovers,
            self._reach(0.0, 0.0),
            cancelled=lambda: bool(self._stop()),
        )
        self._follow(plan.move)
        view = self._view(NEAR)
        own = view.thing_near(target.middle_base, target.extent_m / 2 + _MOVED_M)
        if own is None:
            raise PointingError(Code.GRASP_FAILED, "seen from above, it is not where it was: it was moved")
        own = _within(own, target.middle_base, target.extent_m / 2 + _MOVED_M)
        refined = _Target.of(own, self._options.table_z_m)
        moved = float(np.hypot(*(refined.middle_base - target.middle_base)[:2]))
        done.notes.append(f"seen from above it is {1e3 * moved:.0f} mm from where it was seen from afar")
        return view, refined

    def _see(self, view: TableView, target: _Target) -> None:
        """What stands around becomes obstacles, without the arm and the thing itself."""
        points = view.standing_points()
        points = points[~self._scene.on_robot(self._arm.joints(), points, self._options.robot_padding_m)]
        others = without_target(points, target.own_base_N3, _OWN_MARGIN_M)
        self._scene.set_obstacles(self._options.boxes, voxels_from_points(others, self._options.voxel_m))

    # ------------------------------------------------------------ moving

    def _enter(self, stage: str, done: PickReport) -> None:
        done.stage = stage
        self._report(done)
        self._obey()

    def _obey(self) -> None:
        reason = self._stop()
        if reason:
            raise PointingError(Code.CANCELLED, reason)

    def _follow(self, trajectory: Trajectory) -> None:
        self._obey()
        outcome = self._arm.follow(trajectory)
        if not outcome.ok:
            raise PointingError(outcome.code, outcome.message)

    def _reach(self, approach_m: float, retreat_m: float, attempts: int = 24) -> ReachOptions:
        return ReachOptions(
            approach_m=approach_m,
            retreat_m=retreat_m,
            speed_scale=self._options.speed_scale,
            approach_speed_m_s=self._options.approach_speed_m_s,
            attempts=attempts,
            seed=self._options.seed,
        )

    def _hold(self, target: _Target, done: PickReport) -> None:
        """The thing in the hand must not touch anything on its way."""
        assert done.grasp is not None
        above_foot = float(done.grasp[2, 3]) - self._options.table_z_m
        wide = float(np.clip(0.75 * target.extent_m, 0.02, 0.2))
        aside = done.grasp[:3, :3].T @ [*(target.middle_base - done.grasp[:3, 3])[:2], 0.0]
        T_goal_box = np.eye(4)
        T_goal_box[:3, 3] = [*aside[:2], above_foot / 2 - 0.002]
        self._scene.hold((wide, wide, above_foot), T_goal_box)

    def _withdraw(self) -> None:
        """Straight up from where the hand is, and back to where the arm was at the start."""
        self._arm.grip(self._options.fingers.max_opening_m)
        self._scene.set_opening(self._options.fingers.max_opening_m)
        up = self._scene.goal_pose(self._arm.joints())
        up[2, 3] += self._options.approach_m
        self._follow(
            plan_line(self._scene, self._arm.joints(), up, self._reach(0.0, 0.0), may_touch_at_start=True)
        )
        self._follow(plan_joints(self._scene, self._arm.joints(), self._home, self._reach(0.0, 0.0)))

    def _withdraw_view(self) -> None:
        """With the thing in the hand, out of the camera's view."""
        self._follow(plan_joints(self._scene, self._arm.joints(), self._home, self._reach(0.0, 0.0)))


def _within(points_N3: np.ndarray, middle: np.ndarray, radius_m: float) -> np.ndarray:
    """Those of the points that lie so near to a middle on the level; all, if none does."""
    inside = np.hypot(points_N3[:, 0] - middle[0], points_N3[:, 1] - middle[1]) < radius_m
    return points_N3[inside] if inside.any() else points_N3
