"""A small client of the demo's graph: asks, has things moved, resets scenes, and keeps what arrives. Used by the
demo and `tools/ask`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image

from molmo_ros_interfaces.action import PickPlace
from molmo_ros_interfaces.msg import SceneTruth
from molmo_ros_interfaces.srv import PointTo, ResetScene

POINTING, SIMULATOR, TASK = "/pointing_node", "/tabletop_sim", "/pick_place_node"


class GraphError(RuntimeError):
    """The graph did not do its part in time; the message says which part."""


class PointClient:
    """One rclpy node that spins only while it waits."""

    def __init__(self) -> None:
        rclpy.init()
        self.node = Node(f"point_client_{os.getpid()}")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._point_to = self.node.create_client(PointTo, f"{POINTING}/point_to")
        self._reset = self.node.create_client(ResetScene, f"{SIMULATOR}/reset_scene")
        self._pick_place = ActionClient(self.node, PickPlace, f"{TASK}/pick_place")
        self.truth: SceneTruth | None = None
        self.picture: np.ndarray | None = None

    def follow_scene(self) -> None:
        """Also keep the scene's truth and the annotated pictures (the demo's table and picture)."""
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(SceneTruth, f"{SIMULATOR}/truth", self._keep_truth, latched)
        self.node.create_subscription(Image, f"{POINTING}/annotated_image", self._keep_picture, 5)

    def _keep_truth(self, message: SceneTruth) -> None:
        self.truth = message

    def _keep_picture(self, message: Image) -> None:
        self.picture = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3).copy()

    def wait_for(
        self, what: str, ready: Callable[[], bool], timeout_s: float, alive: Callable[[], bool]
    ) -> None:
        """Spin until `ready`; raises GraphError when it takes too long or a process of the graph has ended."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            self._executor.spin_once(timeout_sec=0.05)
            if not alive():
                raise GraphError(
                    f"the launched processes ended while waiting for {what}; see their log above"
                )
            if time.monotonic() > deadline:
                raise GraphError(f"no {what} within {timeout_s:g} s")

    def wait_for_graph(self, timeout_s: float, alive: Callable[[], bool] = lambda: True) -> None:
        self.wait_for("pointing node", self._point_to.service_is_ready, timeout_s, alive)
        self.wait_for("simulator", self._reset.service_is_ready, timeout_s, alive)
        # A service is seen before it sees its caller, and until then replies get lost.
        deadline = time.monotonic() + timeout_s
        while not self._answers_at_all(alive):
            if time.monotonic() > deadline:
                raise GraphError(f"the pointing node does not answer within {timeout_s:g} s")

    def _answers_at_all(self, alive: Callable[[], bool]) -> bool:
        future = self._point_to.call_async(PointTo.Request())
        soon = time.monotonic() + 1.0
        self.wait_for("reply", lambda: future.done() or time.monotonic() > soon, 5.0, alive)
        return bool(future.done())

    def reset_scene(self, seed: int, alive: Callable[[], bool] = lambda: True) -> SceneTruth:
        """A new scene; returns its truth."""
        self.truth = None
        reply = self._call(self._reset, ResetScene.Request(seed=seed), "answer of the simulator", 30.0, alive)
        if not reply.success:
            raise GraphError(f"the simulator could not show scene {seed}: {reply.message}")
        self.wait_for("truth of the new scene", lambda: self.truth is not None, 10.0, alive)
        return self.truth

    def point_to(
        self, target: str, timeout_s: float = 60.0, alive: Callable[[], bool] = lambda: True, **fields: Any
    ) -> PointTo.Response:
        """Ask the pointing node."""
        self.picture = None
        request = PointTo.Request(target=target, **fields)
        response: PointTo.Response = self._call(
            self._point_to, request, "answer of the pointing node", timeout_s, alive
        )
        return response

    def pick_place(
        self,
        pick: str,
        place: str,
        on_stage: Callable[[str], None] = lambda _: None,
        timeout_s: float = 300.0,
        alive: Callable[[], bool] = lambda: True,
    ) -> PickPlace.Result:
        """Have a thing picked and placed; `on_stage` is told what is being done."""
        self.wait_for("pick_place_node", self._pick_place.server_is_ready, 60.0, alive)
        sent = self._pick_place.send_goal_async(
            PickPlace.Goal(pick=pick, place=place), lambda message: on_stage(message.feedback.stage)
        )
        self.wait_for("word of pick_place_node", sent.done, 30.0, alive)
        result = sent.result().get_result_async()
        self.wait_for("end of pick and place", result.done, timeout_s, alive)
        return result.result().result

    def _call(self, client: Any, request: Any, what: str, timeout_s: float, alive: Callable[[], bool]) -> Any:
        future = client.call_async(request)
        self.wait_for(what, future.done, timeout_s, alive)
        return future.result()

    def close(self) -> None:
        self._executor.shutdown()
        self._pick_place.destroy()
        self.node.destroy_node()
        if rclpy.ok():
            rclpy.shutdown()
