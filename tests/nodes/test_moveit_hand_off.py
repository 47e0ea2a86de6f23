"""Goals for MoveIt, against a real action server of its interface: what it gets, and what comes of what it says."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from action_msgs.msg import GoalStatus
from action_msgs.srv import CancelGoal
from geometry_msgs.msg import PoseStamped
from moveit_msgs.action import MoveGroup
from moveit_msgs.msg import CollisionObject
from moveit_msgs.msg import MoveItErrorCodes as Error
from planner_servers import MoveItServer, moveit_result
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from ros_graph import Behaviour, Caller, Camera, Graph, PendingReply, wait_until
from shape_msgs.msg import SolidPrimitive

from molmo_ros.nodes.moveit_hand_off import SUPPORT_ID
from molmo_ros.outcome import Code
from molmo_ros_interfaces.msg import HandOff, HandOffArray
from molmo_ros_interfaces.srv import Confirm

pytestmark = pytest.mark.ros
NAME = "to_moveit"
HERE = Path(__file__).parent


class Ours:
    """The node under test, its caller, and what it says of goals."""

    def __init__(self, graph: Graph, log: Path) -> None:
        self.process = graph.start_scripted_node(
            log,
            *["-r", f"__node:={NAME}", "-p", "hand_off:=moveit", "-p", "execute:=true"],
            *["-p", "moveit_group:=arm", "-p", "moveit_tip_link:=hand", "-p", "planner_timeout_s:=2.0"],
            *["-p", "moveit_action:=/move_action"],
        )
        self.node = graph.node("moveit_caller")
        self.caller = Caller(self.node, f"/{NAME}")
        self.said: list[HandOff] = []
        self.shown: list[PoseStamped] = []
        self.node.create_subscription(HandOff, f"/{NAME}/hand_off", self.said.append, QoSProfile(depth=50))
        self.node.create_subscription(PoseStamped, f"/{NAME}/planner_goal", self.shown.append, 10)
        assert self.caller.is_up(self.process), log.read_text()

    def set(self, **values: Any) -> None:
        """Parameters that change while the node is not active."""
        assert self.caller.change_state("deactivate")
        for name, value in values.items():
            assert self.caller.set_parameter(name, value) == ""
        assert self.caller.change_state("activate")

    def ended_with(self, code: Code) -> bool:
        """Whether the goal last heard of has come to this end."""

        def has() -> bool:
            return bool(self.said) and (self.said[-1].stage, self.said[-1].outcome.code) == ("done", code)

        return wait_until(has)


@pytest.fixture(scope="module")
def moveit_of_module(graph: Graph) -> MoveItServer:
    return MoveItServer(graph.node("move_group"))


@pytest.fixture(scope="module")
def ours_of_module(
    graph: Graph, camera: Camera, moveit_of_module: MoveItServer, tmp_path_factory: pytest.TempPathFactory
) -> Ours:
    ours = Ours(graph, tmp_path_factory.mktemp("node") / "log.txt")
    assert ours.caller.point_to("the thing").outcome.code == Code.OK
    assert moveit_of_module.has_goal()
    moveit_of_module.succeed()
    assert wait_until(lambda: bool(ours.said) and bool(ours.shown))
    return ours


@pytest.fixture
def moveit(moveit_of_module: MoveItServer, ours_of_module: Ours) -> Iterator[MoveItServer]:
    yield moveit_of_module
    moveit_of_module.reset()
    assert wait_until(lambda: ours_of_module.said[-1].stage == "done")


@pytest.fixture
def ours(ours_of_module: Ours, moveit: MoveItServer, behaviour: Behaviour) -> Ours:
    moveit.reset()
    return ours_of_module


def test_the_service_answers_when_moveit_has_the_goal(ours: Ours, moveit: MoveItServer) -> None:
    reply = ours.caller.point_to("the thing")
    assert reply.outcome.code == Code.OK
    told = re.fullmatch(r"MoveIt has goal (\w+); how it goes is on ~/hand_off", reply.outcome.message)
    assert told and wait_until(lambda: ours.said[-1].goal_id == told[1])
    (goal,) = moveit.goals
    request, target = goal.request, reply.targets.targets[0].pose
    assert (request.group_name, request.num_planning_attempts) == ("arm", 4)
    assert (request.max_velocity_scaling_factor, request.max_acceleration_scaling_factor) == (0.1, 0.1)
    assert request.start_state.is_diff and not goal.planning_options.plan_only
    (constraints,) = request.goal_constraints
    (where,), (turned,) = constraints.position_constraints, constraints.orientation_constraints
    assert (where.link_name, turned.link_name) == ("hand", "hand")
    assert where.header == turned.header == target.header
    (ball,), (middle,) = where.constraint_region.primitives, where.constraint_region.primitive_poses
    assert (ball.type, list(ball.dimensions)) == (SolidPrimitive.SPHERE, [0.005])
    assert middle.position == target.pose.pose.position
    assert turned.orientation == target.pose.pose.orientation
    assert turned.absolute_z_axis_tolerance == 0.02
    scene = goal.planning_options.planning_scene_diff
    assert scene.is_diff and scene.robot_state.is_diff and not scene.world.collision_objects
    assert ours.said[-1].stage == "hand_over"
    moveit.succeed()
    assert ours.ended_with(Code.OK) and ours.said[-1].goal_id == told[1]


def test_no_goal_goes_to_the_topic_besides(ours: Ours, moveit: MoveItServer) -> None:
    reply = ours.caller.point_to("the thing")
    moveit.succeed()
    header = reply.targets.targets[0].pose.header
    assert ours.caller.wait_for(lambda: reply.targets.header in [each.header for each in ours.caller.targets])
    assert wait_until(lambda: header in [each.header for each in ours.shown])
    assert not ours.caller.goals


def test_the_action_follows_plan_and_motion_to_the_end(ours: Ours, moveit: MoveItServer) -> None:
    goal = ours.caller.goal("the thing")
    assert moveit.has_goal()
    moveit.tell(MoveGroup.Feedback(state="PLANNING"))
    assert goal.wait_for_feedback(lambda feedback: feedback.stage == "plan")
    moveit.tell(MoveGroup.Feedback(state="MONITOR"))
    moveit.tell(MoveGroup.Feedback(state="IDLE"))
    assert goal.wait_for_feedback(lambda feedback: feedback.stage == "move")
    moveit.succeed()
    status, result = goal.end()
    assert (status, result.outcome.code) == (GoalStatus.STATUS_SUCCEEDED, Code.OK)
    assert len(result.targets.targets) == 1
    assert ours.ended_with(Code.OK)
    last = [each.stage for each in ours.said if each.goal_id == ours.said[-1].goal_id]
    assert last == ["hand_over", "plan", "move", "done"]


@pytest.mark.parametrize(
    ("val", "code"),
    [
        (Error.NO_IK_SOLUTION, Code.UNREACHABLE),
        (Error.GOAL_IN_COLLISION, Code.BLOCKED),
        (Error.START_STATE_IN_COLLISION, Code.START_IN_COLLISION),
        (Error.TIMED_OUT, Code.TIMEOUT),
        (Error.CONTROL_FAILED, Code.EXECUTION_FAILED),
        (Error.INVALID_GROUP_NAME, Code.INVALID_REQUEST),
        (Error.PREEMPTED, Code.CANCELLED),
        (Error.SUCCESS, Code.EXECUTION_FAILED),  # aborted, and does not say why
    ],
)
def test_what_moveit_says_has_a_code_of_ours(ours: Ours, moveit: MoveItServer, val: int, code: Code) -> None:
    goal = ours.caller.goal("the thing")
    assert moveit.has_goal()
    moveit.finish(moveit_result(val, "the reason"), "abort")
    status, result = goal.end()
    assert (status, result.outcome.code) == (GoalStatus.STATUS_ABORTED, code)
    assert ("the reason" in result.outcome.message) == (val != Error.SUCCESS)


def test_a_rejected_goal_is_planning_that_failed(ours: Ours, moveit: MoveItServer) -> None:
    moveit.accepts = False
    reply = ours.caller.point_to("the thing")
    assert reply.outcome.code == Code.PLANNING_FAILED and "rejected" in reply.outcome.message
    assert not moveit.goals


def test_a_cancel_stops_the_motion_before_it_is_answered(ours: Ours, moveit: MoveItServer) -> None:
    goal = ours.caller.goal("the thing")
    assert moveit.has_goal()
    moveit.tell(MoveGroup.Feedback(state="MONITOR"))
    assert goal.wait_for_feedback(lambda feedback: feedback.stage == "move")
    assert goal.cancel()
    status, result = goal.end()
    assert (status, result.outcome.code) == (GoalStatus.STATUS_CANCELED, Code.CANCELLED)
    assert moveit.cancels == 1 and "has stopped" in result.outcome.message


def test_a_planner_that_does_not_stop_is_said_to_go_on(ours: Ours, moveit: MoveItServer) -> None:
    moveit.obeys = False
    goal = ours.caller.goal("the thing")
    assert moveit.has_goal()
    moveit.tell(MoveGroup.Feedback(state="MONITOR"))
    assert goal.wait_for_feedback(lambda feedback: feedback.stage == "move")  # so it knows that MoveIt has the goal
    assert goal.cancel()
    _, result = goal.end()
    assert result.outcome.code == Code.EXECUTION_FAILED and "still moves" in result.outcome.message
    assert moveit.cancels == 1


def test_who_else_cancels_at_moveit_is_told_of(ours: Ours, moveit: MoveItServer) -> None:
    goal = ours.caller.goal("the thing")
    assert moveit.has_goal()
    everything = ours.node.create_client(CancelGoal, "/move_action/_action/cancel_goal")
    assert everything.wait_for_service(20.0)
    PendingReply(everything.call_async(CancelGoal.Request())).get()
    status, result = goal.end()
    assert (status, result.outcome.code) == (GoalStatus.STATUS_ABORTED, Code.CANCELLED)
    assert "somebody else" in result.outcome.message
    ours.node.destroy_client(everything)


def test_one_goal_at_a_time(ours: Ours, moveit: MoveItServer) -> None:
    first = ours.caller.goal("the thing")
    assert moveit.has_goal()
    reply = ours.caller.point_to("the thing")
    assert reply.outcome.code == Code.BUSY and "another goal" in reply.outcome.message
    moveit.succeed()
    assert first.end()[1].outcome.code == Code.OK
    assert len(moveit.goals) == 1


@pytest.mark.parametrize("why", ["dry run", "failed check", "several, none chosen"])
def test_what_is_no_goal_never_reaches_moveit(
    ours: Ours, moveit: MoveItServer, behaviour: Behaviour, why: str
) -> None:
    if why == "dry run":
        assert ours.caller.point_to("the thing", dry_run=True).outcome.code == Code.OK
    elif why == "failed check":
        behaviour.depth_m = 6.0
        assert ours.caller.point_to("the thing").outcome.code == Code.OUT_OF_RANGE
        behaviour.depth_m = 0.8
    else:
        reply = ours.caller.point_to("three things")
        assert reply.outcome.code == Code.OK and "none of them the goal" in reply.outcome.message
    last = ours.caller.point_to("the thing")
    assert last.outcome.code == Code.OK
    assert len(moveit.goals) == 1 and not ours.caller.goals
    moveit.succeed()


def test_deactivating_stops_the_motion(ours: Ours, moveit: MoveItServer) -> None:
    goal = ours.caller.goal("the thing")
    assert moveit.has_goal()
    assert ours.caller.change_state("deactivate")
    assert moveit.cancels == 1
    _, result = goal.end()
    assert result.outcome.code == Code.NOT_ACTIVE and "has stopped" in result.outcome.message
    assert ours.caller.change_state("activate")


def test_a_motion_that_takes_too_long_is_cancelled(ours: Ours, moveit: MoveItServer) -> None:
    ours.set(motion_timeout_s=0.5)
    goal = ours.caller.goal("the thing")
    status, result = goal.end()
    assert (status, result.outcome.code) == (GoalStatus.STATUS_ABORTED, Code.TIMEOUT)
    assert moveit.cancels == 1 and "motion_timeout_s" in result.outcome.message
    ours.set(motion_timeout_s=120.0)


def test_without_execute_moveit_plans_only(ours: Ours, moveit: MoveItServer) -> None:
    ours.set(execute=False)
    goal = ours.caller.goal("the thing")
    assert moveit.has_goal()
    assert moveit.goals[0].planning_options.plan_only
    moveit.succeed()
    assert goal.end()[1].outcome.code == Code.OK
    ours.set(execute=True)


def test_the_support_is_an_obstacle_where_it_is_asked_for(ours: Ours, moveit: MoveItServer) -> None:
    ours.set(moveit_support_size_m=0.5, moveit_goal_offset_m=0.1)
    reply = ours.caller.point_to("the thing")
    assert moveit.has_goal(), reply.outcome
    (plate,) = moveit.goals[0].planning_options.planning_scene_diff.world.collision_objects
    target = reply.targets.targets[0].pose
    assert (plate.id, plate.operation, plate.header) == (SUPPORT_ID, CollisionObject.ADD, target.header)
    assert list(plate.primitives[0].dimensions) == [0.5, 0.5, 0.02]
    at = target.pose.pose.position
    assert plate.pose.position.z == pytest.approx(at.z - 0.015, abs=0.002)  # its top is 5 mm below what is seen
    tip = moveit.goals[0].request.goal_constraints[0].position_constraints[0]
    assert tip.constraint_region.primitive_poses[0].position.z == pytest.approx(at.z + 0.1)
    moveit.succeed()
    ours.set(moveit_support_size_m=0.0, moveit_goal_offset_m=0.0)


def test_confirm_comes_before_moveit_hears_of_anything(graph: Graph, ours: Ours, moveit: MoveItServer) -> None:
    waiting: list[HandOff] = []
    node = graph.node("moveit_operator")
    node.create_subscription(
        HandOffArray, f"/{NAME}/waiting_goals", lambda message: waiting.extend(message.goals), 10
    )
    assert wait_until(lambda: node.count_publishers(f"/{NAME}/waiting_goals") == 1)
    assert ours.caller.set_parameter("confirm", True) == ""
    for accept in (False, True):
        waiting.clear()
        goal = ours.caller.goal("the thing")
        assert wait_until(lambda: bool(waiting))
        assert not moveit.goals
        word = Confirm.Request(goal_id=waiting[0].goal_id, accept=accept)
        assert ours.caller.call(Confirm, "confirm", word).outcome.code == Code.OK
        if accept:
            assert moveit.has_goal()
            moveit.succeed()
        _, result = goal.end()
        assert result.outcome.code == (Code.OK if accept else Code.REJECTED_BY_OPERATOR)
    assert ours.caller.set_parameter("confirm", False) == ""
    graph.drop(node)


def test_a_planner_that_is_not_there_is_named_with_what_to_start(ours: Ours, moveit: MoveItServer) -> None:
    ours.set(moveit_action="/nobody", planner_timeout_s=0.5)
    reply = ours.caller.point_to("the thing")
    assert reply.outcome.code == Code.PLANNER_UNAVAILABLE
    assert "/nobody" in reply.outcome.message and "start move_group" in reply.outcome.message
    goal = ours.caller.goal("the thing")
    status, result = goal.end()
    assert (status, result.outcome.code) == (GoalStatus.STATUS_ABORTED, Code.PLANNER_UNAVAILABLE)
    ours.set(moveit_action="/move_action", planner_timeout_s=2.0)


def test_a_planner_that_is_silent_is_left_and_does_not_begin_later(ours: Ours, moveit: MoveItServer) -> None:
    """Its executor hangs while the goal comes; when it wakes up and takes the goal, it is told to stop."""
    hanging, awake = threading.Event(), threading.Event()
    executor = SingleThreadedExecutor()
    node = rclpy.create_node("silent_move_group")
    executor.add_node(node)
    silent = MoveItServer(node, "/silent")
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    ours.set(moveit_action="/silent", planner_timeout_s=20.0)
    goal = ours.caller.goal("the thing")  # both know one another from here on
    assert silent.has_goal()
    silent.succeed()
    assert goal.end()[1].outcome.code == Code.OK

    def hang() -> None:
        hanging.set()
        awake.wait(60.0)

    ours.set(planner_timeout_s=1.0)
    executor.create_task(hang)
    executor.wake()
    assert hanging.wait(10.0)
    reply = ours.caller.point_to("the thing")
    awake.set()
    assert reply.outcome.code == Code.PLANNER_UNAVAILABLE
    assert silent.wait_for(lambda: silent.cancels == 1 and len(silent.goals) == 2)
    ours.set(moveit_action="/move_action", planner_timeout_s=2.0)
    executor.shutdown(timeout_sec=5.0)
    thread.join(5.0)
    silent.server.destroy()
    node.destroy_node()


def test_a_planner_that_dies_in_mid_motion_is_noticed(graph: Graph, ours: Ours, tmp_path: Path) -> None:
    """A process of its own, killed: nobody says goodbye for it."""
    process = graph.start(sys.executable, str(HERE / "mortal_move_group.py"), log=tmp_path / "log.txt")
    ours.set(moveit_action="/mortal", planner_timeout_s=60.0)
    goal = ours.caller.goal("the thing")
    assert goal.wait_for_feedback(lambda feedback: feedback.stage == "move", 60.0)
    process.send_signal(signal.SIGKILL)
    _, result = goal.end(60.0)
    assert result.outcome.code == Code.PLANNER_UNAVAILABLE and "went away" in result.outcome.message
    ours.set(moveit_action="/move_action", planner_timeout_s=2.0)


def test_where_the_interfaces_are_not_installed_that_is_said_with_what_to_install(
    graph: Graph, ours: Ours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of that name without any action in it hides the real one."""
    (tmp_path / "moveit_msgs").mkdir()
    (tmp_path / "moveit_msgs" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    log = tmp_path / "log.txt"
    process = graph.start_scripted_node(
        log,
        *["-r", "__node:=bereft", "-p", "hand_off:=moveit"],
        *["-p", "moveit_group:=arm", "-p", "moveit_tip_link:=hand"],
    )
    caller = Caller(graph.node("bereft_caller"), "/bereft")
    assert caller.is_up(process), log.read_text()
    reply = caller.point_to("the thing")
    assert reply.outcome.code == Code.PLANNER_UNAVAILABLE
    assert "-moveit-msgs, or set hand_off to topic" in reply.outcome.message
    (line,) = [line for line in log.read_text().splitlines() if "[ERROR]" in line]
    assert "the package moveit_msgs is not installed" in line
    assert caller.state() == "unconfigured"
    assert caller.set_parameter("hand_off", "topic") == ""
    assert caller.change_state("configure") and caller.change_state("activate")
    assert caller.point_to("the thing").outcome.code == Code.OK


def test_targets_poses_are_where_the_node_says(ours: Ours, moveit: MoveItServer) -> None:
    """What is shown for people is what MoveIt gets."""
    reply = ours.caller.point_to("the thing")
    moveit.succeed()
    header = reply.targets.targets[0].pose.header
    assert wait_until(lambda: header in [each.header for each in ours.shown])
    shown = next(each for each in ours.shown if each.header == header)
    where = moveit.goals[0].request.goal_constraints[0].position_constraints[0]
    sent = where.constraint_region.primitive_poses[0].position
    assert np.allclose(
        [shown.pose.position.x, shown.pose.position.y, shown.pose.position.z], [sent.x, sent.y, sent.z]
    )
