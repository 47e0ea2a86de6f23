"""Where the arm is, as joint_states tell it, and whether that can be planned from."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from rclpy.clock import Clock
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState

from molmo_ros.nodes.messages import NANOSECONDS
from molmo_ros.outcome import Code, PointingError

_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


class ArmState:
    """Keeps the newest position and speed of every joint; joints may come in several messages, in any order."""

    def __init__(self, node: Node, topic: str, max_age_s: float) -> None:
        self._topic = node.resolve_topic_name(topic)
        self._clock: Clock = node.get_clock()
        self._max_age_s = max_age_s
        self._heard: dict[str, tuple[float, float, int]] = {}
        self._lock = threading.Lock()
        node.create_subscription(JointState, topic, self.hear, _QOS)

    def hear(self, message: JointState) -> None:
        """Take in one message; what it lacks stays as it was."""
        stamp_ns = message.header.stamp.sec * NANOSECONDS + message.header.stamp.nanosec
        speeds = message.velocity if len(message.velocity) == len(message.name) else [0.0] * len(message.name)
        with self._lock:
            for name, position, speed in zip(message.name, message.position, speeds, strict=False):
                self._heard[name] = (float(position), float(speed), stamp_ns)

    def joints(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Positions and speeds (D,) of these joints.

        Raises PointingError(STATE_STALE): nothing heard, a joint missing, too old, or not a number.
        """
        with self._lock:
            heard = dict(self._heard)
        missing = [name for name in names if name not in heard]
        if missing:
            known = ", ".join(sorted(heard)) or "none"
            raise PointingError(
                Code.STATE_STALE,
                f"no joint states of {', '.join(missing)} on {self._topic}; joints heard of: {known}",
            )
        oldest = min(names, key=lambda name: heard[name][2])
        age_s = (self._clock.now().nanoseconds - heard[oldest][2]) / NANOSECONDS
        if abs(age_s) > self._max_age_s:
            raise PointingError(
                Code.STATE_STALE,
                f"the last joint state of {oldest} on {self._topic} is {age_s:.2f} s old; at most "
                f"{self._max_age_s:g} s are allowed (max_state_age_s)",
            )
        position = np.array([heard[name][0] for name in names])
        speed = np.array([heard[name][1] for name in names])
        if not (np.isfinite(position).all() and np.isfinite(speed).all()):
            raise PointingError(Code.STATE_STALE, f"joint states on {self._topic} are not numbers")
        return position, speed
