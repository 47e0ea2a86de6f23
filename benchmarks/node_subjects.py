"""What benchmarks/node.py measures: our node with a pointer that takes no time, and a naive node beside it.

    python benchmarks/node_subjects.py instant|naive [--ros-args ...]

The naive node is what one writes first: subscriptions that deserialise, an approximate synchroniser, a transform
listener, a MultiThreadedExecutor, everything always on. It makes the same goal from the same pixel.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image
from tf2_ros import Buffer, TransformException, TransformListener

from molmo_ros.nodes.answer import StageSeconds
from molmo_ros.nodes.messages import durations_message
from molmo_ros.nodes.parameters import PointingParameters
from molmo_ros.nodes.pointing_node import main as pointing_main
from molmo_ros.pointing.point import Point2D
from molmo_ros.pointing.protocol import ModelDurations, Pointing
from molmo_ros_interfaces.srv import PointTo


class InstantPointer:
    """Points at the middle, at once."""

    def point(
        self,
        image_HW3: np.ndarray,
        target: str,
        *,
        max_points: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Pointing:
        height, width = image_HW3.shape[:2]
        point = Point2D(width / 2, height / 2, target, confidence=0.9, sigma_px=1.0, index=0)
        return Pointing((point,), "", False, ModelDurations())


class NaiveNode(Node):
    def __init__(self) -> None:
        super().__init__("pointing_node")
        group = ReentrantCallbackGroup()
        self._lock = threading.Lock()
        self._kept: dict[str, deque[Any]] = {name: deque(maxlen=10) for name in ("color", "depth", "info")}
        self._newest: deque[tuple[Any, Any, Any]] = deque(maxlen=1)
        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, self)
        for name, kind, topic in (
            ("color", Image, "camera/color/image_raw"),
            ("depth", Image, "camera/depth/image_rect"),
            ("info", CameraInfo, "camera/color/camera_info"),
        ):
            self.create_subscription(
                kind, topic, lambda message, name=name: self._keep(name, message), 10, callback_group=group
            )
        self._goal = self.create_publisher(PoseStamped, "~/goal_pose", 10)
        self.create_service(PointTo, "~/point_to", self._point_to, callback_group=group)

    def _keep(self, name: str, message: Any) -> None:
        with self._lock:
            self._pair(name, message)

    def _pair(self, name: str, message: Any) -> None:
        self._kept[name].append(message)
        for color in reversed(self._kept["color"]):
            parts = [
                next((m for m in self._kept[other] if m.header.stamp == color.header.stamp), None)
                for other in ("depth", "info")
            ]
            if all(part is not None for part in parts):
                self._newest.append((color, parts[0], parts[1]))
                return

    def _point_to(self, request: PointTo.Request, response: PointTo.Response) -> PointTo.Response:
        begin_s = time.perf_counter()
        while not self._newest:
            time.sleep(0.01)
        color, depth, info = self._newest.pop()
        got_s = time.perf_counter()
        image = np.frombuffer(color.data, np.uint8).reshape(color.height, color.width, 3)
        depth_m = (
            np.frombuffer(depth.data, np.uint16).reshape(depth.height, depth.width).astype(np.float32) / 1000
        )
        v, u = image.shape[0] // 2, image.shape[1] // 2
        z = float(np.median(depth_m[v - 10 : v + 10, u - 10 : u + 10]))
        while True:
            try:
                at = self._buffer.lookup_transform(
                    "base_link", color.header.frame_id, Time.from_msg(color.header.stamp)
                )
                break
            except TransformException:
                time.sleep(0.005)
        goal = PoseStamped(header=color.header)
        goal.header.frame_id = "base_link"
        goal.pose.position.x = at.transform.translation.x + (u - info.k[2]) / info.k[0] * z
        goal.pose.position.z = z
        self._goal.publish(goal)
        total_s = time.perf_counter() - begin_s
        response.targets.header.stamp = color.header.stamp
        response.durations = durations_message(StageSeconds(frame_wait=got_s - begin_s, total=total_s))
        return response


def naive() -> int:
    rclpy.init()
    executor = MultiThreadedExecutor()
    executor.add_node(NaiveNode())
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    return 0


def instant() -> int:
    def load(parameters: PointingParameters, tell: Callable[[str], None]) -> InstantPointer:
        return InstantPointer()

    return pointing_main(load_pointer=load)


if __name__ == "__main__":
    which = sys.argv.pop(1)
    sys.exit(naive() if which == "naive" else instant())
