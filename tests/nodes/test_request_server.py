"""Services and the action as their callers see them: feedback, cancel, held frames, questions, many at once."""

from __future__ import annotations

import math

import pytest
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from rclpy.qos import QoSProfile
from ros_graph import Behaviour, Caller, Camera, PendingReply, wait_until

from molmo_ros.outcome import Code
from molmo_ros_interfaces.srv import PointTo

pytestmark = pytest.mark.ros
# Every client of a service gets every reply, also those to others, and drops them when it takes them; of the default
# ten that it keeps, its own may be overwritten when more come before its executor has come round.
MANY_CALLERS_QOS = QoSProfile(depth=100)


def test_the_action_answers_as_the_service_does_and_tells_how_far_it_is(
    caller: Caller, behaviour: Behaviour
) -> None:
    goal = caller.goal("wait 0.5")
    status, result = goal.end()
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert result.outcome.code == Code.OK and len(result.targets.targets) == 1
    stages = list(dict.fromkeys(said.stage for said in goal.feedback))
    assert stages == ["frame_wait", "decode_image", "vision", "decode", "geometry", "publish"]
    tokens = [said.tokens for said in goal.feedback if said.stage == "decode"]
    assert tokens == sorted(tokens) and tokens[-1] > 11
    (point,) = next(said.points for said in goal.feedback if said.points)
    assert point.u == result.targets.targets[0].u and point.confidence == 0.9
    assert math.isnan(point.pose.pose.pose.position.x) and point.outcome.code != Code.OK


def test_a_goal_that_is_cancelled_at_work_ends_at_the_next_token(
    caller: Caller, behaviour: Behaviour
) -> None:
    caller.goals.clear()
    goal = caller.goal("wait 30")
    assert goal.wait_for_feedback(lambda said: said.tokens > 0)
    assert goal.cancel()
    status, result = goal.end()
    assert status == GoalStatus.STATUS_CANCELED
    assert result.outcome.code == Code.CANCELLED and "writing its answer" in result.outcome.message
    assert caller.point_to("the thing").outcome.code == Code.OK  # the model was let go
    assert caller.wait_for(lambda: bool(caller.goals)) and len(caller.goals) == 1


def test_a_goal_that_is_cancelled_in_the_queue_never_reaches_the_model(
    caller: Caller, behaviour: Behaviour
) -> None:
    at_work = caller.ask("wait 2")
    goal = caller.goal("the thing")
    assert goal.cancel()
    status, result = goal.end()
    assert (status, result.outcome.code) == (GoalStatus.STATUS_CANCELED, Code.CANCELLED)
    assert not at_work.done
    assert at_work.get().outcome.code == Code.OK


def test_a_goal_that_is_cancelled_while_it_waits_for_a_frame_frees_the_camera(
    caller: Caller, camera: Camera, behaviour: Behaviour
) -> None:
    behaviour.color = False
    goal = caller.goal("the thing")
    assert wait_until(lambda: camera.subscribers == 3)
    assert goal.cancel()
    _, result = goal.end()
    assert result.outcome.code == Code.CANCELLED and "waiting for a frame" in result.outcome.message
    assert wait_until(lambda: camera.subscribers == 0)


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("nothing", GoalStatus.STATUS_SUCCEEDED, Code.NOT_FOUND),
        ("gibberish", GoalStatus.STATUS_ABORTED, Code.UNPARSEABLE),
        ("", GoalStatus.STATUS_ABORTED, Code.EMPTY_TARGET),
        ("too much", GoalStatus.STATUS_ABORTED, Code.OUT_OF_MEMORY),
    ],
)
def test_a_goal_ends_as_its_outcome_says(
    caller: Caller, behaviour: Behaviour, target: str, status: int, code: Code
) -> None:
    ended, result = caller.goal(target).end()
    assert (ended, result.outcome.code) == (status, code), result.outcome


def test_a_question_is_answered_in_words(caller: Caller, behaviour: Behaviour) -> None:
    reply = caller.question("How bright is it?")
    assert reply.outcome.code == Code.OK
    assert (reply.answer, reply.confidence) == ("brightness 0", 0.75)
    assert reply.durations.total.sec + reply.durations.total.nanosec > 0
    assert caller.question("").outcome.code == Code.EMPTY_TARGET
    assert math.isnan(caller.question("").confidence)
    late = caller.question("wait 5", timeout=Duration(nanosec=300_000_000))
    assert late.outcome.code == Code.TIMEOUT


def test_later_questions_are_about_the_very_image_just_seen(caller: Caller, behaviour: Behaviour) -> None:
    first = caller.point_to("the thing")
    assert first.frame_token and first.targets.frame_token == first.frame_token
    behaviour.color_value = 200
    again = caller.point_to("the corner", frame_token=first.frame_token)
    assert again.targets.header == first.targets.header
    assert again.frame_token == first.frame_token
    assert again.durations.frame_wait.nanosec == 0
    asked = caller.question("How bright is it?", frame_token=first.frame_token)
    assert asked.answer == "brightness 0"
    assert caller.question("How bright is it?").answer == "brightness 200"


def test_a_held_frame_needs_no_camera(caller: Caller, behaviour: Behaviour) -> None:
    token = caller.point_to("the thing").frame_token
    behaviour.color = behaviour.info = behaviour.depth = False
    assert caller.point_to("the thing", frame_token=token).outcome.code == Code.OK


def test_a_frame_is_held_even_when_nothing_was_found(caller: Caller, behaviour: Behaviour) -> None:
    for words in ("nothing", "gibberish"):
        token = caller.point_to(words).frame_token
        assert caller.point_to("the thing", frame_token=token).outcome.code == Code.OK


def test_a_released_frame_is_gone(caller: Caller, behaviour: Behaviour) -> None:
    token = caller.point_to("the thing").frame_token
    assert caller.release(token).outcome.code == Code.OK
    assert caller.release(token).outcome.code == Code.FRAME_EXPIRED
    reply = caller.point_to("the thing", frame_token=token)
    assert reply.outcome.code == Code.FRAME_EXPIRED
    assert "for a new picture" in reply.outcome.message


def test_the_oldest_held_frame_goes_when_there_are_too_many(caller: Caller, behaviour: Behaviour) -> None:
    first, *others = (caller.point_to("the thing").frame_token for _ in range(9))
    assert len({first, *others}) == 9
    assert caller.point_to("the thing", frame_token=first).outcome.code == Code.FRAME_EXPIRED
    assert caller.point_to("the thing", frame_token=others[-1]).outcome.code == Code.OK


def test_of_many_callers_each_gets_an_answer_or_busy(caller: Caller, behaviour: Behaviour) -> None:
    """max_queue is 1: one at work, one waiting."""
    clients = [
        caller.node.create_client(PointTo, f"{caller.name}/point_to", qos_profile=MANY_CALLERS_QOS)
        for _ in range(32)
    ]
    assert all(client.wait_for_service(10.0) for client in clients)
    for client in clients:
        # A client sees the service before the service can answer it; what comes too early has no reply in DDS.
        assert any(PendingReply(client.call_async(PointTo.Request(target=""))).arrives(2.0) for _ in range(5))
    calls = [
        PendingReply(client.call_async(PointTo.Request(target=f"wait 0.{n % 3 + 1}")))
        for n, client in enumerate(clients)
    ]
    codes = [Code(call.get().outcome.code) for call in calls]
    for client in clients:
        caller.node.destroy_client(client)
    assert set(codes) == {Code.OK, Code.BUSY}
    assert codes.count(Code.OK) >= 2
    assert caller.point_to("the thing").outcome.code == Code.OK
