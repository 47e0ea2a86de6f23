"""The node tabletop_sim as its own process on a real graph."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_graph import own_domain
from sensor_msgs.msg import CameraInfo, Image, JointState
from tf2_msgs.msg import TFMessage

from molmo_ros.sim.scene import SceneRecipe, draw_scene
from molmo_ros.sim.worlds import FIRST
from molmo_ros_interfaces.msg import SceneTruth
from molmo_ros_interfaces.srv import ResetScene

pytestmark = pytest.mark.ros

ROOT = Path(__file__).parents[2]
DOMAIN = own_domain()
# Things with names only, upright.
FRIENDLY = SceneRecipe(world=FIRST)
PATIENCE_S = 60.0
BEST_EFFORT = QoSProfile(depth=30, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "ROS_DOMAIN_ID": str(DOMAIN),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(ROOT / "config" / "fastdds_large_images.xml"),
        "PYTHONUNBUFFERED": "1",
    }


def start(*ros_args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "molmo_ros.nodes.tabletop_sim", "--ros-args"]
    command += ["--params-file", str(ROOT / "config" / "tabletop_sim.yaml"), *ros_args]
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )


class Listener:
    """Keeps what the simulator says, by topic."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = Node("listener", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.heard: dict[str, list[Any]] = {}
        for topic, kind, qos in (
            ("camera/color/image_raw", Image, BEST_EFFORT),
            ("camera/depth/image_rect", Image, BEST_EFFORT),
            ("camera/color/camera_info", CameraInfo, BEST_EFFORT),
            ("camera/depth/camera_info", CameraInfo, BEST_EFFORT),
            ("joint_states", JointState, BEST_EFFORT),
            ("/tf", TFMessage, BEST_EFFORT),
            ("/tf_static", TFMessage, LATCHED),
            ("tabletop_sim/truth", SceneTruth, LATCHED),
            ("tabletop_sim/truth_ids", Image, LATCHED),
        ):
            name = topic.rsplit("/", 1)[-1] if "camera" not in topic else topic
            self.heard[name] = []
            self.node.create_subscription(kind, topic, self.heard[name].append, qos)
        self.client = self.node.create_client(ResetScene, "tabletop_sim/reset_scene")

    def wait(self, done: Callable[[], bool], what: str) -> None:
        deadline_ns = self.node.get_clock().now().nanoseconds + int(PATIENCE_S * 1e9)
        while not done():
            assert self.node.get_clock().now().nanoseconds < deadline_ns, f"waited in vain for {what}"
            self.executor.spin_once(timeout_sec=0.1)

    def reset(self, seed: int) -> ResetScene.Response:
        self.wait(self.client.service_is_ready, "the service")
        future = self.client.call_async(ResetScene.Request(seed=seed))
        self.wait(future.done, "the service's answer")
        return future.result()

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture(scope="module")
def simulator() -> Iterator[subprocess.Popen[str]]:
    process = start("-p", "depth_noise:=none", "-p", "seed:=7", "-p", "world:=first")
    yield process
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def listener(simulator: subprocess.Popen[str]) -> Iterator[Listener]:
    listener = Listener()
    listener.wait(lambda: bool(listener.heard["truth"]), "the truth")
    yield listener
    listener.close()


def stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def test_everything_of_one_instant_carries_one_stamp(listener: Listener) -> None:
    cameras = [topic for topic in listener.heard if topic.startswith("camera/")]
    listener.wait(lambda: all(len(listener.heard[t]) >= 12 for t in cameras), "12 frames")
    stamps = {topic: {stamp_ns(m) for m in listener.heard[topic]} for topic in cameras}
    shared = set.intersection(*stamps.values())
    assert len(shared) >= 10
    arm = {stamp_ns(t) for m in listener.heard["tf"] for t in m.transforms}
    joints = {stamp_ns(m) for m in listener.heard["joint_states"]}
    assert len(shared & arm & joints) >= len(shared) - 1
    periods_s = np.diff(sorted(shared)) * 1e-9
    assert np.median(periods_s) == pytest.approx(0.1, rel=0.2)  # by stamps, not by this machine's load


def test_the_pictures_are_what_their_headers_say(listener: Listener) -> None:
    listener.wait(lambda: all(listener.heard[t] for t in listener.heard), "every topic")
    color = listener.heard["camera/color/image_raw"][-1]
    depth = listener.heard["camera/depth/image_rect"][-1]
    info = listener.heard["camera/color/camera_info"][-1]
    assert (color.encoding, color.width, color.height, color.step) == ("rgb8", 640, 480, 1920)
    assert (depth.encoding, depth.width, depth.height, depth.step) == ("16UC1", 640, 480, 1280)
    assert (info.width, info.height, list(info.d)) == (640, 480, [0.0] * 5)
    frames = {color.header.frame_id, depth.header.frame_id, info.header.frame_id}
    assert frames == {"camera_color_optical_frame"}
    assert np.frombuffer(bytes(color.data), np.uint8).std() > 5
    depth_mm = np.frombuffer(bytes(depth.data), np.uint16)
    assert 400 < np.median(depth_mm[depth_mm > 0]) < 2000


def test_the_transforms_lead_from_the_base_to_the_camera_and_to_the_tool(listener: Listener) -> None:
    listener.wait(lambda: bool(listener.heard["tf"] and listener.heard["tf_static"]), "transforms")
    static = {t.child_frame_id: t for t in listener.heard["tf_static"][-1].transforms}
    assert static["camera_color_optical_frame"].header.frame_id == "camera_link"
    assert static["camera_link"].header.frame_id == "base_link"
    q = static["camera_color_optical_frame"].transform.rotation
    np.testing.assert_allclose(
        np.array([q.x, q.y, q.z, q.w]) / np.sign(q.w), [-0.5, 0.5, -0.5, 0.5], atol=1e-9
    )
    arm = [(t.header.frame_id, t.child_frame_id) for t in listener.heard["tf"][-1].transforms]
    assert arm[0][0] == "base_link"
    assert arm[-1][1] == "tool0"


def test_a_point_of_the_truth_is_found_in_image_and_depth_through_tf(listener: Listener) -> None:
    """What pointing needs: mask centroid + depth + CameraInfo + TF gives a point on the thing."""
    listener.reset(7)
    state = draw_scene(7, FRIENDLY)
    listener.wait(
        lambda: (
            listener.heard["truth"][-1].labels == [o.label for o in state.named]
            and stamp_ns(listener.heard["truth_ids"][-1]) == stamp_ns(listener.heard["truth"][-1])
            and any(
                stamp_ns(m) >= stamp_ns(listener.heard["truth"][-1])
                for m in listener.heard["camera/depth/image_rect"]
            )
        ),
        "the scene",
    )
    truth = listener.heard["truth"][-1]
    assert truth.header.frame_id == "base_link"
    depth = next(m for m in listener.heard["camera/depth/image_rect"] if stamp_ns(m) >= stamp_ns(truth))
    depth_mm = np.frombuffer(bytes(depth.data), np.uint16).reshape(480, 640)
    ids = np.frombuffer(bytes(listener.heard["truth_ids"][-1].data), np.uint16).reshape(480, 640)
    K = np.array(listener.heard["camera/color/camera_info"][-1].k).reshape(3, 3)
    static = {t.child_frame_id: t.transform for t in listener.heard["tf_static"][-1].transforms}
    T = matrix(static["camera_link"]) @ matrix(static["camera_color_optical_frame"])
    np.testing.assert_allclose(T, state.camera.T_base_camera, atol=1e-6)
    for number, thing in enumerate(state.objects):
        u, v = truth.visible_u[number], truth.visible_v[number]
        assert truth.visible_pixels[number] == (ids == number + 1).sum() > 100
        if thing.kind == "ring":
            continue  # its centroid lies in the hole
        assert ids[round(v), round(u)] == number + 1
        z = depth_mm[round(v), round(u)] * 1e-3
        point = T[:3, :3] @ (z * np.array([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], 1.0])) + T[:3, 3]
        position = truth.positions[number]
        assert (
            np.linalg.norm(point - [position.x, position.y, position.z])
            < 0.5 * np.hypot(*thing.size_m) + 0.005
        )


def matrix(transform: Any) -> np.ndarray:
    q, t = transform.rotation, transform.translation
    x, y, z, w = q.x, q.y, q.z, q.w
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), t.x],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x), t.y],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y), t.z],
            [0, 0, 0, 1],
        ]
    )


@pytest.mark.parametrize("seed", [31, 2**63 + 5])
def test_a_reset_answers_after_the_new_scene_is_out(listener: Listener, seed: int) -> None:
    answer = listener.reset(seed)
    assert answer.success
    assert answer.message == ", ".join(o.label for o in draw_scene(seed, FRIENDLY).named)
    listener.wait(lambda: ", ".join(listener.heard["truth"][-1].labels) == answer.message, "the new truth")
    first = stamp_ns(listener.heard["truth"][-1])
    listener.wait(
        lambda: stamp_ns(listener.heard["camera/color/image_raw"][-1]) >= first, "a picture of the new scene"
    )
    # The first picture of the new scene is the one that the truth is stamped with.
    assert first in {stamp_ns(m) for m in listener.heard["camera/color/image_raw"]}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(how: signal.Signals) -> None:
    process = start("-p", "seed:=3", "-r", "__ns:=/other")
    assert process.stdout is not None
    for line in process.stdout:
        if "scene 3" in line:
            break
    process.send_signal(how)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output
    assert "Traceback" not in output


def test_a_context_shut_down_by_someone_else_ends_it_cleanly() -> None:
    program = (
        "import rclpy, threading, sys\n"
        "from molmo_ros.nodes import tabletop_sim\n"
        "shown = tabletop_sim.TabletopSim._publish_frame\n"
        "def last(self):\n"
        "    if self._frame == 5: rclpy.shutdown()\n"
        "    return shown(self)\n"
        "tabletop_sim.TabletopSim._publish_frame = last\n"
        "sys.exit(tabletop_sim.main())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("parameter", "says"),
    [
        ("depth_noise:=foggy", "valid are none, d435, kinect"),
        ("width:=7", "width"),
        ("world:=kitchen", "there are first, tabletop, workshop"),
        ("min_objects:=8", None),
        ("rate_hz:=10", "rate_hz"),
    ],
)
def test_a_wrong_parameter_gets_one_clear_line(parameter: str, says: str | None) -> None:
    extra = ["-p", "max_objects:=5"] if says is None else []
    process = start("-p", parameter, *extra)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, output
    assert "Traceback" not in output
    (line,) = [line for line in output.splitlines() if "cannot start" in line]
    assert (says or "(8, 5)") in line
