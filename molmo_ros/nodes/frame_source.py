"""One RGB-D instant on demand: subscribe while a request waits, pair the stamps, unsubscribe.

Messages are kept as bytes and only their headers are read; what is not part of the chosen instant is never
deserialised. An instant is chosen when colour, depth and intrinsics carry stamps within the allowed gap, the
image is fresh, and TF covers its stamp. When none comes in time the refusal says what was missing, by name.

Everything here runs on the thread of the executor that spins the sensor node; only `request` and `cancel` may
be called from elsewhere.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, Image

from molmo_ros.nodes.transforms import TransformWindow
from molmo_ros.outcome import Code, Outcome, PointingError

KEPT_MESSAGES = 8
SENSOR_QUEUE_DEPTH = 5
# Discovery may still run when a request comes in: how often to look whether its publishers call for another QoS.
LATE_PUBLISHERS_S = 0.25
_NAMED_TOPICS = 6


@dataclass(frozen=True)
class FrameRules:
    """What counts as one instant; durations in the units their names say. `depth_topic` None: colour
    alone."""

    color_topic: str
    color_info_topic: str
    depth_topic: str | None
    target_frame: str
    max_pairing_gap_ns: int
    max_stamp_lead_ns: int
    frame_timeout_s: float
    tf_timeout_s: float
    sensor_qos: str = "auto"


@dataclass(frozen=True, eq=False)
class RawFrame:
    """The bytes of one instant (CDR) and `T_target_camera` (4x4) at its stamp; `frame_id` is the camera's."""

    color: bytes
    color_info: bytes
    depth: bytes | None
    stamp_ns: int
    frame_id: str
    T_target_camera: np.ndarray


@dataclass(frozen=True)
class _Heard:
    stamp_ns: int
    frame_id: str
    data: bytes
    arrived_ns: int


@dataclass
class _Channel:
    """One topic of the camera during one wait: its subscription and the newest messages."""

    role: str
    topic: str
    message_type: type[Any]
    subscription: Subscription | None = None
    qos: QoSProfile | None = None
    latched: bool = False
    heard: deque[_Heard] = field(default_factory=lambda: deque(maxlen=KEPT_MESSAGES))

    def nearest(self, stamp_ns: int) -> _Heard | None:
        return min(self.heard, key=lambda message: abs(message.stamp_ns - stamp_ns), default=None)


@dataclass
class _Wait:
    """One request's wait for a frame, and the nearest that it came to one."""

    answer: Future[RawFrame]
    max_age_ns: int
    started_s: float
    channels: dict[str, _Channel]
    timers: list[Timer] = field(default_factory=list)
    refusal: Outcome | None = None
    tf_refusal: Outcome | None = None
    smallest_gap: tuple[int, str] | None = None

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self.started_s


class FrameSource:
    """Serves one wait at a time, which is all that one model can use."""

    def __init__(self, node: Node, executor: Executor, clock: Clock, rules: FrameRules) -> None:
        """`node` is spun by `executor`; `clock` is the clock that image stamps are compared with."""
        self._node = node
        self._executor = executor
        self._clock = clock
        self._rules = rules
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._wait: _Wait | None = None
        self._transforms = TransformWindow(node, on_change=self._guarded_try)

    def request(self, max_age_ns: int, timeout_s: float) -> Future[RawFrame]:
        """The next instant at most `max_age_ns` old; the future raises PointingError when there is none in
        time.

        `timeout_s` bounds the wait together with the rule's own `frame_timeout_s`. Call from any thread.
        """
        answer: Future[RawFrame] = Future()
        self._executor.create_task(self._begin, answer, max_age_ns, timeout_s)
        return answer

    def cancel(self) -> None:
        """Give up the wait, if there is one. Call from any thread."""
        self._executor.create_task(
            self._refuse, Outcome(Code.CANCELLED, "cancelled while waiting for a frame")
        )

    # ------------------------------------------------------------------ a wait, from beginning to end

    def _begin(self, answer: Future[RawFrame], max_age_ns: int, timeout_s: float) -> None:
        if self._wait is not None:
            answer.set_exception(PointingError(Code.BUSY, "another request is waiting for a frame"))
            return
        rules = self._rules
        channels = {
            "color": _Channel("colour image", rules.color_topic, Image),
            "info": _Channel("CameraInfo", rules.color_info_topic, CameraInfo),
        }
        if rules.depth_topic is not None:
            channels["depth"] = _Channel("depth image", rules.depth_topic, Image)
        self._wait = wait = _Wait(answer, max_age_ns, time.monotonic(), channels)
        try:
            self._transforms.open()
            for channel in channels.values():
                self._subscribe(channel, self._qos_for(channel))
            self._end_after(min(rules.frame_timeout_s, timeout_s))
            wait.timers.append(self._node.create_timer(LATE_PUBLISHERS_S, self._adapt, clock=self._steady))
        except Exception as error:  # noqa: BLE001 - else the request would wait for ever
            self._close()
            wait.answer.set_exception(error)

    def _subscribe(self, channel: _Channel, qos: QoSProfile) -> None:
        channel.qos = qos
        channel.latched = qos.durability == DurabilityPolicy.TRANSIENT_LOCAL

        def hear(data: bytes) -> None:
            self._hear(channel, data)

        channel.subscription = self._node.create_subscription(
            channel.message_type, channel.topic, hear, qos, raw=True
        )

    def _qos_for(self, channel: _Channel) -> QoSProfile:
        """Reliable only when every publisher offers it: a best effort subscriber hears them all."""
        publishers = self._node.get_publishers_info_by_topic(channel.topic)
        offers = [publisher.qos_profile for publisher in publishers]
        if self._rules.sensor_qos == "auto":
            reliable = bool(offers) and all(qos.reliability == ReliabilityPolicy.RELIABLE for qos in offers)
        else:
            reliable = self._rules.sensor_qos == "reliable"
        latched = bool(offers) and all(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offers)
        return QoSProfile(
            depth=SENSOR_QUEUE_DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )

    def _adapt(self) -> None:
        """Subscribe anew where nothing came and publishers, found only now, call for other terms."""
        for channel in self._wait.channels.values() if self._wait else ():
            wanted = self._qos_for(channel)
            if not channel.heard and wanted != channel.qos and channel.subscription is not None:
                self._node.destroy_subscription(channel.subscription)
                self._subscribe(channel, wanted)

    def _end_after(self, seconds: float) -> None:
        wait = self._wait
        assert wait is not None

        def end() -> None:
            if self._wait is wait:
                self._refuse(self._diagnosis())

        wait.timers.append(self._node.create_timer(max(seconds, 1e-3), end, clock=self._steady))

    def _refuse(self, outcome: Outcome) -> None:
        if self._wait is not None:
            answer = self._wait.answer
            self._close()
            answer.set_exception(PointingError(outcome.code, outcome.message))

    def _close(self) -> None:
        wait, self._wait = self._wait, None
        if wait is None:
            return
        for channel in wait.channels.values():
            if channel.subscription is not None:
                self._node.destroy_subscription(channel.subscription)
        for timer in wait.timers:
            self._node.destroy_timer(timer)
        self._transforms.close()

    # ------------------------------------------------------------------ choosing an instant

    def _hear(self, channel: _Channel, data: bytes) -> None:
        wait = self._wait
        if wait is None or channel not in wait.channels.values():
            return
        header = _header_of(data)
        if header is not None:
            channel.heard.append(_Heard(*header, data, self._clock.now().nanoseconds))
            self._guarded_try()

    def _guarded_try(self) -> None:
        wait = self._wait
        if wait is None:
            return
        try:
            self._try()
        except Exception as error:  # noqa: BLE001 - a fault of ours ends one request, not the thread
            self._close()
            if not wait.answer.done():
                wait.answer.set_exception(error)

    def _try(self) -> None:
        wait = self._wait
        if wait is None:
            return
        for color in sorted(wait.channels["color"].heard, key=lambda message: -message.stamp_ns):
            info, depth = self._partner(wait, "info", color), self._partner(wait, "depth", color)
            if info is None or (depth is None and "depth" in wait.channels):
                continue
            refusal = self._freshness(color, wait.max_age_ns)
            if refusal is not None:
                wait.refusal = refusal
                continue
            try:
                T = self._transforms.matrix_at(self._rules.target_frame, color.frame_id, color.stamp_ns)
            except PointingError as error:
                if wait.tf_refusal is None:
                    self._end_after(self._rules.tf_timeout_s)
                wait.tf_refusal = error.outcome
                continue
            self._close()
            wait.answer.set_result(
                RawFrame(
                    color.data, info.data, depth.data if depth else None, color.stamp_ns, color.frame_id, T
                )
            )
            return

    def _partner(self, wait: _Wait, name: str, color: _Heard) -> _Heard | None:
        """The message of a channel that belongs to a colour image; None when none is near enough."""
        channel = wait.channels.get(name)
        nearest = channel.nearest(color.stamp_ns) if channel else None
        if channel is None or nearest is None:
            return None
        if channel.latched:  # said once for all images
            return nearest
        gap_ns = abs(nearest.stamp_ns - color.stamp_ns)
        if gap_ns <= self._rules.max_pairing_gap_ns:
            return nearest
        if wait.smallest_gap is None or gap_ns < wait.smallest_gap[0]:
            wait.smallest_gap = (gap_ns, channel.topic)
        return None

    def _freshness(self, color: _Heard, max_age_ns: int) -> Outcome | None:
        age_ns = color.arrived_ns - color.stamp_ns
        if age_ns > max_age_ns:
            because = "; its stamp is zero: the driver does not set it" if color.stamp_ns == 0 else ""
            return Outcome(
                Code.STALE_FRAME,
                f"the newest image on {self._rules.color_topic} was {age_ns / 1e9:.3f} s old when it "
                f"arrived; the "
                f"limit is {max_age_ns / 1e9:.3f} s (max_frame_age){because}",
            )
        if -age_ns > self._rules.max_stamp_lead_ns:
            if color.arrived_ns == 0:
                because = "this node's clock stands at zero: use_sim_time is set and nothing publishes /clock"
            else:
                because = (
                    "the clocks of the camera and of this node disagree, or only one of them uses sim time"
                )
            return Outcome(
                Code.FUTURE_STAMP,
                f"the image on {self._rules.color_topic} is stamped {-age_ns / 1e9:.3f} s ahead of now; "
                f"the limit "
                f"is {self._rules.max_stamp_lead_ns / 1e9:.3f} s (max_stamp_lead_s); {because}",
            )
        return None

    # ------------------------------------------------------------------ saying what was missing

    def _diagnosis(self) -> Outcome:
        wait = self._wait
        assert wait is not None
        codes = {"color": Code.NO_FRAME, "info": Code.NO_CAMERA_INFO, "depth": Code.NO_DEPTH}
        for name, code in codes.items():
            if name in wait.channels and not wait.channels[name].heard:
                return Outcome(code, self._missing(wait.channels[name], wait.waited_s))
        if wait.tf_refusal is not None:
            return wait.tf_refusal
        if wait.refusal is not None:
            return wait.refusal
        if wait.smallest_gap is None:
            return Outcome(
                Code.NOT_SYNCHRONISED, "colour, depth and CameraInfo came, but no two belong together"
            )
        gap_ns, topic = wait.smallest_gap
        return Outcome(
            Code.NOT_SYNCHRONISED,
            f"{topic} comes no nearer than {gap_ns / 1e6:.1f} ms to the images on "
            f"{self._rules.color_topic}; the "
            f"limit is {self._rules.max_pairing_gap_ns / 1e6:.1f} ms (max_pairing_gap_s)",
        )

    def _missing(self, channel: _Channel, waited_s: float) -> str:
        """One sentence on why a topic stayed silent."""
        silence = f"no {channel.role} on {channel.topic} for {waited_s:.1f} s"
        type_name = _ros_type_name(channel.message_type)
        publishers = self._node.get_publishers_info_by_topic(channel.topic)
        of_type = [publisher for publisher in publishers if publisher.topic_type == type_name]
        if publishers and not of_type:
            return f"{silence}; what is published there is {publishers[0].topic_type}, not {type_name}"
        if not of_type:
            others = sorted(
                topic
                for topic, types in self._node.get_topic_names_and_types()
                if type_name in types and self._node.count_publishers(topic) > 0
            )
            named = ", ".join(others[:_NAMED_TOPICS]) or "none"
            more = f" and {len(others) - _NAMED_TOPICS} more" if len(others) > _NAMED_TOPICS else ""
            return f"{silence}, nobody publishes it; topics with that type: {named}{more}"
        wanted = self._qos_for(channel)
        for publisher in of_type:
            compatibility, reason = qos_check_compatible(publisher.qos_profile, wanted)
            if compatibility == QoSCompatibility.ERROR:
                return (
                    f"{silence}: the QoS of {publisher.node_name} does not fit ({reason.strip()}); set "
                    f"sensor_qos "
                    "to auto"
                )
        count = f"{len(of_type)} publisher{'s' if len(of_type) > 1 else ''} ({of_type[0].node_name})"
        return f"{silence}, though {count} announce it; is the camera streaming?"


def _header_of(cdr: bytes) -> tuple[int, str] | None:
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


def _ros_type_name(message_type: type[Any]) -> str:
    package, kind = message_type.__module__.split(".")[:2]
    return f"{package}/{kind}/{message_type.__name__}"
