"""Time and motion: simulated time, a bag that loops, and a base that drives on while the model thinks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from camera_rig import COLOR_FRAME, info_message, plain_image, pose
from rclpy.node import Node
from rclpy.time import Time
from ros_graph import Caller, Graph, wait_until
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from tf2_ros import StaticTransformBroadcaster, TransformBroadcaster

from molmo_ros.outcome import Code
from molmo_ros_interfaces.srv import PointTo

pytestmark = pytest.mark.ros
START_NS = 1_000_000_000_000
PERIOD_NS = 50_000_000
SPEED_M_S = 0.8
MOUNT_M = (0.5, 0.1, 1.0)


class World:
    """A bag, as it were: clock, camera and a base driving along x of odom, all in time of its own."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.now_ns = START_NS
        self.sends_tf = True
        self._clock = node.create_publisher(Clock, "/clock", 10)
        self._color = node.create_publisher(Image, "camera/color/image_raw", 5)
        self._depth = node.create_publisher(Image, "camera/depth/image_rect", 5)
        self._info = node.create_publisher(CameraInfo, "camera/color/camera_info", 5)
        self._tf = TransformBroadcaster(node)
        self._static = StaticTransformBroadcaster(node)
        mount = pose("base_link", COLOR_FRAME, MOUNT_M)
        mount.transform.rotation.x, mount.transform.rotation.w = 1.0, 0.0
        self._static.sendTransform(mount)
        node.create_timer(0.05, self._step)

    def base_x_m(self, stamp_ns: int) -> float:
        return SPEED_M_S * (stamp_ns - START_NS) / 1e9

    def _step(self) -> None:
        self.now_ns += PERIOD_NS
        stamp = Time(nanoseconds=self.now_ns).to_msg()
        self._clock.publish(Clock(clock=stamp))
        if self.sends_tf:
            base = pose("odom", "base_link", (self.base_x_m(self.now_ns), 0.0, 0.0))
            base.header.stamp = stamp
            self._tf.sendTransform(base)
        for publisher, message in (
            (self._info, info_message()),
            (self._depth, plain_image("16UC1", 800)),
            (self._color, plain_image("rgb8", 100)),
        ):
            message.header.stamp, message.header.frame_id = stamp, COLOR_FRAME
            publisher.publish(message)


@pytest.fixture(scope="module")
def world_of_module(graph: Graph) -> World:
    return World(graph.node("bag"))


@pytest.fixture
def world(world_of_module: World) -> Iterator[World]:
    yield world_of_module
    world_of_module.sends_tf = True


@pytest.fixture(scope="module", params=["on demand", "streaming"])
def timed(
    graph: Graph,
    world_of_module: World,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Caller:
    log: Path = tmp_path_factory.mktemp("timed") / "log.txt"
    name = f"timed_{request.param.replace(' ', '_')}"
    parameters = ("use_sim_time:=true", "fixed_frame:=odom", "tf_timeout_s:=1.0")
    streaming = f"streaming:={'true' if request.param == 'streaming' else 'false'}"
    arguments = [word for each in (*parameters, streaming) for word in ("-p", each)]
    process = graph.start_scripted_node(log, "-r", f"__node:={name}", *arguments)
    caller = Caller(graph.node(f"{name}_caller"), f"/{name}")
    assert caller.is_up(process), log.read_text()
    # Both ends of a request that takes its time lie in what this node has heard of TF.
    assert wait_until(lambda: caller.point_to("wait 0.5").outcome.code == Code.OK), log.read_text()
    assert wait_until(lambda: caller.point_to("wait 1").outcome.code == Code.OK), log.read_text()
    return caller


def stamps_ns(reply: PointTo.Response) -> tuple[int, int]:
    """Of the image and of the first target's pose."""
    assert reply.outcome.code == Code.OK, reply.outcome
    headers = reply.targets.header, reply.targets.targets[0].pose.header
    image_ns, pose_ns = (each.stamp.sec * 1_000_000_000 + each.stamp.nanosec for each in headers)
    return image_ns, pose_ns


def test_all_stamps_are_in_simulated_time(timed: Caller, world: World) -> None:
    before_ns = world.now_ns
    image_ns, pose_ns = stamps_ns(timed.point_to("the thing"))
    assert before_ns - 1_000_000_000 < image_ns <= pose_ns <= world.now_ns


def test_a_target_is_carried_with_the_base_to_the_time_of_the_goal(timed: Caller, world: World) -> None:
    timed.goals.clear()
    reply = timed.point_to("wait 0.5")
    image_ns, pose_ns = stamps_ns(reply)
    assert pose_ns - image_ns >= 300_000_000
    driven_m = world.base_x_m(pose_ns) - world.base_x_m(image_ns)
    at = reply.targets.targets[0].pose.pose.pose.position
    assert (at.x, at.y, at.z) == pytest.approx((MOUNT_M[0] - driven_m, MOUNT_M[1], 0.2), abs=2e-3)
    assert timed.wait_for(lambda: bool(timed.goals))
    assert timed.goals[0].header == reply.targets.targets[0].pose.header


def test_a_base_that_is_lost_meanwhile_makes_no_goal(timed: Caller, world: World) -> None:
    timed.goals.clear()
    goal = timed.goal("wait 1")
    assert goal.wait_for_feedback(lambda said: said.tokens > 0)
    world.sends_tf = False
    _, result = goal.end()
    assert result.outcome.code == Code.TF_UNAVAILABLE
    assert "the base" in result.outcome.message  # which has moved on, or whose place is not told at all
    world.sends_tf = True
    assert timed.point_to("the thing").outcome.code == Code.OK
    assert timed.wait_for(lambda: bool(timed.goals)) and len(timed.goals) == 1


def test_a_bag_that_loops_is_survived(timed: Caller, world: World) -> None:
    before_ns, _ = stamps_ns(timed.point_to("the thing"))
    world.now_ns = START_NS

    def asked_in_the_new_run() -> bool:
        """The first request may have got its frame before the jump, or be the one in which it comes."""
        reply = timed.point_to("the thing")
        return bool(reply.outcome.code == Code.OK and stamps_ns(reply)[0] < before_ns)

    assert wait_until(asked_in_the_new_run)
    image_ns, pose_ns = stamps_ns(timed.point_to("the thing"))
    assert START_NS <= image_ns <= pose_ns <= world.now_ns
