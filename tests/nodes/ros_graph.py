"""One end of a real ROS graph for tests: a camera that can be made to misbehave, and a caller of the node."""

from __future__ import annotations

import fcntl
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped, TransformStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image
from tf2_ros import StaticTransformBroadcaster, TransformBroadcaster

from molmo_ros.nodes.goal_client import GoalClient
from molmo_ros_interfaces.action import PointToTarget
from molmo_ros_interfaces.msg import TargetArray
from molmo_ros_interfaces.srv import Ask, PointTo, ReleaseFrame

WIDTH, HEIGHT, FOCAL_PX, DEPTH_M = 160, 120, 150.0, 0.8
OPTICAL = "camera_color_optical_frame"
SCRIPT = Path(__file__).with_name("scripted_pointing_node.py")
CAMERA_POSITION = (0.5, 0.1, 1.0)
# A process imports a second of Python; on a machine that trains models beside the tests it takes far longer.
UP_WITHIN_S = 90.0
_LOCKS: dict[int, IO[str]] = {}


@dataclass
class Behaviour:
    """What the camera does; the defaults are a good camera looking straight down from 1 m above base_link."""

    color: bool = True
    depth: bool = True
    info: bool = True
    color_age_s: float = 0.0
    depth_age_s: float = 0.0
    depth_size: tuple[int, int] = (WIDTH, HEIGHT)
    depth_m: float = DEPTH_M
    color_bytes: int | None = None
    depth_bytes: int | None = None
    color_value: int = 0
    color_encoding: str = "rgb8"
    info_size: tuple[int, int] = (WIDTH, HEIGHT)
    k00: float = FOCAL_PX
    frame_id: str = OPTICAL
    depth_frame_id: str = ""
    moving_frame: bool = False
    stamps_sent: list[int] = field(default_factory=list)


class Camera:
    """Publishes at 20 Hz from its own node; `behaviour` may be replaced at any time."""

    def __init__(self, node: Node, reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE) -> None:
        self.node = node
        self.behaviour = Behaviour()
        qos = QoSProfile(depth=5, reliability=reliability)
        self._color = node.create_publisher(Image, "camera/color/image_raw", qos)
        self._depth = node.create_publisher(Image, "camera/depth/image_rect", qos)
        self._info = node.create_publisher(CameraInfo, "camera/color/camera_info", qos)
        self._static = StaticTransformBroadcaster(node)
        self._static.sendTransform(_looking_down("base_link", OPTICAL))
        self._dynamic = TransformBroadcaster(node)
        node.create_timer(0.05, self._publish)

    @property
    def subscribers(self) -> int:
        return sum(publisher.get_subscription_count() for publisher in (self._color, self._depth, self._info))

    def _publish(self) -> None:
        does = self.behaviour
        now_ns = self.node.get_clock().now().nanoseconds
        color_ns = now_ns - round(does.color_age_s * 1e9)
        if does.moving_frame:
            transform = _looking_down("base_link", "moving_camera")
            transform.header.stamp = Time(nanoseconds=now_ns).to_msg()
            self._dynamic.sendTransform(transform)
        if does.info:
            info = CameraInfo(width=does.info_size[0], height=does.info_size[1], distortion_model="plumb_bob")
            _stamp(info, color_ns, does.frame_id)
            cx, cy = (WIDTH - 1) / 2, (HEIGHT - 1) / 2
            info.k = [does.k00, 0.0, cx, 0.0, FOCAL_PX, cy, 0.0, 0.0, 1.0]
            info.p = [does.k00, 0.0, cx, 0.0, 0.0, FOCAL_PX, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
            info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
            info.d = [0.0] * 5
            self._info.publish(info)
        if does.depth:
            width, height = does.depth_size
            depth = Image(width=width, height=height, encoding="16UC1", step=2 * width)
            _stamp(depth, now_ns - round(does.depth_age_s * 1e9), does.depth_frame_id or does.frame_id)
            data = np.full((height, width), round(1000 * does.depth_m), np.uint16).tobytes()
            depth.data = data[: does.depth_bytes]
            self._depth.publish(depth)
        if does.color:
            color = Image(width=WIDTH, height=HEIGHT, encoding=does.color_encoding, step=3 * WIDTH)
            _stamp(color, color_ns, does.frame_id)
            size = 3 * WIDTH * HEIGHT if does.color_bytes is None else does.color_bytes
            color.data = bytes([does.color_value]) * size
            self._color.publish(color)
            does.stamps_sent.append(color_ns)


class Caller:
    """Calls what the node serves and keeps what it publishes."""

    def __init__(self, node: Node, name: str = "/pointing_node") -> None:
        self.node = node
        self.name = name
        self.goals: list[PoseStamped] = []
        self.targets: list[TargetArray] = []
        self._clients: dict[str, Any] = {}
        self.client = node.create_client(PointTo, f"{name}/point_to")
        self._heard = threading.Condition()
        node.create_subscription(PoseStamped, f"{name}/goal_pose", self._keep(self.goals), 10)
        node.create_subscription(TargetArray, f"{name}/targets", self._keep(self.targets), 10)

    def is_up(self, process: subprocess.Popen[str] | None = None, *, loaded: bool = True) -> bool:
        """Whether the node answers, by default with its model loaded.

        A service is seen before it sees its caller: first replies can get lost.
        """

        def ended() -> bool:
            return process is not None and process.poll() is not None

        if not wait_until(lambda: ended() or self.client.service_is_ready(), UP_WITHIN_S):
            return False
        if not wait_until(lambda: ended() or self.ask("").arrives(1.0), UP_WITHIN_S):
            return False

        def is_loaded() -> bool:
            return "still loading" not in self.point_to("the thing", frame_token="none").outcome.message

        return not ended() and (not loaded or wait_until(is_loaded, UP_WITHIN_S))

    def _keep(self, kept: list[Any]) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            with self._heard:
                kept.append(message)
                self._heard.notify_all()

        return keep

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
        """Until something that was heard makes the condition true."""
        with self._heard:
            return self._heard.wait_for(condition, timeout_s)

    def ask(self, target: str, **fields: Any) -> PendingReply:
        return PendingReply(self.client.call_async(PointTo.Request(target=target, **fields)))

    def call(self, kind: type, name: str, request: Any, timeout_s: float = 20.0) -> Any:
        """Any other service of the node."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, f"{self.name}/{name}")
        assert self._clients[name].wait_for_service(UP_WITHIN_S), f"no service {name}"
        return PendingReply(self._clients[name].call_async(request)).get(timeout_s)

    def question(self, question: str, **fields: Any) -> Ask.Response:
        return self.call(Ask, "ask", Ask.Request(question=question, **fields))

    def release(self, token: str) -> ReleaseFrame.Response:
        return self.call(ReleaseFrame, "release_frame", ReleaseFrame.Request(frame_token=token))

    def set_parameter(self, name: str, value: Any) -> str:
        """Why it could not be set, "" when it was."""
        request = SetParametersAtomically.Request(
            parameters=[RosParameter(name, value=value).to_parameter_msg()]
        )
        result = self.call(SetParametersAtomically, "set_parameters_atomically", request).result
        return "" if result.successful else result.reason

    def state(self) -> str:
        return str(self.call(GetState, "get_state", GetState.Request()).current_state.label)

    def change_state(self, label: str, timeout_s: float = 60.0) -> bool:
        """configure, activate, deactivate, cleanup, shutdown."""
        request = ChangeState.Request(transition=Transition(label=label))
        return bool(self.call(ChangeState, "change_state", request, timeout_s).success)

    def goal(self, target: str, **fields: Any) -> Goal:
        return Goal(self, PointToTarget.Goal(target=target, **fields))

    def point_to(self, target: str, timeout_s: float = 20.0, **fields: Any) -> PointTo.Response:
        return self.ask(target, **fields).get(timeout_s)


class Goal:
    """A goal of the action, accepted; its feedback is kept."""

    def __init__(self, caller: Caller, goal: PointToTarget.Goal) -> None:
        self.feedback: list[PointToTarget.Feedback] = []
        self._heard = threading.Condition()
        self._executor = caller.node.executor
        self._client = GoalClient(
            caller.node, PointToTarget, f"{caller.name}/point_to_target", self._executor
        )
        assert self._client.wait_for_server(UP_WITHIN_S), "no action server"
        self._handle = self._client.send(goal, self._keep).result(20.0)
        assert self._handle.accepted
        self._result = PendingReply(self._handle.get_result_async())

    def _keep(self, message: Any) -> None:
        with self._heard:
            self.feedback.append(message.feedback)
            self._heard.notify_all()

    def wait_for_feedback(
        self, condition: Callable[[PointToTarget.Feedback], bool], timeout_s: float = 20.0
    ) -> bool:
        with self._heard:
            return self._heard.wait_for(lambda: any(condition(each) for each in self.feedback), timeout_s)

    def cancel(self) -> bool:
        """Whether the server takes the cancel."""
        return bool(PendingReply(self._handle.cancel_goal_async()).get().goals_canceling)

    def end(self, timeout_s: float = 20.0) -> tuple[int, PointToTarget.Result]:
        """Status (action_msgs/GoalStatus) and result."""
        reply = self._result.get(timeout_s)
        # On the executor's thread: it may be about to wait for this client, and would end with an error.
        self._executor.create_task(self._client.destroy)
        return reply.status, reply.result


class PendingReply:
    def __init__(self, future: Any) -> None:
        self._future = future
        self._done = threading.Event()
        future.add_done_callback(lambda _: self._done.set())

    @property
    def done(self) -> bool:
        return self._done.is_set()

    def arrives(self, timeout_s: float) -> bool:
        return self._done.wait(timeout_s)

    def get(self, timeout_s: float = 20.0) -> Any:
        assert self._done.wait(timeout_s), f"no reply within {timeout_s} s"
        return self._future.result()


class Graph:
    """The test's own end: one context, one executor in a thread, and the processes it started."""

    def __init__(self, domain_id: int | None) -> None:
        """`domain_id` None: that of the environment, as in a process that another graph has started."""
        if domain_id is not None:
            os.environ["ROS_DOMAIN_ID"] = str(domain_id)
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        rclpy.init(args=[], domain_id=domain_id)
        self._executor = SingleThreadedExecutor()
        self._processes: list[subprocess.Popen[str]] = []
        self._nodes: list[Node] = []
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def node(self, name: str, namespace: str = "/") -> Node:
        node = rclpy.create_node(name, namespace=namespace)
        self._executor.add_node(node)
        self._nodes.append(node)
        return node

    def drop(self, node: Node) -> None:
        self._executor.remove_node(node)
        self._nodes.remove(node)
        PendingReply(self._executor.create_task(node.destroy_node)).get()  # while nothing waits for what it has

    def start(self, *command: str, log: Path) -> subprocess.Popen[str]:
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, text=True)
        self._processes.append(process)
        return process

    def start_scripted_node(self, log: Path, *ros_args: str) -> subprocess.Popen[str]:
        return self.start(sys.executable, str(SCRIPT), "--ros-args", *ros_args, log=log)

    def started(
        self, log: Path, name: str, *ros_args: str, loaded: bool = True
    ) -> tuple[subprocess.Popen[str], Caller]:
        """A scripted node under its own name, up and with its service there."""
        process = self.start_scripted_node(log, "-r", f"__node:={name}", *ros_args)
        caller = Caller(self.node(f"{name}_caller"), f"/{name}")
        assert caller.is_up(process, loaded=loaded), log.read_text()
        return process, caller

    def close(self) -> None:
        """End the processes, and leave nothing that the next module's graph would see."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._executor.shutdown()
        self._thread.join(10)
        # A context that is shut down keeps its participant, publishers and all, as long as it has a node.
        for node in self._nodes:
            node.destroy_node()
        rclpy.try_shutdown()


def own_domain() -> int:
    """A domain that no other run of tests on this machine has; it is this process's until its end.

    By process id alone two runs may meet, and each hears the other's nodes, which have the same names.
    """
    for number in range(100):
        domain_id = 1 + (os.getpid() + number) % 100
        if domain_id in _LOCKS:
            return domain_id
        lock = (Path(tempfile.gettempdir()) / f"molmo_ros_domain_{domain_id}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _LOCKS[domain_id] = lock
        return domain_id
    raise RuntimeError("a hundred runs of tests hold all domains; end some of them")


def wait_until(condition: Callable[[], bool], timeout_s: float = 15.0) -> bool:
    """For states that nothing announces, such as a subscription count; true as soon as it holds."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        threading.Event().wait(0.02)
    return True


def _looking_down(parent: str, child: str) -> TransformStamped:
    """Optical axis along -z of the parent; image x along the parent's x."""
    transform = TransformStamped(child_frame_id=child)
    transform.header.frame_id = parent
    t, q = transform.transform.translation, transform.transform.rotation
    t.x, t.y, t.z = CAMERA_POSITION
    q.x, q.y, q.z, q.w = 1.0, 0.0, 0.0, 0.0
    return transform


def _stamp(message: Any, stamp_ns: int, frame_id: str) -> None:
    message.header.stamp = Time(nanoseconds=stamp_ns).to_msg()
    message.header.frame_id = frame_id


NAN = math.nan
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
