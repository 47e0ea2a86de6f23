"""The node in its own process on a real graph: what each request gets, whatever the camera and the
caller do."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from builtin_interfaces.msg import Duration
from ros_graph import DEPTH_M, HEIGHT, NAN, WIDTH, Behaviour, Caller, Camera, wait_until

from molmo_ros.outcome import Code
from molmo_ros_interfaces.srv import PointTo

pytestmark = pytest.mark.ros


def code_of(reply: PointTo.Response) -> Code:
    return Code(reply.outcome.code)


def stamp_ns(header: object) -> int:
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec  # type: ignore[attr-defined]


def test_the_goal_is_the_reply_with_the_images_stamp_in_the_target_frame(
    caller: Caller, camera: Camera, behaviour: Behaviour
) -> None:
    caller.goals.clear()
    reply = caller.point_to("the thing")
    assert code_of(reply) == Code.OK, reply.outcome
    assert caller.wait_for(lambda: len(caller.goals) == 1)
    goal = caller.goals[0]
    assert goal.header.frame_id == "base_link"
    assert stamp_ns(goal.header) in behaviour.stamps_sent
    assert stamp_ns(goal.header) == stamp_ns(reply.targets.header)
    assert goal.pose == reply.targets.targets[0].pose.pose.pose
    position = goal.pose.position
    assert (position.x, position.y) == pytest.approx((0.5, 0.1), abs=1e-3)
    assert position.z == pytest.approx(1.0 - DEPTH_M, abs=1e-3)
    assert reply.targets.targets[0].pose.pose.covariance[35] == 1e6
    assert reply.targets.header.frame_id == behaviour.frame_id
    assert (reply.targets.query, reply.answer) == ("the thing", "scripted: the thing")


def test_durations_are_measured(caller: Caller, behaviour: Behaviour) -> None:
    durations = caller.point_to("the thing").durations
    stages = ("frame_wait", "decode_image", "vision", "prefill", "decode", "geometry", "publish")
    parts = [getattr(durations, stage) for stage in stages]
    assert all(part.sec * 1e9 + part.nanosec > 0 for part in parts)
    total = durations.total.sec + durations.total.nanosec / 1e9
    measured = sum(
        part.sec + part.nanosec / 1e9
        for part, stage in zip(parts, stages, strict=True)
        if stage[0] not in "vp"
    )
    assert total > measured - durations.decode.nanosec / 1e9


def test_a_dry_run_answers_and_publishes_nothing(caller: Caller, behaviour: Behaviour) -> None:
    caller.goals.clear()
    dry = caller.point_to("the thing", dry_run=True)
    assert code_of(dry) == Code.OK
    wet = caller.point_to("the thing")
    assert caller.wait_for(lambda: bool(caller.goals))
    assert [stamp_ns(goal.header) for goal in caller.goals] == [stamp_ns(wet.targets.header)]


def test_of_several_targets_none_becomes_the_goal(caller: Caller, behaviour: Behaviour) -> None:
    caller.goals.clear()
    reply = caller.point_to("three things")
    assert code_of(reply) == Code.OK and "select is single" in reply.outcome.message
    assert len(reply.targets.targets) == 3
    assert math.isnan(reply.targets.targets[2].confidence)
    one = caller.point_to("the thing")
    assert caller.wait_for(lambda: bool(caller.goals))
    assert [stamp_ns(goal.header) for goal in caller.goals] == [stamp_ns(one.targets.header)]


@pytest.mark.parametrize(("select", "chosen"), [("best", 1), ("first", 0)])
def test_a_choice_among_several_may_be_asked_for(
    caller: Caller, behaviour: Behaviour, select: str, chosen: int
) -> None:
    caller.goals.clear()
    assert caller.set_parameter("select", select) == ""
    reply = caller.point_to("three things")
    assert caller.set_parameter("select", "single") == ""
    assert code_of(reply) == Code.OK and not reply.outcome.message
    assert caller.wait_for(lambda: bool(caller.goals))
    assert caller.goals[0].pose == reply.targets.targets[chosen].pose.pose.pose


def test_max_points_limits_the_answer(caller: Caller, behaviour: Behaviour) -> None:
    assert len(caller.point_to("three things", max_points=2).targets.targets) == 2


def test_an_idle_node_has_no_camera_subscription(
    caller: Caller, camera: Camera, behaviour: Behaviour
) -> None:
    behaviour.color = False
    pending = caller.ask("the thing")
    assert wait_until(lambda: camera.subscribers == 3)
    behaviour.color = True
    assert code_of(pending.get()) == Code.OK
    assert wait_until(lambda: camera.subscribers == 0)


CameraFault = tuple[str, Callable[[Behaviour], None], Code, str]
CAMERA_FAULTS: list[CameraFault] = [
    (
        "no frame",
        lambda does: setattr(does, "color", False),
        Code.NO_FRAME,
        "no colour image on /camera/color/image_raw for 1.5 s",
    ),
    ("stale frame", lambda does: _age(does, 5.0), Code.STALE_FRAME, "the limit is 1.000 s"),
    ("future stamp", lambda does: _age(does, -5.0), Code.FUTURE_STAMP, "ahead of now"),
    (
        "no camera info",
        lambda does: setattr(does, "info", False),
        Code.NO_CAMERA_INFO,
        "no CameraInfo on /camera/color/camera_info",
    ),
    (
        "no depth",
        lambda does: setattr(does, "depth", False),
        Code.NO_DEPTH,
        "no depth image on /camera/depth",
    ),
    (
        "depth of another instant",
        lambda does: setattr(does, "depth_age_s", 0.525),
        Code.NOT_SYNCHRONISED,
        "the limit is 20.0 ms",
    ),
    (
        "no depth at the point",
        lambda does: setattr(does, "depth_m", 0.0),
        Code.NO_DEPTH,
        "no surface at pixel",
    ),
    ("too far", lambda does: setattr(does, "depth_m", 6.0), Code.OUT_OF_RANGE, "6.000 m from the camera"),
    ("NaN in CameraInfo", lambda does: setattr(does, "k00", NAN), Code.BAD_CAMERA_INFO, "k[0] is nan"),
    (
        "CameraInfo of another size",
        lambda does: setattr(does, "info_size", (320, 240)),
        Code.BAD_CAMERA_INFO,
        "320x240",
    ),
    (
        "depth of another size",
        lambda does: setattr(does, "depth_size", (80, 60)),
        Code.BAD_IMAGE,
        f"80x60 but colour is {WIDTH}x{HEIGHT}",
    ),
    (
        "image cut short",
        lambda does: setattr(does, "color_bytes", 1000),
        Code.BAD_IMAGE,
        "carries 1000 bytes",
    ),
    (
        "depth cut short",
        lambda does: setattr(does, "depth_bytes", 1000),
        Code.BAD_IMAGE,
        "carries 1000 bytes",
    ),
    (
        "depth of another frame",
        lambda does: setattr(does, "depth_frame_id", "elsewhere"),
        Code.BAD_IMAGE,
        "depth is of frame 'elsewhere'",
    ),
    ("depth as colour", lambda does: setattr(does, "color_encoding", "16UC1"), Code.BAD_IMAGE, "depth topic"),
    (
        "unknown encoding",
        lambda does: setattr(does, "color_encoding", "sepia"),
        Code.BAD_IMAGE,
        "encoding 'sepia'",
    ),
    (
        "frame that TF does not know",
        lambda does: setattr(does, "frame_id", "elsewhere"),
        Code.TF_UNAVAILABLE,
        "TF has no frame 'elsewhere'; frames heard of: base_link",
    ),
]


def _age(does: Behaviour, seconds: float) -> None:
    does.color_age_s = does.depth_age_s = seconds


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [fault[1:] for fault in CAMERA_FAULTS],
    ids=[fault[0] for fault in CAMERA_FAULTS],
)
def test_a_camera_fault_is_named_and_the_next_request_is_served(
    caller: Caller,
    behaviour: Behaviour,
    camera: Camera,
    fault: Callable[[Behaviour], None],
    code: Code,
    words: str,
) -> None:
    caller.goals.clear()
    fault(behaviour)
    reply = caller.point_to("the thing")
    assert code_of(reply) == code, reply.outcome
    assert words in reply.outcome.message
    assert wait_until(lambda: camera.subscribers == 0)
    camera.behaviour = Behaviour()
    good = caller.point_to("the thing")
    assert code_of(good) == Code.OK, good.outcome
    assert caller.wait_for(lambda: bool(caller.goals))
    assert [stamp_ns(goal.header) for goal in caller.goals] == [stamp_ns(good.targets.header)]


def test_what_is_missing_is_named_with_what_is_there(caller: Caller, behaviour: Behaviour) -> None:
    behaviour.info = False
    message = caller.point_to("the thing").outcome.message
    assert "1 publisher (test_camera) announce it" in message


def test_moving_frames_are_looked_up_at_the_images_stamp(caller: Caller, behaviour: Behaviour) -> None:
    behaviour.frame_id, behaviour.moving_frame = "moving_camera", True
    reply = caller.point_to("the thing")
    assert code_of(reply) == Code.OK, reply.outcome
    assert reply.targets.targets[0].pose.pose.pose.position.x == pytest.approx(0.5, abs=1e-3)


def test_a_moving_frame_that_stopped_being_published_is_not_extrapolated(
    caller: Caller, behaviour: Behaviour, camera: Camera
) -> None:
    behaviour.frame_id, behaviour.moving_frame = "moving_camera", True
    assert code_of(caller.point_to("the thing")) == Code.OK
    behaviour.moving_frame = False
    assert code_of(caller.point_to("the thing")) == Code.TF_UNAVAILABLE


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"target": ""}, Code.EMPTY_TARGET),
        ({"target": " \n\t "}, Code.EMPTY_TARGET),
        ({"target": "red " * 2500}, Code.TARGET_TOO_LONG),
        ({"target": "a \x07 bell"}, Code.INVALID_REQUEST),
        ({"target": "the thing", "camera": "wrist"}, Code.UNKNOWN_CAMERA),
        ({"target": "the thing", "frame_token": "abc"}, Code.FRAME_EXPIRED),
        ({"target": "the thing", "timeout": Duration(sec=-1)}, Code.INVALID_REQUEST),
        ({"target": "the thing", "max_frame_age": Duration(sec=2**31 - 1)}, Code.INVALID_REQUEST),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    caller: Caller, behaviour: Behaviour, fields: dict[str, object], code: Code
) -> None:
    reply = caller.point_to(**fields)  # type: ignore[arg-type]
    assert code_of(reply) == code, reply.outcome
    assert reply.outcome.message
    assert not reply.targets.targets


def test_the_known_camera_may_be_named(caller: Caller, behaviour: Behaviour) -> None:
    assert code_of(caller.point_to("the thing", camera="camera")) == Code.OK
    assert "'camera'" in caller.point_to("the thing", camera="wrist").outcome.message


@pytest.mark.parametrize(
    ("words", "code"),
    [("nothing", Code.NOT_FOUND), ("gibberish", Code.UNPARSEABLE), ("a crash", Code.INTERNAL)],
)
def test_what_the_model_does_is_told_apart(
    caller: Caller, behaviour: Behaviour, words: str, code: Code
) -> None:
    caller.goals.clear()
    assert code_of(caller.point_to(words)) == code
    assert code_of(caller.point_to("the thing")) == Code.OK
    assert caller.wait_for(lambda: bool(caller.goals))
    assert len(caller.goals) == 1


def test_a_full_queue_is_busy_and_everybody_gets_an_answer(caller: Caller, behaviour: Behaviour) -> None:
    """max_queue is 1: one at work, one waiting."""
    calls = [caller.ask("wait 1") for _ in range(6)]
    codes = sorted(code_of(call.get()) for call in calls)
    assert codes == [Code.OK, Code.OK] + 4 * [Code.BUSY]


def test_other_requests_are_answered_while_the_model_works(caller: Caller, behaviour: Behaviour) -> None:
    slow = caller.ask("wait 2")
    assert code_of(caller.point_to("")) == Code.EMPTY_TARGET
    assert not slow.done
    assert code_of(slow.get()) == Code.OK


def test_a_deadline_ends_a_request_and_names_the_stage(caller: Caller, behaviour: Behaviour) -> None:
    caller.goals.clear()
    reply = caller.point_to("wait 5", timeout=Duration(nanosec=400_000_000))
    assert code_of(reply) == Code.TIMEOUT
    assert "while pointing" in reply.outcome.message
    assert code_of(caller.point_to("the thing")) == Code.OK
    assert caller.wait_for(lambda: bool(caller.goals))
    assert len(caller.goals) == 1
