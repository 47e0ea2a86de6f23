"""A request's bag holds all that is needed to run it again, and is a bag like any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from camera_rig import COLOR_FRAME
from rclpy.serialization import deserialize_message
from recorded_answers import NODE, STAMP_NS, T_BASE_CAMERA, answer, raw_frame, request, rules_of
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import Image

from molmo_ros.nodes.answer import Answer
from molmo_ros.nodes.image_request import LONGEST_S, Question
from molmo_ros.nodes.request_bag import read_request, request_bags, write_request
from molmo_ros.outcome import Code, Outcome
from molmo_ros.recorded_bag import BagError
from molmo_ros.training.collect import Topics, collect_bag


def written(folder: Path, given: Answer) -> Path:
    path = folder / "request_1"
    write_request(path, given, NODE, rules_of(given.request.parameters))
    return path


def test_what_was_asked_seen_and_answered_is_read_back(tmp_path: Path) -> None:
    given = answer("the red mug", min_confidence=0.25)
    recorded = read_request(written(tmp_path, given))
    assert (recorded.request.words, recorded.words) == ("the red mug", " the red mug")
    assert recorded.outcome == Outcome() and recorded.total_s == pytest.approx(0.25)
    (target,) = recorded.targets
    assert (target.u, target.v, target.code) == (79.5, 59.5, Code.OK)
    assert target.position_m == pytest.approx((0.5, 0.1, 0.2))
    raw, before = recorded.raw, given.raw
    assert raw is not None and before is not None
    assert (raw.color, raw.color_info, raw.depth) == (before.color, before.color_info, before.depth)
    assert (raw.stamp_ns, raw.frame_id) == (STAMP_NS, COLOR_FRAME)
    assert np.allclose(raw.T_still_camera, T_BASE_CAMERA, atol=1e-12)
    assert recorded.request.parameters.min_confidence == 0.25
    assert recorded.request.parameters.cameras[0].color_topic == "/left/camera/color/image_raw"


def test_it_is_an_mcap_bag_whose_schemas_and_messages_any_ros_2_tool_reads(tmp_path: Path) -> None:
    path = written(tmp_path, answer())
    about = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert about["storage_identifier"] == "mcap" and about["version"] == 9
    assert about["relative_file_paths"] == ["request_1.mcap"] and about["message_count"] == 6
    topics = {
        each["topic_metadata"]["name"]: each["topic_metadata"] for each in about["topics_with_message_count"]
    }
    assert {name: topic["type"] for name, topic in topics.items()} == {
        "/left/camera/color/image_raw": "sensor_msgs/msg/Image",
        "/left/camera/color/camera_info": "sensor_msgs/msg/CameraInfo",
        "/left/camera/depth/image_rect": "sensor_msgs/msg/Image",
        "/tf_static": "tf2_msgs/msg/TFMessage",
        f"{NODE}/targets": "molmo_ros_interfaces/msg/TargetArray",
        f"{NODE}/request_record": "molmo_ros_interfaces/msg/RequestRecord",
    }
    assert {topic["serialization_format"] for topic in topics.values()} == {"cdr"}
    assert all(topic["type_description_hash"].startswith("RIHS01_") for topic in topics.values())
    assert topics["/tf_static"]["offered_qos_profiles"][0]["durability"] == "transient_local"
    data = (path / "request_1.mcap").read_bytes()
    assert data.startswith(b"\x89MCAP0\r\n") and b"ros2msg" in data
    with AnyReader([path]) as bag:
        at_ns = {connection.topic: at for connection, at, _ in bag.messages()}
    assert at_ns["/left/camera/color/image_raw"] == STAMP_NS
    assert at_ns[f"{NODE}/request_record"] == STAMP_NS + 250_000_000


def test_no_goal_pose_is_in_it_that_a_planner_might_follow(tmp_path: Path) -> None:
    with AnyReader([written(tmp_path, answer())]) as bag:
        assert not [each.topic for each in bag.connections if "goal" in each.topic]


def test_the_collector_of_training_sets_reads_it(tmp_path: Path) -> None:
    path = written(tmp_path, answer("the red mug"))
    topics = Topics.of(NODE, "/left/camera/color/image_raw")
    assert collect_bag(path, tmp_path / "set", topics, everything=True) == (1, [])


def test_a_camera_of_its_own_for_depth_keeps_its_place(tmp_path: Path) -> None:
    T = np.eye(4)
    T[:3, 3] = (0.01, 0.0, -0.05)
    before = raw_frame()
    assert before.depth is not None
    depth = before.depth.replace(b"rig_color\0", b"rig_depth\0")
    raw = replace(before, depth=depth, depth_info=before.color_info, T_color_depth=T)
    given = answer(raw=raw, depth_info_topic="{camera}/depth/camera_info")
    recorded = read_request(written(tmp_path, given))
    assert recorded.raw is not None and recorded.raw.T_color_depth is not None
    assert np.allclose(recorded.raw.T_color_depth, T)
    assert recorded.raw.depth_info == before.color_info
    assert deserialize_message(recorded.raw.depth, Image).header.frame_id == "rig_depth"


def test_a_base_that_moved_keeps_its_place_and_its_time(tmp_path: Path) -> None:
    T = np.eye(4)
    T[:3, 3] = (1.0, 2.0, 0.0)
    given = answer(T_target_fixed=T, pose_stamp_ns=STAMP_NS + 5, fixed_frame="odom")
    recorded = read_request(written(tmp_path, given))
    assert recorded.base is not None and recorded.base.stamp_ns == STAMP_NS + 5
    assert np.allclose(recorded.base.T_target_fixed, T)
    assert recorded.raw is not None and np.allclose(recorded.raw.T_still_camera, T_BASE_CAMERA)


def test_a_request_without_a_frame_is_kept_with_its_reason(tmp_path: Path) -> None:
    outcome = Outcome(Code.NO_FRAME, "no colour image")
    given = Answer(request("the mug"), outcome, camera="camera")
    recorded = read_request(written(tmp_path, given))
    assert recorded.raw is None and recorded.outcome == outcome and recorded.targets == ()
    assert recorded.request.words == "the mug" and recorded.request.timeout_s == LONGEST_S


def test_a_question_stays_a_question(tmp_path: Path) -> None:
    asked = request("What is on the table?")
    question = Question(**{name: getattr(asked, name) for name in Question.__dataclass_fields__})
    given = replace(answer(), request=question, found=(), goal=None, words="a mug", confidence=0.5)
    recorded = read_request(written(tmp_path, given))
    assert isinstance(recorded.request, Question) and recorded.words == "a mug"
    with AnyReader([recorded.path]) as bag:
        assert f"{NODE}/targets" not in {each.topic for each in bag.connections}


def test_what_is_no_recorded_request_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="there is no bag at"):
        request_bags(tmp_path)
    path = written(tmp_path, answer())
    write_request(tmp_path / ".unfinished" / "request_2", answer(), NODE, rules_of(answer().request.parameters))
    assert request_bags(path) == [path] == request_bags(tmp_path), "what is still being written is no bag yet"
    file = path / "request_1.mcap"
    assert read_request(file).request.words == "the mug"
    whole = file.read_bytes()
    file.write_bytes(whole[:2000])
    with pytest.raises(BagError, match="request_1"):
        read_request(path)
    file.write_bytes(whole.replace(b"request_record", b"another_record"))
    with pytest.raises(BagError, match=r"holds no request of pointing_node.*ros2 bag play"):
        read_request(file)
