"""Goals for Nav2, against a real action server of its interface: before the target, facing it, in the map."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from geometry_msgs.msg import Point, Pose, PoseStamped, TransformStamped
from nav2_msgs.action import NavigateToPose
from planner_servers import Nav2Server
from rclpy.node import Node
from ros_graph import LATCHED, Behaviour, Caller, Camera, Graph, wait_until
from scipy.spatial.transform import Rotation
from tf2_ros import TransformBroadcaster

from molmo_ros.nodes.messages import pose_from_matrix
from molmo_ros.outcome import Code
from molmo_ros_interfaces.msg import HandOff, HandOffArray
from molmo_ros_interfaces.srv import Confirm

pytestmark = pytest.mark.ros
NAME = "to_nav2"
STAND_OFF_M = 0.4


def planar(x: float, y: float, yaw: float) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", yaw).as_matrix()
    T[:2, 3] = x, y
    return T


class Odometry:
    """map -> odom -> base_link at 50 Hz; `speaks` of each may be turned off."""

    def __init__(self, node: Node) -> None:
        self.T_map_odom = planar(1.0, 2.0, 0.3)
        self.T_odom_base = planar(0.5, 0.0, -1.0)
        self.speaks_of_map = True
        self.said = 0
        self._node = node
        self._broadcaster = TransformBroadcaster(node)
        node.create_timer(0.02, self._publish)

    @property
    def T_map_base(self) -> np.ndarray:
        return self.T_map_odom @ self.T_odom_base

    def _publish(self) -> None:
        edges = [("odom", "base_link", self.T_odom_base)]
        if self.speaks_of_map:
            edges.append(("map", "odom", self.T_map_odom))
        for parent, child, T in edges:
            transform = TransformStamped(child_frame_id=child)
            transform.header.frame_id = parent
            transform.header.stamp = self._node.get_clock().now().to_msg()
            pose = pose_from_matrix(T)
            transform.transform.rotation = pose.orientation
            t = transform.transform.translation
            t.x, t.y, t.z = pose.position.x, pose.position.y, pose.position.z
            self._broadcaster.sendTransform(transform)
        self.said += 1

    def drives_to(self, T_odom_base: np.ndarray) -> None:
        """Returns when everybody has been told."""
        self.T_odom_base = T_odom_base
        before = self.said
        assert wait_until(lambda: self.said > before + 2)


class Ours:
    def __init__(self, graph: Graph, log: Path) -> None:
        self.process = graph.start_scripted_node(
            log,
            *["-r", f"__node:={NAME}", "-p", "hand_off:=nav2", "-p", "execute:=true"],
            *["-p", "fixed_frame:=odom", "-p", f"nav2_stand_off_m:={STAND_OFF_M}", "-p", "tf_timeout_s:=2.0"],
        )
        node = graph.node("nav2_caller")
        self.caller = Caller(node, f"/{NAME}")
        self.shown: list[PoseStamped] = []
        node.create_subscription(PoseStamped, f"/{NAME}/planner_goal", self.shown.append, 10)
        assert self.caller.is_up(self.process), log.read_text()

    def set(self, **values: Any) -> None:
        assert self.caller.change_state("deactivate")
        for name, value in values.items():
            assert self.caller.set_parameter(name, value) == ""
        assert self.caller.change_state("activate")


@pytest.fixture(scope="module")
def odometry(graph: Graph) -> Odometry:
    return Odometry(graph.node("odometry"))


@pytest.fixture(scope="module")
def nav2_of_module(graph: Graph) -> Nav2Server:
    return Nav2Server(graph.node("bt_navigator"))


@pytest.fixture(scope="module")
def ours_of_module(
    graph: Graph,
    camera: Camera,
    odometry: Odometry,
    nav2_of_module: Nav2Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Ours:
    ours = Ours(graph, tmp_path_factory.mktemp("node") / "log.txt")
    reply = ours.caller.point_to("the thing")
    assert reply.outcome.code == Code.OK, reply.outcome
    assert nav2_of_module.has_goal() and wait_until(lambda: bool(ours.shown))
    return ours


@pytest.fixture
def nav2(nav2_of_module: Nav2Server, ours_of_module: Ours) -> Iterator[Nav2Server]:
    nav2_of_module.reset()
    yield nav2_of_module
    nav2_of_module.reset()


@pytest.fixture
def ours(ours_of_module: Ours, nav2: Nav2Server, behaviour: Behaviour) -> Ours:
    return ours_of_module


def arrived(nav2: Nav2Server) -> None:
    nav2.finish(NavigateToPose.Result())


def stands_before(pose: Pose, target_map: np.ndarray, robot_map: np.ndarray) -> bool:
    """Whether it is the stand-off distance before the target, seen from the robot, and faces it."""
    way = (target_map - robot_map) / np.linalg.norm(target_map - robot_map)
    q = pose.orientation
    yaw = 2 * math.atan2(q.z, q.w)
    assert (q.x, q.y, pose.position.z) == pytest.approx((0.0, 0.0, 0.0))
    assert [math.cos(yaw), math.sin(yaw)] == pytest.approx(way, abs=1e-6)
    assert [pose.position.x, pose.position.y] == pytest.approx(target_map - STAND_OFF_M * way, abs=1e-6)
    return True


def in_map(T_map_base: np.ndarray, at: Point) -> np.ndarray:
    there: np.ndarray = (T_map_base @ [at.x, at.y, at.z, 1.0])[:2]
    return there


def test_the_goal_is_before_the_target_and_faces_it(ours: Ours, nav2: Nav2Server, odometry: Odometry) -> None:
    reply = ours.caller.point_to("the thing")
    assert reply.outcome.code == Code.OK and "Nav2 has goal" in reply.outcome.message
    (goal,) = nav2.goals
    assert goal.pose.header.frame_id == "map" and goal.behavior_tree == ""
    target = in_map(odometry.T_map_base, reply.targets.targets[0].pose.pose.pose.position)
    assert stands_before(goal.pose.pose, target, odometry.T_map_base[:2, 3])
    assert wait_until(lambda: goal.pose in ours.shown)
    arrived(nav2)


def test_a_target_stays_where_it_is_while_the_base_drives_and_an_operator_thinks(
    ours: Ours, nav2: Nav2Server, odometry: Odometry, graph: Graph
) -> None:
    assert ours.caller.set_parameter("confirm", True) == ""
    waiting: list[HandOff] = []
    node = graph.node("nav2_operator")
    node.create_subscription(
        HandOffArray, f"/{NAME}/waiting_goals", lambda message: waiting.extend(message.goals), LATCHED
    )
    before = odometry.T_odom_base
    goal = ours.caller.goal("the thing")
    assert wait_until(lambda: bool(waiting))
    target = in_map(odometry.T_map_base, waiting[0].goal.pose.position)
    odometry.drives_to(planar(-0.5, 0.6, 0.8))
    word = Confirm.Request(goal_id=waiting[0].goal_id, accept=True)
    assert ours.caller.call(Confirm, "confirm", word).outcome.code == Code.OK
    assert nav2.has_goal()
    assert stands_before(nav2.goals[0].pose.pose, target, odometry.T_map_base[:2, 3])
    arrived(nav2)
    _, result = goal.end()
    now = result.targets.targets[0].pose.pose.pose.position
    assert in_map(odometry.T_map_base, now) == pytest.approx(target, abs=1e-6)
    assert ours.caller.set_parameter("confirm", False) == ""
    odometry.drives_to(before)
    graph.drop(node)


def test_the_action_ends_when_the_robot_is_there(ours: Ours, nav2: Nav2Server) -> None:
    goal = ours.caller.goal("the thing")
    assert nav2.has_goal()
    nav2.tell(NavigateToPose.Feedback(distance_remaining=1.0))
    assert goal.wait_for_feedback(lambda feedback: feedback.stage == "move")
    arrived(nav2)
    status, result = goal.end()
    assert (status, result.outcome.code) == (GoalStatus.STATUS_SUCCEEDED, Code.OK)
    assert not ours.caller.goals


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (206, Code.BLOCKED),
        (208, Code.UNREACHABLE),
        (105, Code.BLOCKED),
        (9002, Code.TF_UNAVAILABLE),
        (9000, Code.EXECUTION_FAILED),
        (0, Code.EXECUTION_FAILED),
    ],
)
def test_what_nav2_says_has_a_code_of_ours(ours: Ours, nav2: Nav2Server, error: int, code: Code) -> None:
    goal = ours.caller.goal("the thing")
    assert nav2.has_goal()
    nav2.finish(NavigateToPose.Result(error_code=error, error_msg="the reason"), "abort")
    status, result = goal.end()
    assert (status, result.outcome.code) == (GoalStatus.STATUS_ABORTED, code)
    assert ("the reason" in result.outcome.message) == (error != 0)


def test_a_cancel_stops_the_drive(ours: Ours, nav2: Nav2Server) -> None:
    goal = ours.caller.goal("the thing")
    assert nav2.has_goal()
    assert goal.cancel()
    status, result = goal.end()
    assert (status, result.outcome.code) == (GoalStatus.STATUS_CANCELED, Code.CANCELLED)
    assert nav2.cancels == 1


def test_a_rejected_goal_and_a_dry_run(ours: Ours, nav2: Nav2Server) -> None:
    nav2.accepts = False
    assert ours.caller.point_to("the thing").outcome.code == Code.PLANNING_FAILED
    nav2.accepts = True
    assert ours.caller.point_to("the thing", dry_run=True).outcome.code == Code.OK
    assert not nav2.goals


def test_without_execute_the_goal_is_shown_and_not_sent(ours: Ours, nav2: Nav2Server) -> None:
    ours.set(execute=False)
    ours.shown.clear()
    reply = ours.caller.point_to("the thing")
    assert reply.outcome.code == Code.OK and "execute is false" in reply.outcome.message
    assert wait_until(lambda: bool(ours.shown))
    ours.set(execute=True)
    assert ours.caller.point_to("the thing").outcome.code == Code.OK
    assert len(nav2.goals) == 1
    arrived(nav2)


def test_a_map_that_is_not_there_is_named(ours: Ours, nav2: Nav2Server, odometry: Odometry) -> None:
    odometry.speaks_of_map = False
    ours.set(tf_timeout_s=0.6)
    reply = ours.caller.point_to("the thing")
    odometry.speaks_of_map = True
    assert reply.outcome.code == Code.TF_UNAVAILABLE and "map" in reply.outcome.message
    assert not nav2.goals
    ours.set(tf_timeout_s=2.0)
