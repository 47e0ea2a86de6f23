"""A model that is wrong from afar and right from the hand, or the other way round: what is taken in the end.

The model is scripted: by the scene's truth it says what it is told to say. The cell, its pictures with noisy depth and
its physics are real.
"""

from __future__ import annotations

import numpy as np
import pytest

from molmo_ros.outcome import Code
from molmo_ros.planning.obstacles import Box
from molmo_ros.planning.pick_options import PickOptions
from molmo_ros.planning.pick_place import PickPlace, PickReport
from molmo_ros.planning.pick_robot import FAR, Pointed
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.pointing.point import Point2D
from molmo_ros.sim.cell_arm import CellArm, MountingError
from molmo_ros.sim.robot_cell import RobotCell

pytestmark = pytest.mark.slow

SEED = 101  # a black cube stands alone at (0.40, 0.30)
TABLE = Box.upright("table", (1.36, 1.7, 0.04), (0.40, 0.0, -0.0225))
MOUNTING = MountingError(0.005, np.radians(1.0))
#: Below this height the hand looks at one thing, above it at the table.
ON_HIGH_M = 0.30


class ScriptedArm(CellArm):
    """Points at the thing called `says[from]`, if it is in the picture: from afar, from on high, or from above."""

    def __init__(self, cell: RobotCell, planning: RoboplanScene, **says: str) -> None:
        super().__init__(cell, planning, lambda *_: (), (TABLE,), SEED, MOUNTING)
        self._table, self._says = cell, says
        self.asked: list[str] = []
        #: So many questions are answered.
        self.lasts = 1000

    def point(self, words: str, camera: str) -> Pointed:
        come_from = FAR if camera == FAR else ("high" if self.tool()[2, 3] > ON_HIGH_M else "above")
        self.asked.append(come_from)
        ids = self._table.look(camera, segmentation=True).ids
        assert ids is not None
        named = [o.id for o in self._table.state.objects if o.label == self._says.get(come_from)]
        rows, columns = np.nonzero(np.isin(ids, named))
        points: tuple[Point2D, ...] = ()
        if len(rows) > 100 and len(self.asked) <= self.lasts:
            points = (Point2D(float(columns.mean()), float(rows.mean()), words, 0.9, 3.0, 0),)
        return Pointed(self.look(camera), points)


def picked(arm: ScriptedArm, options: PickOptions | None = None, *, dry_run: bool = False) -> PickReport:
    return PickPlace(arm, options or PickOptions()).run("the thing", dry_run=dry_run)


def lifted(cell: RobotCell) -> list[str]:
    poses = cell.physics.objects()
    return [o.label for o, T in zip(cell.state.objects, poses, strict=True) if T[2, 3] > 0.05]


@pytest.fixture
def scene(cell: RobotCell) -> RobotCell:
    cell.reset(SEED)
    return cell


def test_what_is_seen_from_everywhere_is_asked_for_twice_and_taken(
    scene: RobotCell, planning: RoboplanScene
) -> None:
    arm = ScriptedArm(scene, planning, camera="black cube", high="black cube", above="black cube")
    done = picked(arm)
    assert done.outcome.ok, done.outcome
    assert arm.asked == [FAR, "above"] and lifted(scene) == ["black cube"]


def test_what_is_not_seen_from_afar_is_found_by_the_hand(scene: RobotCell, planning: RoboplanScene) -> None:
    arm = ScriptedArm(scene, planning, high="black cube", above="black cube")
    done = picked(arm)
    assert done.outcome.ok, done.outcome
    assert lifted(scene) == ["black cube"] and done.tries == 1
    assert arm.asked == [FAR, "high", "high", "above"]


def test_of_two_things_the_one_that_is_named_from_above_as_well_is_taken(
    scene: RobotCell, planning: RoboplanScene
) -> None:
    arm = ScriptedArm(scene, planning, camera="blue cube", high="black cube", above="black cube")
    done = picked(arm)
    assert done.outcome.ok, done.outcome
    assert lifted(scene) == ["black cube"]
    assert any("another thing" in note for note in done.notes)


def test_what_is_named_from_afar_alone_is_taken_all_the_same(scene: RobotCell, planning: RoboplanScene) -> None:
    done = picked(ScriptedArm(scene, planning, camera="black cube"))
    assert done.outcome.ok, done.outcome
    assert lifted(scene) == ["black cube"]
    assert any("all the same" in note for note in done.notes)


def test_of_two_things_neither_of_which_is_named_from_above_none_is_taken(
    scene: RobotCell, planning: RoboplanScene
) -> None:
    arm = ScriptedArm(scene, planning, camera="black cube", high="blue cube")
    arm.lasts = 4  # asked from afar, from above and twice in the search; then it says no more
    home = arm.joints()
    done = picked(arm)
    assert done.outcome.code == Code.LOW_CONFIDENCE, done.outcome
    assert done.stage == "look" and lifted(scene) == []
    np.testing.assert_allclose(arm.joints(), home, atol=0.02)


def test_what_is_seen_nowhere_is_not_found_and_the_arm_is_back(
    scene: RobotCell, planning: RoboplanScene
) -> None:
    arm = ScriptedArm(scene, planning)
    home = arm.joints()
    done = picked(arm)
    assert done.outcome.code == Code.NOT_FOUND and "neither" in done.outcome.message
    assert done.stage == "point" and arm.asked == [FAR, "high", "high"]
    np.testing.assert_allclose(arm.joints(), home, atol=0.02)
    assert lifted(scene) == []


def test_what_the_hand_sees_once_and_not_again_from_above_is_not_taken(
    scene: RobotCell, planning: RoboplanScene
) -> None:
    arm = ScriptedArm(scene, planning, high="black cube")
    home = arm.joints()
    arm.lasts = 3
    done = picked(arm)
    assert done.outcome.code == Code.NOT_FOUND, done.outcome
    assert done.stage == "look" and lifted(scene) == []
    np.testing.assert_allclose(arm.joints(), home, atol=0.02)


@pytest.mark.parametrize("options", [PickOptions(asks_from_wrist=False), PickOptions(uses_wrist=False)])
def test_without_eyes_on_the_hand_only_afar_is_asked_and_nothing_moves_for_what_is_not_there(
    scene: RobotCell, planning: RoboplanScene, options: PickOptions
) -> None:
    arm = ScriptedArm(scene, planning, high="black cube", above="black cube")
    done = picked(arm, options)
    assert done.outcome.code == Code.NOT_FOUND and arm.asked == [FAR]
    assert "neither" not in done.outcome.message


def test_a_dry_run_asks_from_afar_alone(scene: RobotCell, planning: RoboplanScene) -> None:
    arm = ScriptedArm(scene, planning, high="black cube", above="black cube")
    before = arm.joints()
    assert picked(arm, dry_run=True).outcome.code == Code.NOT_FOUND
    assert arm.asked == [FAR]
    np.testing.assert_allclose(arm.joints(), before, atol=1e-3)


def test_where_the_hand_cannot_go_it_does_not_look(scene: RobotCell, planning: RoboplanScene) -> None:
    arm = ScriptedArm(scene, planning, high="black cube", above="black cube")
    done = picked(arm, PickOptions(search_height_m=1.5))
    assert done.outcome.code == Code.NOT_FOUND and arm.asked == [FAR]
