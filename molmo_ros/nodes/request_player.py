"""Plays what recorded requests saw onto the camera's topics: pictures, depth, intrinsics, transforms and the time.

Each request's instant is shown for a while, again and again with its own stamp, and /clock stands at that stamp: a node
with `use_sim_time` finds the picture fresh, however slow it is. Goals are never played.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock as ClockMessage

from molmo_ros.nodes.messages import NANOSECONDS
from molmo_ros.nodes.request_bag import STATIC_TF, RecordedRequest, read_request

PLAY_HZ = 10.0
_SENSOR_QOS = QoSProfile(depth=5)
_STATIC_QOS = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class RequestPlayer(Node):
    """Shows each request for `show_s` seconds, one after the other, and begins anew. All must have seen a frame."""

    def __init__(self, bags: Sequence[Path], show_s: float, tell: Callable[[RecordedRequest], None]) -> None:
        super().__init__("request_player")
        self._bags, self._show_s, self._tell = bags, show_s, tell
        self._clock_topic = self.create_publisher(ClockMessage, "/clock", 10)
        self._topics: dict[str, Publisher] = {}
        self._next = 0
        self._show_next()
        self.create_timer(1.0 / PLAY_HZ, self._play, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _show_next(self) -> None:
        self._shown = read_request(self._bags[self._next])
        self._next = (self._next + 1) % len(self._bags)
        self._until_s = time.monotonic() + self._show_s
        for message in self._shown.sensor_messages:
            if message.topic not in self._topics:
                qos = _STATIC_QOS if message.topic == STATIC_TF else _SENSOR_QOS
                kind = _type_called(message.type_name)
                self._topics[message.topic] = self.create_publisher(kind, message.topic, qos)
        self._tell(self._shown)

    def _play(self) -> None:
        if len(self._bags) > 1 and time.monotonic() > self._until_s:
            self._show_next()
        assert self._shown.raw is not None
        seconds, nanoseconds = divmod(self._shown.raw.stamp_ns, NANOSECONDS)
        self._clock_topic.publish(ClockMessage(clock=Time(sec=seconds, nanosec=nanoseconds)))
        for message in self._shown.sensor_messages:
            self._topics[message.topic].publish(message.data)


@cache
def _type_called(name: str) -> Any:
    package, kind, message = name.split("/")
    return getattr(import_module(f"{package}.{kind}"), message)


def play(bags: Sequence[Path], show_s: float, tell: Callable[[RecordedRequest], None]) -> None:
    """Until SIGINT or SIGTERM. Raises BagError."""
    rclpy.init(args=[])
    try:
        rclpy.spin(RequestPlayer(bags, show_s, tell))
    except (ExternalShutdownException, KeyboardInterrupt):
        return
    finally:
        rclpy.try_shutdown()
