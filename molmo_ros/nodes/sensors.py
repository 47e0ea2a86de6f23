"""The node's eyes: its cameras and TF, on a ROS node, an executor and a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import rclpy
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.executors import Executor
from rclpy.node import Node

from molmo_ros.nodes.base_motion import BaseMotion, BaseNow
from molmo_ros.nodes.frame_rules import FrameRules
from molmo_ros.nodes.frame_source import FrameSource, RawFrame
from molmo_ros.nodes.hand_off_parameters import NAV2
from molmo_ros.nodes.parameters import PointingParameters
from molmo_ros.nodes.transforms import TransformWindow
from molmo_ros.outcome import Code, Outcome, PointingError

# How long a change of subscriptions may take; it waits for at most one callback.
_CHANGE_S = 5.0


class Sensors:
    """Open between activation and deactivation. Call from any thread but the sensors' own."""

    def __init__(self, node: Node, executor: Executor) -> None:
        """`node` is the one that users see: its clock, name and remappings hold here too."""
        self._clock = node.get_clock()
        self._executor = executor
        self.node = _second_node(node)
        executor.add_node(self.node)
        self._sources: dict[str, FrameSource] = {}
        self._motions: dict[str, BaseMotion] = {}
        self._transforms = TransformWindow(self.node)
        # At every jump back; forward jumps only make what is kept look old, which it is.
        self._jumps = self._clock.create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True),
            post_callback=lambda _: self._executor.create_task(self._forget),
        )

    def open(self, parameters: PointingParameters, rules: Sequence[FrameRules]) -> None:
        """Serve frames of these cameras from now on."""
        sources = {
            each.camera: FrameSource(self.node, self._executor, self._clock, each, self._transforms)
            for each in rules
        }
        frames = {parameters.fixed_frame} if parameters.fixed_frame else set()
        if parameters.planner.hand_off == NAV2:
            frames.add(parameters.planner.nav2_frame)
        motions = {
            frame: BaseMotion(
                self.node,
                self._executor,
                self._clock,
                self._transforms,
                parameters.target_frame,
                frame,
                parameters.tf_timeout_s,
            )
            for frame in frames
        }

        def begin() -> None:
            self._sources, self._motions = sources, motions
            self._transforms.keep_recent(any(each.streaming for each in rules))
            for source in sources.values():
                source.open()

        self._on_its_thread(begin)

    def close(self, outcome: Outcome) -> None:
        """End all subscriptions but /tf_static, and every wait with this outcome."""

        def end() -> None:
            for source in self._sources.values():
                source.close(outcome)
            self._sources = {}
            self._transforms.keep_recent(False)

        self._on_its_thread(end)

    def request_frame(self, camera: str, max_age_ns: int, timeout_s: float) -> Future[RawFrame]:
        """See `FrameSource.request`."""
        source = self._sources.get(camera)
        if source is None:
            refused: Future[RawFrame] = Future()
            refused.set_exception(PointingError(Code.NOT_ACTIVE, "the node was deactivated"))
            return refused
        return source.request(max_age_ns, timeout_s)

    def base_in(self, frame: str) -> Future[BaseNow]:
        """Where target_frame is now in the fixed_frame, or in the planner's frame. See `BaseMotion.request`."""
        return self._motions[frame].request()

    def describe(self) -> dict[str, str]:
        """What each camera is doing, for people."""
        return {
            name: "streaming" if source.rules.streaming else "subscribed" if source.is_subscribed else "idle"
            for name, source in list(self._sources.items())
        }

    def destroy(self) -> None:
        """Nothing may spin its node any more."""
        self._jumps.unregister()
        self.node.destroy_node()

    def _forget(self) -> None:
        for source in self._sources.values():
            source.forget_messages()
        self._transforms.forget()

    def _on_its_thread(self, change: Callable[[], None]) -> None:
        done = threading.Event()
        fault: list[Exception] = []

        def run() -> None:
            try:
                change()
            except Exception as error:  # noqa: BLE001 - raised where it was asked for
                fault.append(error)
            done.set()

        self._executor.create_task(run)
        if not done.wait(_CHANGE_S):
            raise RuntimeError(
                "the thread of cameras and TF does not answer; see the log for a callback that hangs"
            )
        if fault:
            raise fault[0]


def _second_node(node: Node) -> Node:
    """A node that obeys the remappings of the first; topics of cameras are resolved by the first itself."""
    remappings: list[str] = []
    for topic in ("/tf", "/tf_static"):
        resolved = node.resolve_topic_name(topic)
        if resolved != topic:
            remappings += ["-r", f"{topic}:={resolved}"]
    return rclpy.create_node(
        f"_{node.get_name()}_sensors",
        namespace=node.get_namespace(),
        cli_args=["--ros-args", *remappings] if remappings else None,
        use_global_arguments=False,
        enable_rosout=False,
        start_parameter_services=False,
    )
