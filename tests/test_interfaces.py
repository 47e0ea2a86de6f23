"""The interfaces as compiled: the .msg files say what the design says and the code counts on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from molmo_ros.outcome import Code

pytest.importorskip("molmo_ros_interfaces")

from rclpy.serialization import deserialize_message, serialize_message

from molmo_ros_interfaces.action import MoveToGoal, PickPlace, PointToTarget
from molmo_ros_interfaces.msg import Outcome, SceneTruth, StageDurations, Target, TargetArray
from molmo_ros_interfaces.srv import Ask, Confirm, PointTo, ReleaseFrame, ResetScene

FOLDER = Path(__file__).resolve().parent.parent / "molmo_ros_interfaces"
FILES = sorted(p for kind in ("msg", "srv", "action") for p in (FOLDER / kind).iterdir())


def constants(message: type) -> dict[str, int]:
    return {name: getattr(message, name) for name in dir(type(message)) if name.isupper() and name[0] != "_"}


def test_the_codes_of_outcome_are_those_of_the_code_enum():
    assert constants(Outcome) == {code.name: int(code) for code in Code}


def test_the_action_asks_and_answers_what_the_service_does():
    asks = PointTo.Request.get_fields_and_field_types()
    answers = PointTo.Response.get_fields_and_field_types()
    assert PointToTarget.Goal.get_fields_and_field_types() == asks
    assert PointToTarget.Result.get_fields_and_field_types() == answers
    assert list(asks) == [
        "target",
        "camera",
        "max_points",
        "frame_token",
        "max_frame_age",
        "timeout",
        "dry_run",
    ]
    assert list(answers) == ["outcome", "targets", "answer", "frame_token", "durations"]


@pytest.mark.parametrize(
    "reply",
    [
        Ask.Response,
        Confirm.Response,
        ReleaseFrame.Response,
        MoveToGoal.Result,
        PickPlace.Result,
        PointTo.Response,
    ],
)
def test_every_reply_begins_with_an_outcome(reply):
    first, kind = next(iter(reply.get_fields_and_field_types().items()))
    assert (first, kind) == ("outcome", "molmo_ros_interfaces/Outcome")


def test_targets_survive_the_wire():
    target = Target(label="red cube", u=1.25, v=2.5, confidence=float("nan"), sigma_px=0.5, width=0.03)
    target.pose.header.frame_id = "base_link"
    target.pose.pose.covariance[21] = 1e6
    target.outcome = Outcome(code=Outcome.NO_DEPTH, message="none within 5 px")
    array = TargetArray(camera="wrist", query="the red cube", frame_token="f1", targets=[target])
    array.header.stamp.sec = 7
    back = deserialize_message(serialize_message(array), TargetArray)
    assert back.targets[0].confidence != back.targets[0].confidence  # NaN stays NaN
    back.targets[0].confidence = array.targets[0].confidence = 0.0
    assert back == array


def test_the_simulators_interfaces_take_a_64_bit_seed_and_name_every_object():
    assert ResetScene.Request(seed=2**64 - 1).seed == 2**64 - 1
    lists = {k for k, v in SceneTruth.get_fields_and_field_types().items() if v.startswith("sequence")}
    assert lists == {"labels", "positions", "visible_u", "visible_v", "visible_pixels"}


def test_all_stages_are_durations_and_total_is_the_last():
    fields = StageDurations.get_fields_and_field_types()
    assert set(fields.values()) == {"builtin_interfaces/Duration"}
    assert list(fields)[-1] == "total"


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.name)
def test_every_field_says_what_it_is_and_in_which_unit(file):
    """A field has a comment beside or above it, and floating point numbers name a unit or a range there."""
    above = ""
    for line in file.read_text().splitlines():
        if line.startswith("#"):
            above += line
            continue
        if not line.strip() or line.startswith("---"):
            above = ""
            continue
        comment = above + line.partition("#")[2]
        named = re.match(r"(Outcome|StageDurations|Target(Array)?(\[\])?|std_msgs/Header) ", line)
        assert comment or named or "=" in line or file.name == "Outcome.msg", f"no comment: {line}"
        if line.startswith("float"):
            assert re.search(r"\[[^\]]+\]|\([^)]*\]", comment), f"no unit: {line}"


def test_every_interface_file_is_compiled():
    listed = set(re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', (FOLDER / "CMakeLists.txt").read_text()))
    assert listed == {f"{p.parent.name}/{p.name}" for p in FILES}
