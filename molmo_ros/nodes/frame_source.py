"""One RGB-D instant of one camera: subscribe when a request comes, pair the stamps, unsubscribe soon after the last.

An instant is chosen when colour, depth and intrinsics carry stamps within the allowed gap, the image is fresh,
and TF covers its stamp. When none comes in time the refusal says what was missing, by name. A streaming camera
stays subscribed, and its newest complete instant is there at once.

Everything here runs on the thread of the executor that spins the sensor node; only `request` may be called from
elsewhere.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rclpy.clock import Clock
from rclpy.executors import Executor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from molmo_ros.nodes.camera_channel import Channel, Heard
from molmo_ros.nodes.frame_rules import NANOSECONDS, FrameRules
from molmo_ros.nodes.one_shot import OneShot
from molmo_ros.nodes.transforms import TransformWindow
from molmo_ros.outcome import Code, Outcome, PointingError

# Discovery may still run when a request comes in: how often to look whether its publishers call for another QoS.
LATE_PUBLISHERS_S = 0.25
# Tidying up takes milliseconds of Python's lock, which the frame's reader needs first; a little later the model is at
# work outside of it.
TIDY_AFTER_S = 0.02


@dataclass(frozen=True, eq=False)
class RawFrame:
    """The bytes of one instant (CDR), and where its camera was at its stamp.

    `T_still_camera` (4x4): from the camera's `frame_id` to the rules' still frame. `T_color_depth` (4x4): from
    the depth camera's frame to the colour camera's; None when depth is registered to colour. `complete_s`: when
    its last message arrived and TF covered it, by time.monotonic(); `age_s`: how old it was then.
    """

    color: bytes
    color_info: bytes
    depth: bytes | None
    depth_info: bytes | None
    stamp_ns: int
    frame_id: str
    T_still_camera: np.ndarray
    T_color_depth: np.ndarray | None
    complete_s: float
    age_s: float

    @property
    def nbytes(self) -> int:
        return sum(len(part) for part in (self.color, self.color_info, self.depth, self.depth_info) if part)


@dataclass(eq=False)
class _Wait:
    """One request's wait for a frame, and the nearest that it came to one."""

    answer: Future[RawFrame]
    max_age_ns: int
    started_s: float
    started_ns: int
    timers: list[OneShot] = field(default_factory=list)
    refusal: Outcome | None = None
    tf_refusal: Outcome | None = None
    smallest_gap: tuple[int, str] | None = None

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self.started_s


class FrameSource:
    """Frames of one camera, for any number of requests at a time."""

    def __init__(
        self, node: Node, executor: Executor, clock: Clock, rules: FrameRules, transforms: TransformWindow
    ) -> None:
        """`node` is spun by `executor`; `clock` is the clock that image stamps are compared with."""
        self.rules = rules
        self._node = node
        self._executor = executor
        self._clock = clock
        self._transforms = transforms
        self._waits: list[_Wait] = []
        self._ended: list[_Wait] = []
        self._tidying = OneShot(node, self._tidy_up)
        self._closing = OneShot(node, self._unsubscribe)
        self._adapting = OneShot(node, self._adapt)
        color_type: type[Any] = Image if rules.color_transport == "raw" else CompressedImage
        depth_type: type[Any] = Image if rules.depth_transport == "raw" else CompressedImage
        roles: list[tuple[str, str, str | None, type[Any]]] = [
            ("color", "colour image", rules.color_topic, color_type),
            ("info", "CameraInfo", rules.color_info_topic, CameraInfo),
            ("depth", "depth image", rules.depth_topic, depth_type),
            ("depth_info", "CameraInfo", rules.depth_info_topic, CameraInfo),
        ]
        self._channels = {
            name: Channel(node, clock, role, topic, kind, rules.sensor_qos, self._try_all)
            for name, role, topic, kind in roles
            if topic is not None
        }

    def request(self, max_age_ns: int, timeout_s: float) -> Future[RawFrame]:
        """The next instant at most `max_age_ns` old; the future raises PointingError when there is none in
        time, and may be cancelled.

        `timeout_s` bounds the wait together with the rule's own `frame_timeout_s`. Call from any thread.
        """
        answer: Future[RawFrame] = Future()

        def forget(future: Future[RawFrame]) -> None:
            if future.cancelled():
                self._executor.create_task(self._forget, future)

        answer.add_done_callback(forget)
        self._executor.create_task(self._begin, answer, max_age_ns, timeout_s)
        return answer

    def open(self) -> None:
        """From now on requests are served; a streaming camera is subscribed."""
        if self.rules.streaming:
            self._subscribe()

    def close(self, outcome: Outcome) -> None:
        """End all waits with this outcome, and every subscription."""
        for wait in list(self._waits):
            self._end(wait, PointingError(outcome.code, outcome.message))
        self._tidying.call_off()
        self._tidy_up()
        self._closing.call_off()
        self._unsubscribe()

    def forget_messages(self) -> None:
        """Time has jumped: what was heard belongs to another run of the clock."""
        self._forget_heard()
        for wait in self._waits:
            wait.started_ns = self._clock.now().nanoseconds
            wait.refusal = wait.tf_refusal = wait.smallest_gap = None

    def _forget_heard(self) -> None:
        for channel in self._channels.values():
            if not channel.latched:
                channel.heard.clear()

    @property
    def is_subscribed(self) -> bool:
        return any(channel.is_open for channel in self._channels.values())

    @property
    def newest_stamp_ns(self) -> int:
        """Stamp of the newest colour image that is kept; 0 when there is none."""
        return max((message.stamp_ns for message in self._channels["color"].heard), default=0)

    # ------------------------------------------------------------------ a wait, from beginning to end

    def _begin(self, answer: Future[RawFrame], max_age_ns: int, timeout_s: float) -> None:
        if answer.cancelled():
            return
        self._closing.call_off()
        if not self._waits and not self.rules.streaming:
            self._forget_heard()  # what came before this request is none of its frames
        wait = _Wait(answer, max_age_ns, time.monotonic(), self._clock.now().nanoseconds)
        self._waits.append(wait)
        try:
            self._transforms.open(wait, lambda: self._guarded_try(wait))
            self._subscribe()
            self._end_after(wait, min(self.rules.frame_timeout_s, timeout_s))
        except Exception as error:  # noqa: BLE001 - else the request would wait for ever
            self._end(wait, error)
            return
        if self.rules.streaming:
            self._guarded_try(wait)

    def _end_after(self, wait: _Wait, seconds: float) -> None:
        def end() -> None:
            if wait in self._waits:
                outcome = self._diagnosis(wait)
                self._end(wait, PointingError(outcome.code, outcome.message))

        timer = OneShot(self._node, end)
        timer.start(seconds)
        wait.timers.append(timer)

    def _end(self, wait: _Wait, result: RawFrame | Exception | None) -> None:
        """Answer a wait; what it used is closed a little later. None: nobody is interested any more."""
        self._waits.remove(wait)
        self._ended.append(wait)
        if not self._tidying.is_due:
            self._tidying.start(TIDY_AFTER_S)
        if result is None or not wait.answer.set_running_or_notify_cancel():
            return
        if isinstance(result, Exception):
            wait.answer.set_exception(result)
        else:
            wait.answer.set_result(result)

    def _tidy_up(self) -> None:
        """Close what ended waits used; if nobody waits any more, in a while the camera too."""
        for wait in self._ended:
            for timer in wait.timers:
                timer.call_off()
            wait.timers.clear()  # they know their wait, and it holds a frame
            self._transforms.close(wait)
        self._ended.clear()
        if not self._waits and not self.rules.streaming:
            self._closing.start(self.rules.keep_open_s)

    def _forget(self, answer: Future[RawFrame]) -> None:
        for wait in [wait for wait in self._waits if wait.answer is answer]:
            self._end(wait, None)

    def _subscribe(self) -> None:
        for channel in self._channels.values():
            channel.open()
        if not self._adapting.is_due:
            self._adapting.start(LATE_PUBLISHERS_S)
        if not self.rules.streaming:
            self._transforms.open(self, lambda: None)  # as long as the camera

    def _unsubscribe(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._adapting.call_off()
        self._transforms.close(self)

    def _adapt(self) -> None:
        for channel in self._channels.values():
            channel.adapt()
        self._adapting.start(LATE_PUBLISHERS_S)

    # ------------------------------------------------------------------ choosing an instant

    def _try_all(self) -> None:
        for wait in list(self._waits):
            self._guarded_try(wait)

    def _guarded_try(self, wait: _Wait) -> None:
        if wait not in self._waits:
            return
        try:
            frame = self._try(wait)
        except Exception as error:  # noqa: BLE001 - a fault of ours ends one request, not the thread
            self._end(wait, error)
            return
        if frame is not None:
            self._end(wait, frame)

    def _try(self, wait: _Wait) -> RawFrame | None:
        channels = self._channels
        for color in sorted(channels["color"].heard, key=lambda message: -message.stamp_ns):
            parts = {name: self._partner(wait, name, color) for name in channels if name != "color"}
            if any(part is None for part in parts.values()):
                continue
            refusal = self._freshness(color, wait)
            if refusal is not None:
                wait.refusal = refusal
                continue
            depth, depth_info = parts.get("depth"), parts.get("depth_info")
            T_color_depth = None
            try:
                T = self._transforms.matrix_at(self.rules.still_frame, color.frame_id, color.stamp_ns)
                if depth_info is not None and depth is not None:
                    T_color_depth = self._transforms.matrix_at(color.frame_id, depth.frame_id, color.stamp_ns)
            except PointingError as error:
                if wait.tf_refusal is None:
                    self._end_after(wait, self.rules.tf_timeout_s)
                wait.tf_refusal = error.outcome
                continue
            info = parts["info"]
            assert info is not None
            return RawFrame(
                color=color.data,
                color_info=info.data,
                depth=depth.data if depth else None,
                depth_info=depth_info.data if depth_info else None,
                stamp_ns=color.stamp_ns,
                frame_id=color.frame_id,
                T_still_camera=T,
                T_color_depth=T_color_depth,
                complete_s=time.monotonic(),
                age_s=(self._clock.now().nanoseconds - color.stamp_ns) / NANOSECONDS,
            )
        return None

    def _partner(self, wait: _Wait, name: str, color: Heard) -> Heard | None:
        """The message of a channel that belongs to a colour image; None when none is near enough."""
        channel = self._channels[name]
        nearest = channel.nearest(color.stamp_ns)
        if nearest is None or channel.latched:  # latched: said once for all images
            return nearest
        gap_ns = abs(nearest.stamp_ns - color.stamp_ns)
        if gap_ns <= self.rules.max_pairing_gap_ns:
            return nearest
        if wait.smallest_gap is None or gap_ns < wait.smallest_gap[0]:
            wait.smallest_gap = (gap_ns, channel.topic)
        return None

    def _freshness(self, color: Heard, wait: _Wait) -> Outcome | None:
        """Why an image is not of the present, by the clock at its arrival or at the request, whichever is later."""
        seen_ns = max(color.arrived_ns, wait.started_ns)
        age_ns = seen_ns - color.stamp_ns
        if age_ns > wait.max_age_ns:
            because = "; its stamp is zero: the driver does not set it" if color.stamp_ns == 0 else ""
            return Outcome(
                Code.STALE_FRAME,
                f"the newest image on {self.rules.color_topic} was {age_ns / 1e9:.3f} s old when it was looked at; "
                f"the limit is {wait.max_age_ns / 1e9:.3f} s (max_frame_age){because}",
            )
        lead_ns = color.stamp_ns - color.arrived_ns
        if lead_ns > self.rules.max_stamp_lead_ns:
            if color.arrived_ns == 0:
                because = "this node's clock stands at zero: use_sim_time is set and nothing publishes /clock"
            else:
                because = (
                    "the clocks of the camera and of this node disagree, or only one of them uses sim time"
                )
            return Outcome(
                Code.FUTURE_STAMP,
                f"the image on {self.rules.color_topic} is stamped {lead_ns / 1e9:.3f} s ahead of now; the limit "
                f"is {self.rules.max_stamp_lead_ns / 1e9:.3f} s (max_stamp_lead_s); {because}",
            )
        return None

    # ------------------------------------------------------------------ saying what was missing

    def _diagnosis(self, wait: _Wait) -> Outcome:
        codes = {
            "color": Code.NO_FRAME,
            "info": Code.NO_CAMERA_INFO,
            "depth": Code.NO_DEPTH,
            "depth_info": Code.NO_CAMERA_INFO,
        }
        for name, channel in self._channels.items():
            fresh = [
                heard for heard in channel.heard if channel.latched or heard.arrived_ns >= wait.started_ns
            ]
            if not fresh:
                return Outcome(codes[name], channel.why_silent(wait.waited_s))
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
            f"{topic} comes no nearer than {gap_ns / 1e6:.1f} ms to the images on {self.rules.color_topic}; the "
            f"limit is {self.rules.max_pairing_gap_ns / 1e6:.1f} ms (max_pairing_gap_s)",
        )
