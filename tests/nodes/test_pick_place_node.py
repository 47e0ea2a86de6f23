"""pick_place_node between a pointing node, planner_node and a simulated table, as processes on a real graph.

The pointer is scripted: it points at the pixels that it is told. All else is the product's own.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from ros_graph import UP_WITHIN_S, Graph, wait_until
from table_graph import HOME, Table, TaskCaller

from molmo_ros.outcome import Code
from molmo_ros.planning.pick_place import STAGES

pytestmark = pytest.mark.ros

# A black cube stands alone at (0.40, 0.30), a larger blue one at (0.36, -0.08).
SEED, CUBE, STAND = 101, "black cube", "blue cube"
FREE = (0.45, 0.12, 0.0)
TALL_ENOUGH_M = 0.05
BEFORE_THE_CAMERA = (0.0, 0.6, 0.0, -1.6, 0.0, 2.2, 0.785)


@pytest.fixture(scope="module")
def table(graph: Graph) -> Iterator[Table]:
    ours = Table("/planner_node/heartbeat")
    ours.server.heartbeat_lost_s = None  # a busy machine may keep a living planner silent for long
    yield ours
    ours.close()


@pytest.fixture(scope="module")
def caller(graph: Graph, table: Table, tmp_path_factory: pytest.TempPathFactory) -> TaskCaller:
    ours = TaskCaller(graph, tmp_path_factory.mktemp("task"))
    assert ours.is_up(), ours.logs()
    table.reset(SEED)

    def sees_and_feels() -> bool:
        """Cameras, TF and the arm's joints are there: a plan comes back."""
        return bool(ours.ask(table.pixel(CUBE), dry_run=True).result().outcome.code == Code.OK)

    assert wait_until(sees_and_feels, UP_WITHIN_S), ours.logs()
    return ours


@pytest.fixture
def fresh(table: Table, caller: TaskCaller) -> Table:
    """The scene as it was drawn, the arm at home."""
    table.reset(SEED)
    assert wait_until(table.is_at_rest, 20.0)
    return table


def placed(table: Table, caller: TaskCaller, place: Callable[[], str]) -> Any:
    """The result of a task that went well, of three tries from the same scene.

    Depth is noisy, and some tries in ten end with an outcome that says what was not seen or not reached
    (`benchmarks/pick.py` counts them); nothing else may happen.
    """
    for _ in range(3):
        table.reset(SEED)
        assert wait_until(table.is_at_rest, 20.0)
        result = caller.ask(table.pixel(CUBE), place()).result()
        if result.outcome.code == Code.OK:
            break
        assert result.outcome.code in (Code.NOT_FOUND, Code.BLOCKED, Code.UNREACHABLE, Code.GRASP_FAILED)
    assert result.outcome.code == Code.OK, (result.outcome, result.notes)
    return result


def pose_at(xyz: tuple[float, float, float], frame: str = "base_link") -> PoseStamped:
    pose = PoseStamped()
    pose.header.frame_id = frame
    pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = xyz
    pose.pose.orientation.w = 1.0
    return pose


def test_what_is_pointed_at_is_put_where_a_pose_says_and_every_stage_is_told(
    fresh: Table, caller: TaskCaller
) -> None:
    words = fresh.pixel(CUBE)
    task = caller.ask(words, place_pose=pose_at(FREE))
    result = task.result()
    assert result.outcome.code == Code.OK, (result.outcome, result.notes)
    assert tuple(dict.fromkeys(task.stages)) == STAGES
    assert result.stage == "done"
    assert result.tries == 1
    assert result.pick_targets.targets[0].label == words
    assert 0.02 < result.width < 0.06
    assert np.hypot(*(fresh.at(CUBE)[:2] - FREE[:2])) < 0.03
    assert result.placed_at.header.frame_id == "fr3_link0"
    assert abs(result.placed_at.point.x - FREE[0]) < 0.02
    np.testing.assert_allclose(fresh.joints(), HOME, atol=0.02)


def test_an_empty_spot_is_found_by_depth_alone(fresh: Table, caller: TaskCaller) -> None:
    result = placed(fresh, caller, lambda: "on an empty spot")
    assert result.place_targets.targets == []
    after = fresh.at(CUBE)
    assert np.hypot(after[0] - result.placed_at.point.x, after[1] - result.placed_at.point.y) < 0.02
    assert abs(after[2]) < 0.01
    others = [thing for thing in fresh.state.objects if thing.label != CUBE]
    assert all(np.hypot(*(after[:2] - other.centre_m[:2])) > other.shape.reach_m for other in others)


def test_it_is_put_on_what_other_words_name(fresh: Table, caller: TaskCaller) -> None:
    stand = fresh.at(STAND).copy()
    result = placed(fresh, caller, lambda: f"on top of {fresh.pixel(STAND)}")
    assert result.place_targets.query.startswith("pixel")
    assert np.hypot(*(fresh.at(CUBE) - stand)[:2]) < 0.03
    assert fresh.at(CUBE)[2] > 0.03


def test_without_a_place_it_is_lifted_and_held(fresh: Table, caller: TaskCaller) -> None:
    result = caller.ask(fresh.pixel(CUBE)).result()
    assert result.outcome.code == Code.OK, result.outcome
    assert result.placed_at.header.frame_id == ""
    assert fresh.at(CUBE)[2] > TALL_ENOUGH_M


def test_a_dry_run_moves_nothing(fresh: Table, caller: TaskCaller) -> None:
    task = caller.ask(fresh.pixel(CUBE), "on an empty spot", dry_run=True)
    result = task.result()
    assert result.outcome.code == Code.OK, result.outcome
    assert tuple(dict.fromkeys(task.stages)) == ("point", "look", "plan", "done")
    np.testing.assert_allclose(fresh.joints(), HOME, atol=0.005)


@pytest.mark.parametrize(
    ("pick", "to", "code", "said"),
    [
        ("", "", Code.EMPTY_TARGET, "no words"),
        ("nothing", "", Code.NOT_FOUND, ""),
        ("gibberish", "", Code.UNPARSEABLE, ""),
        ("the thing", "beside the bowl", Code.INVALID_REQUEST, "begins with in"),
    ],
)
def test_words_that_lead_nowhere_have_their_outcome_and_move_nothing(
    fresh: Table, caller: TaskCaller, pick: str, to: str, code: Code, said: str
) -> None:
    result = caller.ask(pick, to).result()
    assert result.outcome.code == code, result.outcome
    assert said in result.outcome.message
    np.testing.assert_allclose(fresh.joints(), HOME, atol=0.005)


def test_a_place_in_a_frame_that_nobody_knows_is_refused_before_anything_moves(
    fresh: Table, caller: TaskCaller
) -> None:
    result = caller.ask(fresh.pixel(CUBE), place_pose=pose_at(FREE, "nowhere")).result()
    assert result.outcome.code == Code.TF_UNAVAILABLE, result.outcome
    assert "nowhere" in result.outcome.message
    np.testing.assert_allclose(fresh.joints(), HOME, atol=0.005)


def test_a_place_beyond_reach_leaves_the_thing_in_the_hand(fresh: Table, caller: TaskCaller) -> None:
    result = caller.ask(fresh.pixel(CUBE), place_pose=pose_at((1.6, 0.0, 0.0))).result()
    assert result.outcome.code == Code.UNREACHABLE, result.outcome
    assert result.stage == "place"
    assert fresh.at(CUBE)[2] > TALL_ENOUGH_M


def test_a_second_task_does_not_replace_a_running_one(fresh: Table, caller: TaskCaller) -> None:
    first = caller.ask("wait 2")
    assert first.reaches("point")
    assert caller.ask(fresh.pixel(CUBE)).result().outcome.code == Code.BUSY
    first.cancel()
    assert first.result().outcome.code == Code.CANCELLED


def test_moved_between_pointing_and_looking_from_above_it_is_looked_for_anew(
    fresh: Table, caller: TaskCaller
) -> None:
    task = caller.ask(fresh.pixel(CUBE))
    assert task.reaches("look")
    fresh.put(CUBE, FREE)
    result = task.result()
    # The scripted pointer points at the same pixel again, where now nothing stands.
    assert result.outcome.code in (Code.GRASP_FAILED, Code.NO_DEPTH), result.outcome
    assert result.tries == 2
    assert any("moved" in note for note in result.notes)
    np.testing.assert_allclose(fresh.at(CUBE), FREE, atol=0.01)
    assert wait_until(fresh.is_at_rest, 20.0)


def test_fingers_that_close_on_nothing_try_once_more_and_then_say_so(
    fresh: Table, caller: TaskCaller
) -> None:
    task = caller.ask(fresh.pixel(CUBE))
    assert task.reaches("approach")
    fresh.put(CUBE, (0.3, -0.6, 0.0))
    result = task.result()
    assert result.outcome.code in (Code.GRASP_FAILED, Code.NO_DEPTH), result.outcome
    assert result.tries == 2
    assert any("nothing is between" in note for note in result.notes)
    np.testing.assert_allclose(fresh.joints(), HOME, atol=0.02)


def test_an_arm_before_the_camera_is_what_is_in_the_way(fresh: Table, caller: TaskCaller) -> None:
    caller.move_to(BEFORE_THE_CAMERA)
    result = caller.ask("nothing").result()
    assert result.outcome.code == Code.BLOCKED, result.outcome
    assert "arm itself hides" in result.outcome.message


@pytest.mark.parametrize("at", STAGES[:-1])
def test_cancelled_in_any_stage_the_arm_comes_to_rest_and_goes_no_further(
    fresh: Table, caller: TaskCaller, at: str
) -> None:
    words = "wait 5" if at == "point" else fresh.pixel(CUBE)
    task = caller.ask(words, place_pose=pose_at(FREE))
    assert task.reaches(at)
    task.cancel()
    result = task.result()
    # The last stage is one look: it may be over before the cancel is heard, and then nothing is left to cancel.
    over = at == "verify_place" and result.stage == "done"
    assert result.outcome.code == (Code.OK if over else Code.CANCELLED), (at, result.outcome)
    assert result.stage in STAGES[STAGES.index(at) :]
    assert wait_until(fresh.is_at_rest, 20.0)
    before = fresh.joints()
    assert caller.ask("nothing").result().outcome.code in (Code.NOT_FOUND, Code.BLOCKED)
    np.testing.assert_allclose(fresh.joints(), before, atol=0.005)


def test_a_planner_that_dies_in_motion_ends_the_task_and_the_arm_stops(
    fresh: Table, caller: TaskCaller
) -> None:
    """Near the end: it ends the planner of this module."""
    fresh.server.heartbeat_lost_s = 0.5
    task = caller.ask(fresh.pixel(CUBE))
    assert task.reaches("look")
    assert wait_until(lambda: bool(np.abs(fresh.joints() - HOME).max() > 0.05), 30.0)
    caller.planner.send_signal(signal.SIGKILL)
    result = task.result()
    assert result.outcome.code == Code.PLANNER_UNAVAILABLE, result.outcome
    assert "silent" in result.outcome.message
    assert wait_until(fresh.is_at_rest, 20.0)
    assert fresh.at(CUBE)[2] < 0.01


def test_without_a_planner_nothing_moves_and_the_outcome_names_it(fresh: Table, caller: TaskCaller) -> None:
    """Last: the planner is gone."""
    if caller.planner.poll() is None:
        caller.planner.send_signal(signal.SIGKILL)
        caller.planner.wait(20)
    result = caller.ask(fresh.pixel(CUBE)).result()
    assert result.outcome.code == Code.PLANNER_UNAVAILABLE, result.outcome
    np.testing.assert_allclose(fresh.joints(), HOME, atol=0.005)
