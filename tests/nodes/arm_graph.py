"""One end of a graph with an arm: the simulated controller, and a caller of planner_node."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseArray, PoseStamped, TransformStamped
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_graph import UP_WITHIN_S, Graph, wait_until
from sent_goal import SentGoal
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_ros import StaticTransformBroadcaster
from trajectory_msgs.msg import JointTrajectory

from molmo_ros.nodes.arm_server import ArmServer
from molmo_ros.nodes.goal_client import GoalClient
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.sim import fr3
from molmo_ros.sim.physics import TablePhysics
from molmo_ros.sim.scene import SceneState, draw_scene
from molmo_ros_interfaces.action import MoveToGoal
from molmo_ros_interfaces.msg import Outcome
from molmo_ros_interfaces.srv import Confirm

READY = np.array(fr3.FR3_ARM.rest_rad)
# Straight down at a place above the table that is clear of everything.
GOAL = (0.5, 0.15, 0.2)
TABLE_YAML = "boxes: {table: {size_m: [1.36, 1.7, 0.04], xyz_m: [0.4, 0.0, -0.0205]}}\n"


class Arm:
    """The simulated FR3 with its controller, in this process."""

    def __init__(self, heartbeat_topic: str = "") -> None:
        self.scene = RoboplanScene(fr3.robot())
        self._executor = SingleThreadedExecutor()
        self.server = ArmServer(self._executor, self.scene.limits, 50.0, heartbeat_topic, "/")
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self.reset(draw_scene(1))
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def reset(self, state: SceneState) -> None:
        self.server.load(TablePhysics(state))

    def joints(self) -> np.ndarray:
        named, _ = self.server.now()
        return np.array([named[name] for name in fr3.JOINTS])

    def is_at_rest(self) -> bool:
        before = self.joints()
        threading.Event().wait(0.1)
        return float(np.abs(self.joints() - before).max()) < 1e-3

    def tool(self) -> np.ndarray:
        """Where the goal's frame is now (4x4, base)."""
        return self.scene.goal_pose(self.joints())

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self._thread.join(5.0)
        self.server.close()


class PlannerCaller:
    """A planner_node process and everything that is said to it."""

    def __init__(
        self, graph: Graph, name: str, folder: Path, *settings: str, speed_scale: float | None = 0.5
    ) -> None:
        """`speed_scale` None: the node's own default."""
        self._graph = graph
        self.name = name
        (folder / "table.yaml").write_text(TABLE_YAML)
        values = [
            "obstacles_file:=" + str(folder / "table.yaml"),
            *([] if speed_scale is None else [f"speed_scale:={speed_scale}"]),
            "settle_timeout_s:=40.0",
            "max_goal_age_s:=30.0",
            *settings,
        ]
        arguments = [word for value in values for word in ("-p", value)]
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[str] = graph.start(
            *[sys.executable, "-m", "molmo_ros.nodes.planner_node", "--ros-args", "-r", f"__node:={name}"],
            *["-r", f"goal_pose:=/{name}/goal_pose", "-r", f"goal_poses:=/{name}/goal_poses", *arguments],
            log=self.log,
        )
        self.node = graph.node(f"{name}_caller")
        self._client = GoalClient(self.node, MoveToGoal, f"/{name}/move_to_goal", self.node.executor)
        self.outcomes: list[Outcome] = []
        self.shown: list[JointTrajectory] = []
        self.node.create_subscription(Outcome, f"/{name}/outcome", self.outcomes.append, 10)
        self.node.create_subscription(JointTrajectory, f"/{name}/planned_trajectory", self.shown.append, 10)
        self.waiting: list[str] = []
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(String, f"/{name}/awaiting_confirm", self._hear_waiting, latched)
        self.goal_pose = self.node.create_publisher(PoseStamped, f"/{name}/goal_pose", 10)
        self.goal_poses = self.node.create_publisher(PoseArray, f"/{name}/goal_poses", 10)
        self._static = StaticTransformBroadcaster(self.node)
        transform = TransformStamped(child_frame_id="shelf")
        transform.header.frame_id = "fr3_link0"
        transform.transform.translation.x = 0.4
        transform.transform.rotation.w = 1.0
        self._static.sendTransform(transform)
        self._services = {
            word: self.node.create_client(Trigger, f"/{name}/{word}") for word in ("stop", "resume")
        }
        self._confirm = self.node.create_client(Confirm, f"/{name}/confirm")

    def _hear_waiting(self, message: String) -> None:
        self.waiting.append(message.data)

    def is_up(self) -> bool:
        """Whether it answers: a plan is asked for until one comes back."""
        if not self._client.wait_for_server(UP_WITHIN_S):
            return False

        def plans() -> bool:
            asked = self.move(plan_only=True)
            # An action is seen before it sees its caller: first replies can get lost.
            return asked.ends(10.0) and asked.result().outcome.code == 0

        return wait_until(plans, UP_WITHIN_S)

    def pose(
        self, xyz: tuple[float, float, float] = GOAL, frame: str = "fr3_link0", age_s: float = 0.0
    ) -> PoseStamped:
        """Straight down at a place."""
        pose = PoseStamped()
        now_ns = self.node.get_clock().now().nanoseconds - round(age_s * 1e9)
        pose.header.stamp.sec, pose.header.stamp.nanosec = divmod(now_ns, 1_000_000_000)
        pose.header.frame_id = frame
        pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = xyz
        pose.pose.orientation.x = pose.pose.orientation.y = float(np.sqrt(0.5))
        pose.pose.orientation.w = 0.0
        return pose

    def move(self, *poses: PoseStamped, **fields: Any) -> SentGoal:
        fields = {"approach_offset": 0.05, **fields}
        return self.request(MoveToGoal.Goal(goals=list(poses or (self.pose(),)), **fields))

    def request(self, goal: MoveToGoal.Goal) -> SentGoal:
        return SentGoal(self._client, goal)

    def has_action(self, timeout_s: float) -> bool:
        return bool(self._client.wait_for_server(timeout_s))

    def publish_goals(self, *poses: PoseStamped) -> None:
        """Alternatives on the topic, stamped as the first of them."""
        self.goal_poses.publish(PoseArray(header=poses[0].header, poses=[each.pose for each in poses]))

    def call(self, word: str) -> Trigger.Response:
        return self._answer(self._services[word].call_async(Trigger.Request()))

    def confirm(self, goal_id: str, accept: bool) -> Confirm.Response:
        return self._answer(self._confirm.call_async(Confirm.Request(goal_id=goal_id, accept=accept)))

    def _answer(self, future: Any) -> Any:
        assert wait_until(future.done, 20.0), "no answer"
        return future.result()

    def ends(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(20)


def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    """True as soon as it holds."""
    return wait_until(condition, timeout_s)


def now_s() -> float:
    return time.monotonic()
