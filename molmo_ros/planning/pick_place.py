"""Pick what some words name and put it elsewhere: the order of things, without ROS.

    task = PickPlace(robot, PickOptions())
    report = task.run("the red mug", place="the bowl")

`point` at what is asked for and `look` at the answer, from afar and then from the hand above it, which is near and so
sees better where the thing is, and what (`find_thing`); `plan` a grasp, `approach` it, `grasp`, `lift`, and `verify`
by the fingers and by another look that the thing is held and gone from its place; `move` with it, `place` it, and
`verify_place`. A grasp that failed, if only on the way, is tried once more after a fresh look. Nothing moves without a
checked plan, and a stop is obeyed in every stage.

What the robot is, is the business of a `PickRobot`: the simulated cell, or a ROS graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from molmo_ros.geometry.locate import Located
from molmo_ros.outcome import Code, Outcome, PointingError
from molmo_ros.planning.find_thing import NOT_SEEN, Found, ThingFinder, is_at
from molmo_ros.planning.free_spot import free_spots
from molmo_ros.planning.motion import Motion
from molmo_ros.planning.obstacles import free_to_rest
from molmo_ros.planning.pick_options import PickOptions
from molmo_ros.planning.pick_robot import FAR, PickRobot
from molmo_ros.planning.put_down import foot_at, foot_under, goals_over
from molmo_ros.planning.seen_thing import SeenThing, has_arrived, still_stands
from molmo_ros.planning.surroundings import Surroundings, beside_arm
from molmo_ros.planning.table_view import TableView, height_of
from molmo_ros.planning.task_words import EmptySpot
from molmo_ros.planning.top_grasp import TopGrasp, top_grasps

#: In their order; a task without a place ends after `verify`.
STAGES = (
    *("point", "look", "plan", "approach", "grasp", "lift", "verify"),
    *("move", "place", "verify_place", "done"),
)


# Ways to close that are planned to, best first, and postures tried for each.
_MOST_GRASPS = 10
_ATTEMPTS_PER_GRASP = 6
_PLACE_ATTEMPTS = 48
# What is put down is let go this far above what it is put on: the table, or a thing that depth shows less well.
_ABOVE_TABLE_M, _ABOVE_THING_M = 0.004, 0.010
# When the fingers let go they open by so much more than the thing is wide; beside it is room for one finger.
_LET_GO_M = 0.03
_SPOT_MARGIN_M = 0.02
# After these the arm may still be moved away: nothing is wrong with it.
_NOT_THE_ARM = (
    *NOT_SEEN,
    *(Code.NO_FRAME, Code.STALE_FRAME, Code.NO_DEPTH, Code.AMBIGUOUS_DEPTH, Code.TF_UNAVAILABLE, Code.TOO_WIDE),
    *(Code.UNREACHABLE, Code.BLOCKED, Code.PLANNING_FAILED),
)


@dataclass(eq=False)
class PickReport:
    """What came of it: the `stage` reached, grasps tried, what was seen, where it was put down (3,), the grasp as the
    arm made it (4x4), and the width held."""

    outcome: Outcome = field(default_factory=Outcome)
    stage: str = STAGES[0]
    tries: int = 0
    seen: tuple[Located, ...] = ()
    place_seen: tuple[Located, ...] = ()
    place_base: np.ndarray | None = None
    grasp: np.ndarray | None = None
    width_m: float = float("nan")
    notes: list[str] = field(default_factory=list)


class PickPlace:
    """One task at a time. `report` is told the stage whenever it changes; `stop` says why to stop, or ""."""

    def __init__(
        self,
        robot: PickRobot,
        options: PickOptions,
        *,
        report: Callable[[PickReport], None] = lambda _: None,
        stop: Callable[[], str] = lambda: "",
    ) -> None:
        self._robot, self._options = robot, options
        self._report, self._stop = report, stop
        self._eyes = ThingFinder(robot, options, self._move)
        self._surroundings = Surroundings(robot, options.voxel_m)
        self._has_moved = False
        # While the hand is down among the things, it leaves the way that it came.
        self._is_low = False

    def run(
        self, words: str, place: str | np.ndarray | EmptySpot | None = None, *, dry_run: bool = False
    ) -> PickReport:
        """Pick what the words name; put it in or on what `place` names, at a point (3,) of the base frame with its
        foot, or on an empty spot, or hold it (None). Never raises PointingError: the report says what went wrong,
        and where."""
        done = PickReport()
        try:
            self._home, self._has_moved = self._robot.joints(), False
            self._run(words, place, dry_run, done)
        except PointingError as error:
            done.outcome = error.outcome
        return done

    # ------------------------------------------------------------ the order of things

    def _run(
        self, words: str, place: str | np.ndarray | EmptySpot | None, dry_run: bool, done: PickReport
    ) -> None:
        while True:
            done.tries += 1
            try:
                before, thing = self._pick(words, dry_run, done)
                if not dry_run and place is not None:
                    self._place(place, before, thing, done)
                break
            except PointingError as error:
                done.notes.append(f"try {done.tries}: {error.outcome.message}")
                failed_grasp = error.outcome.code == Code.GRASP_FAILED
                is_above = self._has_moved and done.stage in ("point", "look", "plan")
                if failed_grasp or (is_above and error.outcome.code in _NOT_THE_ARM):
                    self._let_go(done)
                if not failed_grasp or done.tries >= self._options.tries:
                    raise
        self._enter("done", done)

    def _pick(self, words: str, dry_run: bool, done: PickReport) -> tuple[TableView, SeenThing]:
        """The table as it was before, and the thing as it was just before it was lifted."""
        self._enter("point", done)
        before, found = self._found(words, dry_run)
        done.seen = (found.located,)
        self._enter("look", done)
        self._surroundings.pass_by(found.thing.seen_too(before))
        view, thing = before, found.thing
        if self._options.uses_wrist and not dry_run:
            view, thing = self._looked_at(words, before, found, done)
        self._enter("plan", done)
        grasp, motion = self._planned_grasp(view, thing)
        done.grasp = grasp.T_base_grasp
        if dry_run:
            return before, thing
        self._enter("approach", done)
        self._robot.grip(grasp.opening_m)
        self._is_low = True
        self._move(motion)
        done.grasp = self._robot.tool()  # perhaps turned by half a turn
        self._enter("grasp", done)
        done.width_m = self._robot.grip(0.0)
        if done.width_m < self._options.least_width_m:
            raise PointingError(
                Code.GRASP_FAILED,
                f"the fingers closed to {1e3 * done.width_m:.1f} mm: nothing is between them",
            )
        self._enter("lift", done)
        self._lift(done)
        self._enter("verify", done)
        self._check_gone(thing, done)
        return before, thing

    def _found(self, words: str, dry_run: bool) -> tuple[TableView, Found]:
        """The table as it is, and the thing, seen from afar or else by the hand."""
        try:
            found = self._eyes.point(words)
        except PointingError as error:
            searches = self._options.uses_wrist and self._options.asks_from_wrist and not dry_run
            if not searches or error.outcome.code not in NOT_SEEN:
                raise
            before = self._eyes.view(FAR)
            self._surroundings.see(before)
            self._surroundings.pass_by(None)
            by_hand = self._eyes.search(words, self._surroundings.around)
            if by_hand is None:
                raise PointingError(
                    error.outcome.code, f"{error.outcome.message}, neither from afar nor from the hand"
                ) from error
            return before, by_hand
        self._surroundings.see(found.view)
        return found.view, found

    def _looked_at(
        self, words: str, before: TableView, found: Found, done: PickReport
    ) -> tuple[TableView, SeenThing]:
        """The thing from above it. Where the model does not see there what it was asked for, it may be another that
        is meant: one that the hand finds elsewhere, and that is what it was asked for from above as well."""
        view, thing = self._eyes.from_above(found.thing, self._surroundings.around)
        moved_m = float(np.hypot(*(thing.middle_base - found.thing.middle_base)[:2]))
        done.notes.append(f"seen from above it is {1e3 * moved_m:.0f} mm from where it was seen before")
        if not self._options.asks_from_wrist or self._eyes.points_at(words, thing):
            return view, thing
        if found.by_hand:
            if self._eyes.is_named(words, thing, self._surroundings.around):
                return view, thing
            raise PointingError(
                Code.NOT_FOUND, f"the model sees no {words!r} from afar, nor above what it took for it from the hand"
            )
        other = self._eyes.search(words, self._surroundings.around)
        if other is not None and not is_at(thing, other.thing.middle_base):
            self._surroundings.pass_by(other.thing.seen_too(before))
            closer = self._eyes.from_above(other.thing, self._surroundings.around)
            if self._eyes.is_named(words, closer[1], self._surroundings.around):
                done.seen = (other.located,)
                done.notes.append(f"from above, another thing is {words!r}: that is taken")
                return closer
            (x, y), (a, b) = thing.middle_base[:2], closer[1].middle_base[:2]
            raise PointingError(
                Code.LOW_CONFIDENCE,
                f"from afar the model takes the thing at ({x:.2f}, {y:.2f}) m for {words!r}, from the hand the one at "
                f"({a:.2f}, {b:.2f}) m, and from above neither: name it otherwise, or let it stand more freely",
            )
        done.notes.append(f"from above the model sees no {words!r}: taken all the same")
        return view, thing

    def _planned_grasp(self, view: TableView, thing: SeenThing) -> tuple[TopGrasp, Motion]:
        """The best grasp that can be reached, and the motion to it."""
        grasps = top_grasps(
            view.points_base().reshape(-1, 3),
            thing.own_base_N3,
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
            motion = Motion(
                (grasp.T_base_grasp,),
                approach_m=self._options.approach_m,
                opening_m=grasp.opening_m,
                around=self._surroundings.around,
                attempts=_ATTEMPTS_PER_GRASP,
            )
            try:
                self._obey()
                self._robot.plan(motion)
            except PointingError as error:
                if error.outcome.code not in (Code.UNREACHABLE, Code.BLOCKED, Code.PLANNING_FAILED):
                    raise
                failure = failure or error
                continue
            return grasp, motion
        assert failure is not None
        raise failure

    def _lift(self, done: PickReport) -> None:
        """Up, and see whether the fingers still hold something."""
        self._back(done.width_m)
        held_m = self._robot.grip(0.0)
        if held_m < self._options.least_width_m:
            done.width_m = held_m
            raise PointingError(
                Code.GRASP_FAILED, f"it slipped out: the fingers are {1e3 * held_m:.1f} mm apart"
            )

    def _check_gone(self, thing: SeenThing, done: PickReport) -> None:
        """The place that it was taken from is empty, as far as the camera sees it past the arm."""
        try:
            view = self._eyes.view(FAR)
            points = self._points_beside_arm(view)
        except PointingError as error:
            if error.outcome.code not in (Code.NO_DEPTH, Code.AMBIGUOUS_DEPTH):
                raise
            done.notes.append("the arm hides the table: the fingers alone say that something is held")
            return
        if still_stands(points, thing, self._options.table_z_m):
            raise PointingError(
                Code.GRASP_FAILED, "something still stands where it was taken from: not it was lifted"
            )
        self._surroundings.forget_gone(view, thing)

    def _place(
        self,
        place: str | np.ndarray | EmptySpot,
        before: TableView,
        thing: SeenThing,
        done: PickReport,
    ) -> None:
        assert done.grasp is not None
        self._enter("move", done)
        held = thing.held_at(done.grasp, self._options.table_z_m)
        if not isinstance(place, np.ndarray):
            # Out of the camera's view, to see where it is to go.
            self._move(Motion(posture=self._home, opening_m=done.width_m, held=held, around=self._surroundings.around))
            before, feet = self._places_seen(place, thing, done)
        else:
            feet = [foot_at(place[:2], max(float(place[2]), self._options.table_z_m) + _ABOVE_TABLE_M)]
        table_z_m = self._options.table_z_m
        goals = tuple(goal for foot in feet for goal in goals_over(foot, thing, done.grasp, table_z_m))
        around = self._surroundings.around
        around = around and free_to_rest(around, np.array(feet), thing.extent_m / 2)
        self._enter("place", done)
        self._is_low = True
        self._move(
            Motion(
                goals,
                approach_m=self._options.approach_m,
                opening_m=done.width_m,
                held=held,
                around=around,
                half_turns=False,
                attempts=max(_PLACE_ATTEMPTS, 2 * len(goals)),
            )
        )
        slipped = self._robot.grip(0.0) < self._options.least_width_m
        done.place_base = foot_under(self._robot.tool(), done.grasp, held, table_z_m)
        self._withdraw(self._released(done))
        self._enter("verify_place", done)
        self._check_arrived(before, thing, slipped, done)

    def _places_seen(
        self, place: str | EmptySpot, thing: SeenThing, done: PickReport
    ) -> tuple[TableView, list[np.ndarray]]:
        """The table with the thing in the hand, and points (3,) for its foot."""
        if isinstance(place, EmptySpot):
            view = self._eyes.view(FAR)
            fingers = self._options.fingers
            hand_m = (done.width_m + _LET_GO_M) / 2 + fingers.thickness_m
            radius_m = max(thing.extent_m / 2, hand_m) + _SPOT_MARGIN_M
            spots = free_spots(view, radius_m, self._options.reach_m)
            return view, [foot_at(spot[:2], spot[2] + _ABOVE_TABLE_M) for spot in spots]
        found = self._eyes.point(place)
        view, on = found.view, found.thing
        done.place_seen = (found.located,)
        # What is pointed at may be the floor of a bowl, whose rim the thing in the hand must clear too.
        radius_m = (thing.extent_m + self._options.voxel_m) / 2
        height_m = max(
            height_of(on.own_base_N3, self._options.table_z_m), view.height_within(on.middle_base, radius_m)
        )
        return view, [foot_at(on.middle_base[:2], self._options.table_z_m + height_m + _ABOVE_THING_M)]

    def _check_arrived(self, before: TableView, thing: SeenThing, slipped: bool, done: PickReport) -> None:
        """The thing stands at its place. What slipped out on the way may have fallen where it was to go; unless it is
        seen there, the grasp has failed."""
        assert done.place_base is not None
        after = self._points_beside_arm(self._eyes.view(FAR))
        there = has_arrived(self._points_beside_arm(before), after, done.place_base, thing)
        if slipped and not there:
            done.place_base = None
            raise PointingError(
                Code.GRASP_FAILED, "on the way it slipped out of the fingers, and lies where it fell"
            )
        if slipped:
            done.notes.append("it slipped out of the fingers, and fell where it was to go")
        elif there is None:
            done.notes.append("the place is hidden: what was put there is not seen")
        elif not there:
            x, y, z = done.place_base
            raise PointingError(
                Code.EXECUTION_FAILED,
                f"it was let go at ({x:.3f}, {y:.3f}, {z:.3f}) m, but nothing new is seen to stand there; look for it",
            )

    # ------------------------------------------------------------ seeing

    def _points_beside_arm(self, view: TableView) -> np.ndarray:
        points = view.points_base().reshape(-1, 3)
        return beside_arm(self._robot, points[np.isfinite(points).all(axis=1)])

    # ------------------------------------------------------------ moving

    def _enter(self, stage: str, done: PickReport) -> None:
        done.stage = stage
        self._report(done)
        self._obey()

    def _obey(self) -> None:
        reason = self._stop()
        if reason:
            raise PointingError(Code.CANCELLED, reason)

    def _move(self, motion: Motion) -> None:
        self._obey()
        self._has_moved = True
        self._robot.move(motion)

    def _back(self, opening_m: float) -> None:
        """Up, the way that the hand came down."""
        self._move(Motion(back=True, opening_m=opening_m, around=self._surroundings.around))
        self._is_low = False

    def _let_go(self, done: PickReport) -> None:
        """After a grasp that failed: what is held all the same is set down where it was taken, then away."""
        opening_m = self._options.fingers.max_opening_m
        if self._is_low:
            opening_m = done.width_m
        elif done.stage == "verify" and done.grasp is not None:
            self._is_low = True
            down = Motion(
                (done.grasp,),
                approach_m=self._options.approach_m,
                opening_m=done.width_m,
                around=self._surroundings.around,
                half_turns=False,
            )
            self._move(down)
            opening_m = self._released(done)
        self._withdraw(opening_m)

    def _released(self, done: PickReport) -> float:
        """Let go of what is held, without pushing what stands beside it; how far the fingers are apart now."""
        return self._robot.grip(min(done.width_m + _LET_GO_M, self._options.fingers.max_opening_m))

    def _withdraw(self, opening_m: float) -> None:
        """With empty fingers so far apart: up if the hand is low, and back to where the arm was at first."""
        if self._is_low:
            self._back(opening_m)
        open_m = self._options.fingers.max_opening_m
        self._robot.grip(open_m)
        self._move(Motion(posture=self._home, opening_m=open_m, around=self._surroundings.around))
