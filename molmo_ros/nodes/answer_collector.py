"""Listens to a pointing node, its camera and the people who judge its answers, and writes a data set in the end.

What `molmo_ros collect` runs without a bag. The last pictures are held as they came; that of an answer is kept once the
answer is heard. docs/datasets.md tells how people judge.
"""

from __future__ import annotations

import signal
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from geometry_msgs.msg import Point
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image

from molmo_ros.nodes.image_conversion import rgb_from_message
from molmo_ros.nodes.messages import NANOSECONDS
from molmo_ros.nodes.node_process import spin_until
from molmo_ros.outcome import Code, PointingError
from molmo_ros.training.dataset import DatasetWriter, refuse_existing
from molmo_ros.training.reviewed_answers import CLICKS, REVIEWS, TARGETS, Reviews, write_reviewed
from molmo_ros_interfaces.msg import TargetArray

#: An answer comes within seconds of its picture: so many pictures are held (10 s at 30 Hz).
HELD_PICTURES = 300


class AnswerCollector(Node):
    """Hears `~/targets`, `~/reviewed_targets` and clicks of the node called `node`, and pictures on `color_topic`."""

    def __init__(self, node: str, color_topic: str, held_pictures: int = HELD_PICTURES) -> None:
        super().__init__("answer_collector")
        self.reviews = Reviews()
        self._type = CompressedImage if color_topic.endswith("/compressed") else Image
        self._held_pictures = held_pictures
        self._held: OrderedDict[int, bytes] = OrderedDict()
        self._kept: dict[int, bytes | None] = {}
        name = node.rstrip("/")
        self.create_subscription(TargetArray, f"{name}/{TARGETS}", self._heard(self.reviews.answer), 10)
        self.create_subscription(TargetArray, f"{name}/{REVIEWS}", self._heard(self.reviews.review), 10)
        self.create_subscription(Point, f"{name}/{CLICKS}", lambda at: self.reviews.click(at.x, at.y), 10)
        # A best-effort subscription hears reliable publishers, too.
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(self._type, color_topic, self._picture, qos, raw=True)

    def _heard(
        self, tell: Callable[[int, str, tuple[tuple[float, float], ...]], None]
    ) -> Callable[[Any], None]:
        def hear(message: TargetArray) -> None:
            stamp = message.header.stamp
            stamp_ns = stamp.sec * NANOSECONDS + stamp.nanosec
            tell(stamp_ns, message.query, tuple((target.u, target.v) for target in message.targets))
            # The picture may still be on its way.
            self._kept[stamp_ns] = self._kept.get(stamp_ns) or self._held.get(stamp_ns)
            self.get_logger().info(f"{message.query!r}: {len(self.reviews.reviewed())} answers judged so far")

        return hear

    def _picture(self, data: bytes) -> None:
        # A serialized message begins with its encoding (4 bytes, the second tells the byte order) and the stamp.
        seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
        stamp_ns = seconds * NANOSECONDS + nanoseconds
        if self._kept.get(stamp_ns, data) is None:
            self._kept[stamp_ns] = data
        self._held[stamp_ns] = data
        if len(self._held) > self._held_pictures:
            self._held.popitem(last=False)

    def picture(self, stamp_ns: int) -> np.ndarray | None:
        """HxWx3 uint8 RGB; None if it was not heard. Raises PointingError(BAD_IMAGE)."""
        data = self._kept.get(stamp_ns)
        if data is None:
            return None
        message = deserialize_message(data, self._type)
        if self._type is Image:
            return rgb_from_message(message)
        decoded = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
        if decoded is None:
            raise PointingError(Code.BAD_IMAGE, f"its picture ({message.format!r}) cannot be decoded")
        return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))

    def write(self, out: Path) -> tuple[int, list[str]]:
        """How many questions were written to a new data set, and what was left out, with the reasons.

        Raises:
            DatasetError: there is a data set in `out` already.
        """
        unreviewed = self.reviews.unreviewed()
        left_out = [f"{len(unreviewed)} answers that nobody confirmed or corrected"] if unreviewed else []
        truth = self.reviews.reviewed()
        if not truth:
            return 0, left_out
        with DatasetWriter(out, name=out.name, source="collected from a running node") as writer:
            for reviewed in truth:
                problem = write_reviewed(writer, reviewed, self.picture)
                if problem:
                    left_out.append(f"{reviewed.query!r} at {reviewed.stamp_ns}: {problem}")
        return writer.count, left_out


def collect_live(node: str, color_topic: str, out: Path) -> tuple[int, list[str]]:
    """Collect until SIGINT or SIGTERM, then write; see `AnswerCollector.write`, which may refuse `out` at once."""
    refuse_existing(out)
    # The signals are waited for here: rclpy's own handler takes the context away from under the spinning.
    ending = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    collector, executor = AnswerCollector(node, color_topic), SingleThreadedExecutor()
    executor.add_node(collector)
    ended = threading.Event()
    spinning = threading.Thread(target=spin_until, args=("answer_collector", executor, ended), daemon=True)
    spinning.start()
    try:
        signal.sigwait(ending)
    finally:
        ended.set()
        executor.wake()
        executor.shutdown()
        spinning.join()
        written = collector.write(out)
        collector.destroy_node()
        rclpy.try_shutdown()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return written
