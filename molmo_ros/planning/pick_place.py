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
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from molmo_ros.geometry.grasp import GraspPlan
from molmo_ros.geometry.gripper_room import Gripper as GripperShape
from molmo_ros.geometry.locate import Limits, Located, locate
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros.planning.obstacles import Box, Voxels, voxels_from_points
from molmo_ros.planning.reach import ReachOptions, plan_joints, plan_line, plan_reach
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.planning.table_view import Sight, TableView, level_view
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
    approach_m: float = 0.09
    lift_m: float = 0.12
    # Things that the fingers close to less than this are not there.
    least_width_m: float = 0.003
    open_beyond_m: float = 0.024
    voxel_m: float = 0.015
    robot_padding_m: float = 0.03
    speed_scale: float = 0.7
    approach_speed_m_s: float = 0.12
    seed: int = 0
    gripper: GripperShape = field(
        default_factory=lambda: GripperShape(
            max_opening_m=0.078, finger_depth_m=0.032, finger_width_m=0.022, tip_clearance_m=0.006
        )
    )


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
    """The thing as last seen: its grasps, and its middle on the level."""

    plan: GraspPlan
    grasps: tuple[np.ndarray, ...]
    centre_base: np.ndarray
    height_m: float
    extent_m: float


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
        far = self._view(FAR)
        target = self._target_from(far, self._pointed(far, words, done))
        self._enter("plan", done)
        self._see(far, target)
        if self._options.uses_wrist:
            target = self._from_above(target, dry_run, done)
        self._scene.release()
        plan = plan_reach(
            self._scene,
            self._arm.joints(),
            target.grasps,
            self._reach(self._options.approach_m, 0.0),
            cancelled=lambda: bool(self._stop()),
        )
        done.grasp = target.grasps[plan.goal_index]
        if dry_run:
            return target
        self._enter("pick", done)
        self._arm.grip(self._opening_for(target))
        self._follow(plan.move)
        assert plan.approach is not None
        self._follow(plan.approach)
        done.width_m = self._arm.grip(0.0)
        if done.width_m < self._options.least_width_m:
            raise PointingError(
                Code.GRASP_FAILED,
                f"the fingers closed to {1e3 * done.width_m:.1f} mm: nothing is between them",
            )
        self._enter("lift", done)
        self._lift(target, done)
        self._enter("look_again", done)
        self._check_gone(target)
        return target

    def _lift(self, target: _Target, done: PickReport) -> None:
        self._scene.set_opening(done.width_m)
        goal = self._scene.goal_pose(self._arm.joints())
        goal[2, 3] += self._options.lift_m
        self._follow(
            plan_line(self._scene, self._arm.joints(), goal, self._reach(0.0, 0.0), may_touch_at_start=True)
        )
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
        there = np.hypot(*(low[:, :2] - target.centre_base[:2]).T) < 0.6 * target.extent_m / 2
        if there.sum() < 30:
            return
        filled = float((low[there, 2] > self._options.table_z_m + 0.5 * target.height_m).mean())
        if filled > 0.5:
            raise PointingError(
                Code.GRASP_FAILED, "something still stands where it was taken from: not it was lifted"
            )

    def _place(self, place: str | np.ndarray, target: _Target, done: PickReport) -> None:
        self._enter("place", done)
        goals = self._place_goals(place, target, done)
        self._hold(target, done)
        try:
            plan = plan_reach(
                self._scene,
                self._arm.joints(),
                goals,
                self._reach(self._options.approach_m, 0.0),
                cancelled=lambda: bool(self._stop()),
            )
            self._follow(plan.move)
            assert plan.approach is not None
            self._follow(plan.approach)
        finally:
            self._scene.release()
        self._arm.grip(min(done.width_m + 0.03, self._options.gripper.max_opening_m))
        self._scene.set_opening(self._options.gripper.max_opening_m)
        self._withdraw()

    def _place_goals(self, place: str | np.ndarray, target: _Target, done: PickReport) -> list[np.ndarray]:
        """Tool poses that put the thing's middle over the place, turned all ways."""
        assert done.grasp is not None
        if isinstance(place, str):
            self._withdraw_view()
            view = self._view(FAR)
            located = self._located(view, place)
            done.place_seen = (located,)
            on = self._target_from(view, located, needs_grasp=False)
            foot = np.array([*on.centre_base[:2], self._options.table_z_m + on.height_m + 0.01])
        else:
            foot = np.array([*place[:2], max(float(place[2]), self._options.table_z_m) + 0.004])
        above_foot = float(done.grasp[2, 3]) - self._options.table_z_m
        offset = target.centre_base[:2] - done.grasp[:2, 3]
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

    def _pointed(self, view: TableView, words: str, done: PickReport) -> Located:
        located = self._located(view, words)
        done.seen = (located,)
        return located

    def _located(self, view: TableView, words: str) -> Located:
        points = self._point(view.frame.color_HW3, words)
        if not points:
            raise PointingError(Code.NOT_FOUND, f"the model sees no {words!r}")
        return self._locate(view, points[0])

    def _locate(self, view: TableView, point: Point2D) -> Located:
        located = locate(
            view.frame,
            point,
            view.T_base_camera,
            support=view.support,
            gripper=self._options.gripper,
            limits=Limits(),
        )
        if located.grasp is None and not located.outcome.ok:
            raise PointingError(located.outcome.code, located.outcome.message)
        return located

    def _target_from(self, view: TableView, located: Located, *, needs_grasp: bool = True) -> _Target:
        plan = located.grasp
        if plan is None:
            raise PointingError(located.grasp_outcome.code, located.grasp_outcome.message)
        grasps = plan.usable
        if needs_grasp and not grasps:
            raise PointingError(plan.outcome.code, plan.outcome.message)
        return _Target(
            plan,
            tuple(grasp.T_base_grasp for grasp in grasps),
            np.array(plan.top_base_m),
            plan.height_m,
            plan.footprint.width_m,
        )

    def _from_above(self, target: _Target, dry_run: bool, done: PickReport) -> _Target:
        """The same thing, seen from the hand above it."""
        if dry_run:
            return target
        hovers = []
        for grasp in target.grasps:
            T = grasp.copy()
            T[:3, 3] = target.centre_base + [0.0, 0.0, self._options.hover_m]
            hovers.append(T)
        plan = plan_reach(
            self._scene,
            self._arm.joints(),
            hovers,
            self._reach(0.0, 0.0),
            cancelled=lambda: bool(self._stop()),
        )
        self._follow(plan.move)
        near = self._view(NEAR)
        pixel = near.pixel_of_thing_near(target.centre_base, 0.03)
        if pixel is None:
            raise PointingError(Code.GRASP_FAILED, "seen from above, it is not where it was: it was moved")
        located = self._locate(near, Point2D(*pixel, "", float("nan"), 1.0, 0))
        refined = self._target_from(near, located)
        if abs(refined.height_m - target.height_m) > 0.03:
            done.notes.append(
                f"from above it is {1e3 * refined.height_m:.0f} mm high, from afar {1e3 * target.height_m:.0f} mm"
            )
        return refined

    def _see(self, view: TableView, target: _Target) -> None:
        """What stands around becomes obstacles, without the arm and the thing itself."""
        points = view.standing_points()
        points = points[~self._scene.on_robot(self._arm.joints(), points, self._options.robot_padding_m)]
        footprint, T = target.plan.footprint, target.plan.T_base_plan
        local = (points - T[:3, 3]) @ T[:3, :3]
        yaw = footprint.yaw_rad
        c, s = np.cos(yaw), np.sin(yaw)
        along = (local[:, :2] - footprint.centre) @ np.array([[c, -s], [s, c]])
        margin = 0.008
        half = np.array([footprint.width_m, footprint.length_m]) / 2 + margin
        own = (np.abs(along) < half).all(axis=1)
        others: Voxels = voxels_from_points(points[~own], self._options.voxel_m)
        self._scene.set_obstacles(self._options.boxes, others)

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

    def _reach(self, approach_m: float, retreat_m: float) -> ReachOptions:
        return ReachOptions(
            approach_m=approach_m,
            retreat_m=retreat_m,
            speed_scale=self._options.speed_scale,
            approach_speed_m_s=self._options.approach_speed_m_s,
            seed=self._options.seed,
        )

    def _opening_for(self, target: _Target) -> float:
        best = target.plan.usable[0] if target.plan.usable else target.plan.grasps[0]
        opening = best.room.opening_m + self._options.open_beyond_m
        opening = min(opening, self._options.gripper.max_opening_m)
        self._scene.set_opening(opening)
        return opening

    def _hold(self, target: _Target, done: PickReport) -> None:
        """The thing in the hand must not touch anything on its way."""
        assert done.grasp is not None
        above_foot = float(done.grasp[2, 3]) - self._options.table_z_m
        wide = max(target.plan.footprint.length_m, target.plan.footprint.width_m)
        T_goal_box = np.eye(4)
        T_goal_box[2, 3] = above_foot / 2 - 0.002
        self._scene.hold((wide, wide, above_foot), T_goal_box)

    def _withdraw(self) -> None:
        """Straight up from where the hand is, and back to where the arm was at the start."""
        self._arm.grip(self._options.gripper.max_opening_m)
        self._scene.set_opening(self._options.gripper.max_opening_m)
        up = self._scene.goal_pose(self._arm.joints())
        up[2, 3] += self._options.approach_m
        self._follow(
            plan_line(self._scene, self._arm.joints(), up, self._reach(0.0, 0.0), may_touch_at_start=True)
        )
        self._follow(plan_joints(self._scene, self._arm.joints(), self._home, self._reach(0.0, 0.0)))

    def _withdraw_view(self) -> None:
        """With the thing in the hand, out of the camera's view."""
        self._follow(plan_joints(self._scene, self._arm.joints(), self._home, self._reach(0.0, 0.0)))
