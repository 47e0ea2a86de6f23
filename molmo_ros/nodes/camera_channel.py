"""One topic of a camera: its subscription, the newest messages as bytes, and why it is silent when it is.

Messages are kept as they came (CDR) and only their headers are read; what is not part of the chosen instant is
never deserialised.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.subscription import Subscription

KEPT_MESSAGES = 8
SENSOR_QUEUE_DEPTH = 5
_NAMED_TOPICS = 6


@dataclass(frozen=True)
class Heard:
    """A message: its header's stamp and frame, its bytes, and when it arrived by the node's clock."""

    stamp_ns: int
    frame_id: str
    data: bytes
    arrived_ns: int


class Channel:
    """Use from the thread of the executor that spins `node`.

    `role` is what a person calls it ("colour image"). `reliability`: auto, reliable or best_effort.
    """

    def __init__(
        self,
        node: Node,
        clock: Clock,
        role: str,
        topic: str,
        message_type: type[Any],
        reliability: str,
        on_message: Callable[[], None],
    ) -> None:
        self.role, self.topic, self.message_type = role, topic, message_type
        self.heard: deque[Heard] = deque(maxlen=KEPT_MESSAGES)
        self.latched = False
        self._node = node
        self._clock = clock
        self._reliability = reliability
        self._on_message = on_message
        self._subscription: Subscription | None = None
        self._qos: QoSProfile | None = None
        self._spoke = False

    @property
    def is_open(self) -> bool:
        return self._subscription is not None

    def open(self) -> None:
        if self._subscription is None:
            self._subscribe(self._wanted_qos())

    def close(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        self.heard.clear()
        self._spoke = False

    def adapt(self) -> None:
        """Subscribe anew when nothing came since the last call and publishers, found only now, want other terms."""
        spoke, self._spoke = self._spoke, False
        if self._subscription is None or spoke or (self.latched and self.heard):
            return
        wanted = self._wanted_qos()
        if wanted != self._qos:
            self._node.destroy_subscription(self._subscription)
            self._subscribe(wanted)

    def nearest(self, stamp_ns: int) -> Heard | None:
        return min(self.heard, key=lambda message: abs(message.stamp_ns - stamp_ns), default=None)

    def _subscribe(self, qos: QoSProfile) -> None:
        self._qos = qos
        self.latched = qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
        # A group of its own each time: rclpy's groups never forget what was in them.
        self._subscription = self._node.create_subscription(
            self.message_type,
            self.topic,
            self._hear,
            qos,
            callback_group=MutuallyExclusiveCallbackGroup(),
            raw=True,
        )

    def _hear(self, data: bytes) -> None:
        header = header_of(data)
        if header is not None and self._subscription is not None:
            self._spoke = True
            self.heard.append(Heard(*header, data, self._clock.now().nanoseconds))
            self._on_message()

    def _wanted_qos(self) -> QoSProfile:
        """Reliable, and latched, only when every publisher offers it: a lesser subscriber hears them all."""
        offers = [publisher.qos_profile for publisher in self._node.get_publishers_info_by_topic(self.topic)]
        if self._reliability == "auto":
            reliable = bool(offers) and all(qos.reliability == ReliabilityPolicy.RELIABLE for qos in offers)
        else:
            reliable = self._reliability == "reliable"
        latched = bool(offers) and all(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offers)
        return QoSProfile(
            depth=SENSOR_QUEUE_DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )

    def why_silent(self, waited_s: float) -> str:
        """One sentence on why nothing came."""
        silence = f"no {self.role} on {self.topic} for {waited_s:.1f} s"
        type_name = ros_type_name(self.message_type)
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        of_type = [publisher for publisher in publishers if publisher.topic_type == type_name]
        if publishers and not of_type:
            return f"{silence}; what is published there is {publishers[0].topic_type}, not {type_name}"
        if not of_type:
            published = {
                topic: types
                for topic, types in self._node.get_topic_names_and_types()
                if self._node.count_publishers(topic) > 0
            }
            others = sorted(topic for topic, types in published.items() if type_name in types)
            named = ", ".join(others[:_NAMED_TOPICS]) or "none"
            more = f" and {len(others) - _NAMED_TOPICS} more" if len(others) > _NAMED_TOPICS else ""
            compressed = [topic for topic in published if topic.startswith(f"{self.topic}/compressed")]
            instead = (
                f"; there is {', '.join(sorted(compressed))}, which may be given instead"
                if compressed
                else ""
            )
            return f"{silence}, nobody publishes it; topics with that type: {named}{more}{instead}"
        wanted = self._wanted_qos()
        for publisher in of_type:
            compatibility, reason = qos_check_compatible(publisher.qos_profile, wanted)
            if compatibility == QoSCompatibility.ERROR:
                return (
                    f"{silence}: the QoS of {publisher.node_name} does not fit ({reason.strip()}); set sensor_qos "
                    "to auto"
                )
        count = f"{len(of_type)} publisher{'s' if len(of_type) > 1 else ''} ({of_type[0].node_name})"
        return f"{silence}, though {count} announce it; is the camera streaming?"


def header_of(cdr: bytes) -> tuple[int, str] | None:
    """Stamp (ns) and frame_id of a serialised message that begins with a std_msgs/Header; None if it is cut
    short.

    CDR (OMG DDS-XTypes 7.4.3): 4 bytes of encapsulation whose second tells the byte order, then the fields.
    """
    if len(cdr) < 16:
        return None
    order = "<" if cdr[1] & 1 else ">"
    seconds, nanoseconds, length = struct.unpack_from(f"{order}iII", cdr, 4)
    if len(cdr) < 16 + length:
        return None
    frame_id = bytes(cdr[16 : 16 + max(length - 1, 0)]).decode("utf-8", "replace")
    return seconds * 1_000_000_000 + nanoseconds, frame_id.lstrip("/")


def ros_type_name(message_type: type[Any]) -> str:
    package, kind = message_type.__module__.split(".")[:2]
    return f"{package}/{kind}/{message_type.__name__}"
