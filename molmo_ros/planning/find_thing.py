"""Where the thing is that some words name: seen from afar, from above it, and by a search with the hand.

A model that points is wrong now and then: it does not see what is there, or names something else. From another side it
seldom makes the same mistake. So it is asked again in the picture from above a thing, and where it saw nothing, or does
not see there what it was asked for, the hand looks around.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from molmo_ros.geometry.locate import Located
from molmo_ros.outcome import Code, PointingError
from molmo_ros.planning.motion import Motion
from molmo_ros.planning.obstacles import Voxels
from molmo_ros.planning.pick_options import PickOptions
from molmo_ros.planning.pick_robot import FAR, NEAR, PickRobot
from molmo_ros.planning.seen_thing import SeenThing, located_in, thing_at, within
from molmo_ros.planning.table_view import TableView, level_view

_HOVER_ATTEMPTS = 24
# A thing is looked for this far from where it was seen from afar.
_MOVED_M = 0.03
# The hand searches from these directions from the base, about the vertical.
_SEARCH_TURNS_RAD = (0.36, -0.36)
_HIDDEN_STRIDE = 8
# What the model says when it does not see a thing.
NOT_SEEN = (Code.NOT_FOUND, Code.LOW_CONFIDENCE)
_IF_HIDDEN = (*NOT_SEEN, Code.UNPARSEABLE, Code.NO_DEPTH, Code.AMBIGUOUS_DEPTH)
_NO_WAY = (Code.UNREACHABLE, Code.BLOCKED, Code.PLANNING_FAILED)


@dataclass(frozen=True, eq=False)
class Found:
    """A thing that the model pointed at, in the view that it was asked about, of the hand's camera or from afar."""

    view: TableView
    located: Located
    thing: SeenThing
    confidence: float
    by_hand: bool


class ThingFinder:
    """Eyes of one robot. `go` moves its arm, past what is given as standing around."""

    def __init__(self, robot: PickRobot, options: PickOptions, go: Callable[[Motion], None]) -> None:
        self._robot, self._options, self._go = robot, options, go

    def view(self, camera: str) -> TableView:
        """A look of now, level with the table."""
        return level_view(self._robot.look(camera), self._options.table_z_m)

    def point(self, words: str, camera: str = FAR) -> Found:
        """What the words name, as it is seen by a camera. Raises PointingError, NOT_FOUND when the model sees none."""
        try:
            pointed = self._robot.point(words, camera)
            if not pointed.points:
                raise PointingError(Code.NOT_FOUND, f"the model sees no {words!r}")
            view = level_view(pointed.sight, self._options.table_z_m)
            located = located_in(view, pointed.points[0])
            if self._robot.on_arm(located.position_base_m[None])[0]:
                raise PointingError(Code.NOT_FOUND, f"for {words!r} the model points at the arm itself")
            thing = thing_at(view, located)
            return Found(view, located, thing, pointed.points[0].confidence, camera == NEAR)
        except PointingError as error:
            if camera == FAR and error.outcome.code in _IF_HIDDEN:
                self._check_not_hidden(error)
            raise

    def from_above(self, thing: SeenThing, around: Voxels | None) -> tuple[TableView, SeenThing]:
        """The same thing, seen from the hand above it. Raises PointingError(GRASP_FAILED) when it is not there."""
        above = thing.middle_base + [0.0, 0.0, self._options.hover_m]
        self._go(_looking_down(above, np.arange(8) * np.pi / 4, around))
        view = self.view(NEAR)
        reach_m = _reach_m(thing)
        own = view.thing_near(thing.middle_base, reach_m)
        if own is None:
            raise PointingError(Code.GRASP_FAILED, "seen from above, it is not where it was: it was moved")
        return view, SeenThing.of(within(own, thing.middle_base, reach_m), self._options.table_z_m)

    def points_at(self, words: str, thing: SeenThing) -> bool:
        """Whether the model points at this thing in the picture of the hand as it is now."""
        try:
            seen = self.point(words, NEAR)
        except PointingError as error:
            if error.outcome.code not in _IF_HIDDEN:
                raise
            return False
        return is_at(thing, np.array(seen.located.position_base_m))

    def is_named(self, words: str, thing: SeenThing, around: Voxels | None) -> bool:
        """The same for the hand above the thing, or else from higher up, where it sees more of what stands around."""
        if self.points_at(words, thing):
            return True
        try:
            self._go(self._on_high(thing.middle_base, around))
        except PointingError as error:
            if error.outcome.code not in _NO_WAY:
                raise
            return False
        return self.points_at(words, thing)

    def search(self, words: str, around: Voxels | None) -> Found | None:
        """What the words name, as the hand sees it that looks around from on high: the surest answer, if any."""
        found: list[Found] = []
        distance_m = float(np.mean(self._options.reach_m))
        for turn in _SEARCH_TURNS_RAD:
            place = distance_m * np.array([np.cos(turn), np.sin(turn)])
            try:
                self._go(self._on_high(place, around))
                found.append(self.point(words, NEAR))
            except PointingError as error:
                if error.outcome.code not in (*_IF_HIDDEN, *_NO_WAY):
                    raise
        return max(found, key=lambda each: each.confidence, default=None)

    def _on_high(self, place_base: np.ndarray, around: Voxels | None) -> Motion:
        """The hand high above a place, the long side of its picture across the arm."""
        z = self._options.table_z_m + self._options.search_height_m
        return _looking_down(np.array([*place_base[:2], z]), np.array([0.0, np.pi]), around)

    def _check_not_hidden(self, error: PointingError) -> None:
        """Before what is not found is called not there: is it the arm that is in the way?"""
        sight = self._robot.look(FAR)
        depth_m = sight.frame.depth_m
        if depth_m is None:
            return
        v, u = np.mgrid[0 : depth_m.shape[0] : _HIDDEN_STRIDE, 0 : depth_m.shape[1] : _HIDDEN_STRIDE]
        z = depth_m[v, u].ravel()
        seen = np.isfinite(z)
        if not seen.any():
            return
        points = sight.frame.camera.deproject(np.column_stack([u.ravel()[seen], v.ravel()[seen]]), z[seen])
        points = points @ sight.T_base_camera[:3, :3].T + sight.T_base_camera[:3, 3]
        hidden = float(self._robot.on_arm(points).mean())
        if hidden > self._options.most_hidden:
            raise PointingError(
                Code.BLOCKED,
                f"the arm itself hides {100 * hidden:.0f} % of the picture; move it out of the camera's view "
                f"(without it: {error.outcome.message})",
            ) from error


def is_at(thing: SeenThing, place_base: np.ndarray) -> bool:
    """Whether a place (3,) is the thing's, seen from above and as far as looks may differ."""
    return float(np.hypot(*(place_base - thing.middle_base)[:2])) < _reach_m(thing)


def _reach_m(thing: SeenThing) -> float:
    return thing.extent_m / 2 + _MOVED_M


def _looking_down(place: np.ndarray, turns_rad: np.ndarray, around: Voxels | None) -> Motion:
    """The hand to a place (3,), pointing down, turned in any of these ways."""
    goals = []
    for turn in turns_rad:
        T = np.eye(4)
        c, s = np.cos(turn), np.sin(turn)
        T[:3, :3] = np.array([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, -1.0]])
        T[:3, 3] = place
        goals.append(T)
    return Motion(tuple(goals), around=around, attempts=_HOVER_ATTEMPTS)
