"""The node's process from start to end: configurations, faults of the model's folder, signals, launch
files."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from builtin_interfaces.msg import Duration
from rclpy.qos import ReliabilityPolicy
from ros_graph import LATCHED, UP_WITHIN_S, Behaviour, Caller, Camera, Graph, wait_until
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from molmo_ros.nodes.model_choice import load_pointer_of
from molmo_ros.nodes.parameters import PARAMETERS, PointingParameters
from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing import bundled_model_folder

pytestmark = pytest.mark.ros
ROOT = Path(__file__).resolve().parents[2]
# After a signal, whatever the model is at.
ENDS_WITHIN_S = 2.0


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_an_idle_node_ends_cleanly(graph: Graph, tmp_path: Path, ending: signal.Signals) -> None:
    log = tmp_path / "log.txt"
    process, _ = graph.started(log, f"idle_{ending.name.lower()}")
    process.send_signal(ending)
    assert process.wait(5) == 0
    assert "Traceback" not in log.read_text()


def test_a_signal_in_mid_request_answers_it_and_ends_cleanly(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    process, caller = graph.started(log, "interrupted")
    behaviour.color = False
    at_work, waiting = caller.ask("wait 30"), caller.ask("wait 30")
    assert wait_until(lambda: camera.subscribers == 3)
    behaviour.color = True
    assert wait_until(lambda: camera.subscribers == 0)
    process.send_signal(signal.SIGTERM)
    for call in (at_work, waiting):
        reply = call.get()
        assert reply.outcome.code == Code.CANCELLED
        assert "shutting down" in reply.outcome.message
    assert process.wait(5) == 0
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("words", ["wait 60", "deaf"])
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_model_generates_ends_the_process_within_two_seconds(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path, words: str, ending: signal.Signals
) -> None:
    """The deaf model does not look whether to stop. The bound is what is promised, not what is usual."""
    log = tmp_path / "log.txt"
    name = f"ends_{words[:4]}_{ending.name.lower()}"
    process, caller = graph.started(log, name, "-p", "frame_timeout_s:=60.0")
    goal = caller.goal(words, timeout=Duration(sec=120))
    assert goal.wait_for_feedback(lambda said: said.stage == ("vision" if words == "deaf" else "decode"), 60.0)
    begin_s = time.monotonic()
    process.send_signal(ending)
    code = process.wait(ENDS_WITHIN_S)
    print(f"{words!r}: ended {time.monotonic() - begin_s:.2f} s after {ending.name}")
    assert code == 0, log.read_text()
    _, result = goal.end()
    assert result.outcome.code == Code.CANCELLED and "shutting down" in result.outcome.message
    assert not caller.goals
    assert "Traceback" not in log.read_text()


def test_a_signal_while_waiting_for_a_frame_ends_cleanly(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path
) -> None:
    behaviour.color = False
    process, caller = graph.started(tmp_path / "log.txt", "waiting", "-p", "frame_timeout_s:=60.0")
    call = caller.ask("the thing")
    assert wait_until(lambda: camera.subscribers == 3)
    process.send_signal(signal.SIGINT)
    assert call.get().outcome.code == Code.CANCELLED
    assert process.wait(5) == 0


def test_while_the_model_loads_requests_are_told_so_and_the_node_can_end(
    graph: Graph, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    process, caller = graph.started(log, "loading", "-p", "model:=slow", loaded=False)
    reply = caller.point_to("the thing")
    assert reply.outcome.code == Code.MODEL_UNAVAILABLE
    assert "still loading" in reply.outcome.message
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("min_confidance:=0.5", "unknown parameter min_confidance; is min_confidence meant?"),
        ("tail.depth_topic:=depth", "no camera is called 'tail'"),
        ("cameras:=[left,left]", "each once"),
        ("min_confidence:=1.5", "min_confidence"),
        ("min_confidence:=much", "min_confidence"),
        ("approach:=sideways", "top_down, surface_normal"),
        ("depth_min_m:=9.0", "depth_max_m"),
        ("workspace_min:=[0.0,0.0]", "workspace_min has 2 numbers"),
        ("color_topic:='not a topic!'", "not a topic!"),
    ],
)
def test_a_configuration_that_cannot_work_ends_with_one_line(
    graph: Graph, tmp_path: Path, parameter: str, words: str
) -> None:
    log = tmp_path / "log.txt"
    process = graph.start_scripted_node(log, "-p", parameter)
    assert process.wait(UP_WITHIN_S) == 2, log.read_text()
    lines = log.read_text().strip().splitlines()
    assert len(lines) == 1, lines
    assert words in lines[0]


def test_unknown_parameters_may_be_let_pass(graph: Graph, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    graph.started(log, "lenient", *["-p", "min_confidance:=0.5", "-p", "strict_parameters:=false"])
    assert "unknown parameter min_confidance; is min_confidence meant?" in log.read_text()


def test_without_a_depth_topic_points_stay_in_the_image(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path
) -> None:
    behaviour.depth = False
    _, caller = graph.started(tmp_path / "log.txt", "flat", "-p", "depth_topic:=''")
    reply = caller.point_to("the thing")
    assert reply.outcome.code == Code.NO_DEPTH
    assert len(reply.targets.targets) == 1
    assert reply.targets.targets[0].u > 0
    assert not caller.goals


def test_nobody_on_the_topic_names_the_topics_that_would_do(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path
) -> None:
    node = graph.node("odd_publishers")
    compressed = node.create_publisher(CompressedImage, "odd/image_raw", 1)
    _, caller = graph.started(
        tmp_path / "log.txt", "lost", *["-p", "frame_timeout_s:=0.7", "-p", "color_topic:=eye"]
    )
    message = caller.point_to("the thing").outcome.message
    assert "nobody publishes it; topics with that type: " in message
    assert "/camera/color/image_raw" in message
    _, caller = graph.started(
        tmp_path / "log2.txt",
        "wrong_type",
        *["-p", "frame_timeout_s:=0.7", "-p", "color_topic:=odd/image_raw"],
    )
    reply = caller.point_to("the thing")
    assert reply.outcome.code == Code.NO_FRAME
    assert "what is published there is sensor_msgs/msg/CompressedImage" in reply.outcome.message
    node.destroy_publisher(compressed)


def test_a_best_effort_camera_is_heard_unless_the_parameters_forbid_it(graph: Graph, tmp_path: Path) -> None:
    node = graph.node("best_effort_camera", namespace="/be")
    Camera(node, ReliabilityPolicy.BEST_EFFORT)
    inside = ("-r", "__ns:=/be", "-p", "frame_timeout_s:=1.0")
    graph.start_scripted_node(tmp_path / "log.txt", *inside)
    caller = Caller(graph.node("be_caller"), "/be/pointing_node")
    assert caller.is_up()
    assert caller.point_to("the thing").outcome.code == Code.OK
    graph.start_scripted_node(
        tmp_path / "log2.txt", *inside, "-r", "__node:=strict", "-p", "sensor_qos:=reliable"
    )
    caller = Caller(graph.node("strict_caller"), "/be/strict")
    assert caller.is_up()
    reply = caller.point_to("the thing")
    assert reply.outcome.code == Code.NO_FRAME
    assert "set sensor_qos to auto" in reply.outcome.message


def test_a_latched_camera_info_is_used_whatever_its_age(graph: Graph, tmp_path: Path) -> None:
    node = graph.node("latched_camera", namespace="/latched")
    camera = Camera(node)
    camera.behaviour.info = False
    latched = node.create_publisher(CameraInfo, "camera/once", LATCHED)
    info = CameraInfo(width=160, height=120, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [150.0, 0.0, 79.5, 0.0, 150.0, 59.5, 0.0, 0.0, 1.0]
    info.header.frame_id = camera.behaviour.frame_id
    latched.publish(info)
    graph.start_scripted_node(
        tmp_path / "log.txt",
        *["-r", "__ns:=/latched", "-p", "color_info_topic:=camera/once"],
    )
    caller = Caller(graph.node("latched_caller"), "/latched/pointing_node")
    assert caller.is_up()
    reply = caller.point_to("the thing")
    assert reply.outcome.code == Code.OK, reply.outcome


def test_remapped_tf_is_followed(graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path) -> None:
    _, caller = graph.started(
        tmp_path / "log.txt",
        "remapped",
        *["-r", "/tf:=/robot/tf", "-r", "/tf_static:=/robot/tf_static"],
    )
    reply = caller.point_to("the thing")
    assert reply.outcome.code == Code.TF_UNAVAILABLE
    assert "frames heard of: none" in reply.outcome.message


def test_simulated_time_without_a_clock_is_explained(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path
) -> None:
    _, caller = graph.started(
        tmp_path / "log.txt", "timeless", *["-p", "use_sim_time:=true", "-p", "frame_timeout_s:=0.7"]
    )
    reply = caller.point_to("the thing")
    assert reply.outcome.code == Code.FUTURE_STAMP
    assert "nothing publishes /clock" in reply.outcome.message


def test_the_annotated_image_comes_when_somebody_looks(
    graph: Graph, caller: Caller, camera: Camera, behaviour: Behaviour
) -> None:
    pictures: list[Image] = []
    watcher = graph.node("watcher")
    watcher.create_subscription(Image, "/pointing_node/annotated_image", pictures.append, 1)
    publishers = "/pointing_node/annotated_image"
    assert wait_until(lambda: watcher.count_publishers(publishers) == 1)
    assert wait_until(lambda: bool(caller.point_to("the thing")) and bool(pictures))
    picture = pictures[-1]
    assert (picture.encoding, picture.width, picture.height) == ("rgb8", 160, 120)
    assert any(picture.data)
    assert picture.header.frame_id == behaviour.frame_id
    graph.drop(watcher)


@pytest.mark.parametrize(
    ("spoilt", "says"), [("tokenizer.json", "no tokenizer.json"), ("model.safetensors", "cut short")]
)
def test_a_broken_checkpoint_is_named_at_each_call_and_the_node_stays_up(
    graph: Graph, tmp_path: Path, spoilt: str, says: str
) -> None:
    """The real loading code in the installed node."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(bundled_model_folder(), folder)
    if spoilt == "tokenizer.json":
        (folder / spoilt).unlink()
    else:
        (folder / spoilt).write_bytes((folder / spoilt).read_bytes()[:1000])
    log, name = tmp_path / "log.txt", f"broken_{spoilt.partition('.')[0]}"
    process = graph.start(
        *[sys.executable, "-m", "molmo_ros.nodes.pointing_node", "--ros-args"],
        *["-r", f"__node:={name}", "-p", f"model:={folder}"],
        log=log,
    )
    caller = Caller(graph.node(f"{name}_caller"), f"/{name}")
    assert caller.is_up(process, loaded=False), log.read_text()
    assert wait_until(lambda: "loading" not in caller.point_to("the thing").outcome.message, 60.0)
    for _ in range(2):
        reply = caller.point_to("the thing")
        assert reply.outcome.code == Code.MODEL_UNAVAILABLE
        assert says in reply.outcome.message and "\n" not in reply.outcome.message
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def test_the_launch_file_starts_the_node_with_its_remappings(
    graph: Graph, camera: Camera, behaviour: Behaviour, tmp_path: Path
) -> None:
    """The installed node with a model folder that is none: it stays up and says why, each time."""
    parameters = tmp_path / "mine.yaml"
    parameters.write_text(f"/**:\n  ros__parameters:\n    model: {tmp_path}/no_such_model\n")
    log = tmp_path / "log.txt"
    process = graph.start(
        sys.executable,
        str(ROOT / "tools" / "launch"),
        "pointing.launch.xml",
        "namespace:=launched",
        "name:=eyes",
        f"params_file:={parameters}",
        log=log,
    )
    caller = Caller(graph.node("launch_caller"), "/launched/eyes")
    assert caller.is_up(process, loaded=False), log.read_text()
    assert wait_until(lambda: "loading" not in caller.point_to("the thing").outcome.message, 60.0)
    for _ in range(2):
        reply = caller.point_to("the thing")
        assert reply.outcome.code == Code.MODEL_UNAVAILABLE
        assert "no_such_model" in reply.outcome.message
        assert "\n" not in reply.outcome.message
    assert caller.point_to("").outcome.code == Code.EMPTY_TARGET
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_format_that_the_model_cannot_speak_makes_it_unavailable() -> None:
    values = {parameter.name: parameter.default for parameter in PARAMETERS}
    parameters = PointingParameters.from_values(values | {"point_format": "qwen2_5_vl"})
    with pytest.raises(PointingError, match="in pixels of the model's input") as caught:
        load_pointer_of(parameters, lambda _: None)
    assert caught.value.outcome.code == Code.MODEL_UNAVAILABLE
