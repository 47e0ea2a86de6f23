"""The operator in the loop: nothing leaves the node before an operator's word, whatever else happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from action_msgs.msg import GoalStatus
from geometry_msgs.msg import PoseArray
from ros_graph import LATCHED, Behaviour, Caller, Camera, Graph, wait_until
from visualization_msgs.msg import InteractiveMarkerFeedback, InteractiveMarkerUpdate
from visualization_msgs.srv import GetInteractiveMarkers

from molmo_ros.nodes.messages import duration
from molmo_ros.outcome import Code
from molmo_ros_interfaces.msg import HandOff, HandOffArray
from molmo_ros_interfaces.srv import Confirm

pytestmark = pytest.mark.ros
NAME = "asking"


class Operator:
    """Sees what waits, and says yes or no."""

    def __init__(self, graph: Graph, caller: Caller) -> None:
        self.caller = caller
        self.node = graph.node("operator")
        self.waiting: list[HandOff] = []
        self.hand_offs: list[HandOff] = []
        self.goal_poses: list[PoseArray] = []
        self.updates: list[InteractiveMarkerUpdate] = []
        name = caller.name
        self.node.create_subscription(HandOffArray, f"{name}/waiting_goals", self._hear, LATCHED)
        self.node.create_subscription(HandOff, f"{name}/hand_off", self.hand_offs.append, 50)
        self.node.create_subscription(PoseArray, f"{name}/goal_poses", self.goal_poses.append, 10)
        self.node.create_subscription(
            InteractiveMarkerUpdate, f"{name}/confirm_markers/update", self.updates.append, 100
        )
        self.clicks = self.node.create_publisher(
            InteractiveMarkerFeedback, f"{name}/confirm_markers/feedback", 100
        )

    def _hear(self, message: HandOffArray) -> None:
        self.waiting = list(message.goals)

    def sees(self, *queries: str) -> bool:
        return wait_until(lambda: [goal.query for goal in self.waiting] == list(queries))

    def says(self, goal_id: str, accept: bool) -> Code:
        request = Confirm.Request(goal_id=goal_id, accept=accept)
        return Code(self.caller.call(Confirm, "confirm", request).outcome.code)

    def click(self, goal_id: str, button: str) -> None:
        feedback = InteractiveMarkerFeedback(marker_name=goal_id, control_name=button)
        feedback.event_type = InteractiveMarkerFeedback.BUTTON_CLICK
        self.clicks.publish(feedback)

    def heard_of(self, goal_id: str) -> list[tuple[str, int]]:
        return [(each.stage, each.outcome.code) for each in self.hand_offs if each.goal_id == goal_id]

    def nothing_left(self, header: Any) -> bool:
        """Whether no planner heard of an answer, looked at after a later one has come through."""
        reply = self.caller.ask("the very last")
        assert self.sees("the very last")
        assert self.says(self.waiting[0].goal_id, True) == Code.OK
        last = reply.get().targets.targets[0].pose.header
        assert self.caller.wait_for(lambda: last in [goal.header for goal in self.caller.goals])
        assert self.caller.wait_for(lambda: "the very last" in [each.query for each in self.caller.targets])
        assert wait_until(lambda: last in [each.header for each in self.goal_poses])
        heard = [*self.caller.goals, *self.goal_poses]
        return header not in [each.header for each in heard]


@pytest.fixture(scope="module")
def operator(graph: Graph, camera: Camera, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    log: Path = tmp_path_factory.mktemp("node") / "log.txt"
    process = graph.start_scripted_node(
        log, *["-r", f"__node:={NAME}", "-p", "confirm:=true", "-p", "confirm_timeout_s:=60.0"]
    )
    ours = Operator(graph, Caller(graph.node("confirm_caller"), f"/{NAME}"))
    assert ours.caller.is_up(process), log.read_text()
    # Until all have found one another.
    assert wait_until(lambda: ours.caller.ask("the thing", dry_run=True).get().outcome.code == Code.OK)
    call = ours.caller.ask("to begin with")
    assert ours.sees("to begin with")
    assert wait_until(lambda: bool(ours.updates))
    assert wait_until(lambda: ours.clicks.get_subscription_count() == 1)
    assert wait_until(lambda: ours.says(ours.waiting[0].goal_id, True) == Code.OK)
    assert call.get().outcome.code == Code.OK
    return ours


@pytest.fixture(autouse=True)
def nobody_waits(operator: Operator, behaviour: Behaviour) -> None:
    assert operator.sees()


def test_an_accepted_goal_is_published_and_its_caller_told(operator: Operator) -> None:
    call = operator.caller.ask("the thing")
    assert operator.sees("the thing")
    goal = operator.waiting[0]
    assert goal.stage == "confirm" and goal.goal.header.frame_id == "base_link"
    assert not call.done and goal.goal.header not in [each.header for each in operator.caller.goals]
    assert operator.says(goal.goal_id, True) == Code.OK
    reply = call.get()
    assert reply.outcome.code == Code.OK
    assert operator.caller.wait_for(lambda: goal.goal in operator.caller.goals)
    assert reply.targets.targets[0].pose.pose.pose == goal.goal.pose
    assert operator.sees()
    assert wait_until(lambda: operator.heard_of(goal.goal_id) == [("confirm", 0), ("done", 0)])


def test_a_rejected_goal_goes_nowhere(operator: Operator) -> None:
    call = operator.caller.ask("the thing")
    assert operator.sees("the thing")
    goal = operator.waiting[0]
    assert operator.says(goal.goal_id, False) == Code.OK
    reply = call.get()
    assert reply.outcome.code == Code.REJECTED_BY_OPERATOR
    assert wait_until(
        lambda: operator.heard_of(goal.goal_id)[-1:] == [("done", Code.REJECTED_BY_OPERATOR)]
    )
    assert operator.nothing_left(goal.goal.header)


def test_several_wait_side_by_side_and_each_has_its_own_word(operator: Operator) -> None:
    first, second = operator.caller.ask("one"), None
    assert operator.sees("one")
    second = operator.caller.ask("three things")  # several good ones, none chosen: they wait together
    assert operator.sees("one", "three things")
    third = operator.caller.ask("two")
    assert operator.sees("one", "three things", "two")
    ids = {goal.query: goal.goal_id for goal in operator.waiting}
    assert operator.says(ids["two"], True) == Code.OK
    assert third.get().outcome.code == Code.OK
    assert operator.sees("one", "three things")
    assert not first.done and not second.done
    assert operator.says(ids["three things"], True) == Code.OK
    reply = second.get()
    assert reply.outcome.code == Code.OK and "select is single" in reply.outcome.message
    assert wait_until(
        lambda: reply.targets.targets[0].pose.header in [each.header for each in operator.goal_poses]
    )
    assert operator.says(ids["one"], False) == Code.OK
    assert first.get().outcome.code == Code.REJECTED_BY_OPERATOR


def test_the_model_goes_on_while_goals_wait(operator: Operator) -> None:
    call = operator.caller.ask("the thing")
    assert operator.sees("the thing")
    assert operator.caller.point_to("the thing", dry_run=True).outcome.code == Code.OK
    assert operator.caller.point_to("nothing").outcome.code == Code.NOT_FOUND
    assert operator.says(operator.waiting[0].goal_id, False) == Code.OK
    call.get()


def test_a_word_about_no_goal_or_the_second_word_is_refused(operator: Operator) -> None:
    assert operator.says("nonsense", True) == Code.INVALID_REQUEST
    call = operator.caller.ask("the thing")
    assert operator.sees("the thing")
    goal_id = operator.waiting[0].goal_id
    assert operator.says("nonsense", True) == Code.INVALID_REQUEST
    assert not call.done
    assert operator.says(goal_id, False) == Code.OK
    call.get()
    assert operator.says(goal_id, True) == Code.INVALID_REQUEST


def test_a_failed_check_asks_nobody(operator: Operator, behaviour: Behaviour) -> None:
    behaviour.depth_m = 6.0
    reply = operator.caller.point_to("the thing")
    assert reply.outcome.code == Code.OUT_OF_RANGE
    assert operator.waiting == []
    behaviour.depth_m = 0.8
    assert operator.nothing_left(reply.targets.targets[0].pose.header)


@pytest.mark.parametrize(("button", "code"), [("accept", Code.OK), ("reject", Code.REJECTED_BY_OPERATOR)])
def test_a_click_in_rviz_is_a_word(operator: Operator, button: str, code: Code) -> None:
    call = operator.caller.ask("the thing")
    assert operator.sees("the thing")
    goal = operator.waiting[0]
    everything = operator.caller.call(
        GetInteractiveMarkers, "confirm_markers/get_interactive_markers", GetInteractiveMarkers.Request()
    )
    (marker,) = everything.markers
    assert (marker.name, marker.description) == (goal.goal_id, "the thing")
    assert [control.name for control in marker.controls] == ["accept", "reject"]
    assert marker.pose.position.x == goal.goal.pose.position.x
    update = next(each for each in operator.updates if each.seq_num == everything.sequence_number)
    assert [each.name for each in update.markers] == [goal.goal_id]
    operator.click(goal.goal_id, "somewhere else")
    operator.click(goal.goal_id, button)
    assert call.get().outcome.code == code
    assert wait_until(lambda: operator.updates[-1].erases == [goal.goal_id])
    assert operator.updates[-1].seq_num == update.seq_num + 1


def test_the_actions_caller_sees_that_it_waits_and_may_cancel(operator: Operator) -> None:
    goal = operator.caller.goal("the thing")
    assert goal.wait_for_feedback(lambda feedback: feedback.stage == "confirm")
    assert operator.sees("the thing")
    waiting = operator.waiting[0]
    assert goal.cancel()
    status, result = goal.end()
    assert status == GoalStatus.STATUS_CANCELED
    assert result.outcome.code == Code.CANCELLED and "operator" in result.outcome.message
    assert operator.sees()
    assert operator.says(waiting.goal_id, True) == Code.INVALID_REQUEST
    assert operator.nothing_left(waiting.goal.header)


def test_who_comes_late_sees_what_waits(graph: Graph, operator: Operator) -> None:
    call = operator.caller.ask("the thing")
    assert operator.sees("the thing")
    late = graph.node("late_operator")
    heard: list[HandOffArray] = []
    late.create_subscription(HandOffArray, f"/{NAME}/waiting_goals", heard.append, LATCHED)
    assert wait_until(lambda: bool(heard))
    assert [goal.query for goal in heard[0].goals] == ["the thing"]
    graph.drop(late)
    assert operator.says(operator.waiting[0].goal_id, False) == Code.OK
    call.get()


def test_a_goal_that_nobody_judges_goes_nowhere(operator: Operator) -> None:
    assert operator.caller.set_parameter("confirm_timeout_s", 0.3) == ""
    reply = operator.caller.point_to("the thing")
    assert operator.caller.set_parameter("confirm_timeout_s", 60.0) == ""
    assert reply.outcome.code == Code.CONFIRM_TIMEOUT
    assert "confirm_timeout_s" in reply.outcome.message
    assert operator.nothing_left(reply.targets.targets[0].pose.header)


def test_a_request_waits_longer_for_a_person_than_for_the_model(operator: Operator) -> None:
    """The request's own timeout bounds the looking alone."""
    assert operator.caller.set_parameter("confirm_timeout_s", 6.0) == ""
    reply = operator.caller.point_to("in a hurry", 60.0, timeout=duration(5.0))
    assert reply.outcome.code == Code.CONFIRM_TIMEOUT
    assert operator.caller.set_parameter("confirm_timeout_s", 60.0) == ""


def test_deactivating_calls_back_what_waits(operator: Operator) -> None:
    calls = [operator.caller.ask(words) for words in ("one", "two")]
    assert wait_until(lambda: sorted(goal.query for goal in operator.waiting) == ["one", "two"])
    headers = [goal.goal.header for goal in operator.waiting]
    ids = [goal.goal_id for goal in operator.waiting]
    assert operator.caller.change_state("deactivate")
    for call in calls:
        assert call.get().outcome.code == Code.NOT_ACTIVE
    assert operator.sees()
    assert operator.says(ids[0], True) == Code.INVALID_REQUEST
    assert operator.caller.change_state("activate")
    for header in headers:
        assert operator.nothing_left(header)


def test_the_end_of_the_node_answers_what_waits(graph: Graph, camera: Camera, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    process = graph.start_scripted_node(log, "-r", "__node:=ending", "-p", "confirm:=true")
    caller = Caller(graph.node("ending_caller"), "/ending")
    assert caller.is_up(process), log.read_text()
    waiting: list[HandOffArray] = []
    node = graph.node("ending_operator")
    node.create_subscription(HandOffArray, "/ending/waiting_goals", waiting.append, LATCHED)
    call = caller.ask("the thing")
    assert wait_until(lambda: bool(waiting) and bool(waiting[-1].goals))
    process.terminate()
    assert call.get().outcome.code == Code.CANCELLED
    assert process.wait(5) == 0
    assert "Traceback" not in log.read_text()
    assert not caller.goals
