"""planner_node and the simulated arm's controller, on a real graph."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from arm_graph import GOAL, READY, Arm, PlannerCaller, eventually
from geometry_msgs.msg import PoseStamped
from ros_graph import Graph
from sensor_msgs.msg import JointState

from molmo_ros.outcome import Code
from molmo_ros.planning.trajectory import limit_violation
from molmo_ros.sim.scene import draw_scene

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def arm(graph: Graph) -> Iterator[Arm]:
    ours = Arm("/planner/heartbeat")
    ours.server.heartbeat_lost_s = None  # a busy machine may keep a living planner silent for long
    yield ours
    ours.close()


@pytest.fixture(scope="module")
def planner(graph: Graph, arm: Arm, tmp_path_factory: pytest.TempPathFactory) -> PlannerCaller:
    ours = PlannerCaller(graph, "planner", tmp_path_factory.mktemp("planner"), "execute:=true")
    assert ours.is_up(), ours.log.read_text()
    return ours


@pytest.fixture
def at_rest(arm: Arm, planner: PlannerCaller) -> Arm:
    """The arm as it was at the start, and the planner ready for a goal."""
    arm.reset(draw_scene(1))
    planner.call("resume")
    assert eventually(arm.is_at_rest)
    return arm


def test_a_plan_alone_moves_nothing(planner: PlannerCaller, at_rest: Arm) -> None:
    result = planner.move(plan_only=True, retreat_offset=0.05).result()
    assert result.outcome.code == Code.OK
    assert result.execution.sec == result.execution.nanosec == 0
    positions = np.array([point.positions for point in result.trajectory.points])
    np.testing.assert_allclose(positions[0], READY, atol=0.005)
    tools = [at_rest.scene.goal_pose(joints)[:3, 3] for joints in positions]
    assert min(np.linalg.norm(tool - GOAL) for tool in tools) < 0.003
    np.testing.assert_allclose(tools[-1], np.array(GOAL) + [0, 0, 0.05], atol=0.003)
    np.testing.assert_allclose(at_rest.joints(), READY, atol=0.005)
    assert eventually(lambda: bool(planner.shown))


def test_a_goal_is_reached_and_its_stages_are_told(planner: PlannerCaller, at_rest: Arm) -> None:
    motion = planner.move()
    result = motion.result()
    assert result.outcome.code == Code.OK, result.outcome
    np.testing.assert_allclose(at_rest.tool()[:3, 3], GOAL, atol=0.004)
    told = list(dict.fromkeys(motion.stages))
    assert told == ["ik", "plan", "move", "approach"]


def test_a_goal_in_another_frame_is_the_same_place(planner: PlannerCaller, at_rest: Arm) -> None:
    shelf = planner.pose((GOAL[0] - 0.4, GOAL[1], GOAL[2]), frame="shelf")
    result = planner.move(shelf, plan_only=True).result()
    assert result.outcome.code == Code.OK, result.outcome
    end = at_rest.scene.goal_pose(np.array(result.trajectory.points[-1].positions))
    np.testing.assert_allclose(end[:3, 3], GOAL, atol=0.003)


def test_a_goal_from_the_topic_is_followed_and_its_outcome_published(
    planner: PlannerCaller, at_rest: Arm
) -> None:
    planner.outcomes.clear()
    planner.goal_pose.publish(planner.pose((0.45, -0.1, 0.25)))
    assert eventually(lambda: bool(planner.outcomes), 40.0)
    assert planner.outcomes[0].code == Code.OK, planner.outcomes[0]
    np.testing.assert_allclose(at_rest.tool()[:3, 3], (0.45, -0.1, 0.25), atol=0.004)


def test_of_alternatives_from_the_topic_the_first_that_can_be_reached_is_followed(
    planner: PlannerCaller, at_rest: Arm
) -> None:
    planner.outcomes.clear()
    planner.publish_goals(planner.pose((1.5, 0.0, 0.1)), planner.pose((0.42, 0.12, 0.3)))
    assert eventually(lambda: bool(planner.outcomes), 40.0)
    assert planner.outcomes[0].code == Code.OK, planner.outcomes[0]
    np.testing.assert_allclose(at_rest.tool()[:3, 3], (0.42, 0.12, 0.3), atol=0.004)


def test_goals_from_the_topic_are_refused_when_old_or_while_another_runs_or_after_a_stop(
    planner: PlannerCaller, at_rest: Arm
) -> None:
    def said_of(goal: PoseStamped) -> tuple[int, str]:
        planner.outcomes.clear()
        planner.goal_pose.publish(goal)
        assert eventually(lambda: bool(planner.outcomes), 40.0)
        return planner.outcomes[0].code, planner.outcomes[0].message

    assert said_of(planner.pose(age_s=60.0))[0] == Code.INVALID_REQUEST
    np.testing.assert_allclose(at_rest.joints(), READY, atol=0.005)
    first = planner.move(speed_scale=0.2)
    assert first.reaches("move")
    assert said_of(planner.pose((0.4, -0.2, 0.3)))[0] == Code.BUSY
    assert first.result().outcome.code == Code.OK
    np.testing.assert_allclose(at_rest.tool()[:3, 3], GOAL, atol=0.004)
    assert planner.call("stop").success
    code, message = said_of(planner.pose((0.4, -0.2, 0.3)))
    assert code == Code.REJECTED_BY_OPERATOR
    assert "~/resume" in message
    np.testing.assert_allclose(at_rest.tool()[:3, 3], GOAL, atol=0.004)


def test_what_cannot_be_reached_has_its_outcome_and_moves_nothing(
    planner: PlannerCaller, at_rest: Arm
) -> None:
    unstamped = planner.pose()
    unstamped.header.stamp.sec = unstamped.header.stamp.nanosec = 0
    cases: list[tuple[Callable[[], PoseStamped], Code, str]] = [
        (lambda: planner.pose((1.5, 0.0, 0.1)), Code.UNREACHABLE, "1.5"),
        (lambda: planner.pose((0.5, 0.1, -0.03)), Code.BLOCKED, "table"),
        (lambda: planner.pose(frame="nowhere"), Code.TF_UNAVAILABLE, "nowhere"),
        (lambda: planner.pose(age_s=60.0), Code.INVALID_REQUEST, "old"),
        (lambda: planner.pose(age_s=-60.0), Code.FUTURE_STAMP, "ahead"),
        (lambda: unstamped, Code.INVALID_REQUEST, "no stamp"),
        (lambda: planner.pose((float("nan"), 0.0, 0.1)), Code.INVALID_REQUEST, "no pose"),
    ]
    for pose, code, said in cases:
        result = planner.move(pose()).result()
        assert result.outcome.code == code, result.outcome
        assert said in result.outcome.message
        assert not result.trajectory.points
    assert planner.move(speed_scale=1.5).result().outcome.code == Code.INVALID_REQUEST
    assert planner.move(approach_offset=-1.0).result().outcome.code == Code.INVALID_REQUEST
    np.testing.assert_allclose(at_rest.joints(), READY, atol=0.005)


def test_of_two_goals_the_one_that_can_be_reached_is_taken(planner: PlannerCaller, at_rest: Arm) -> None:
    result = planner.move(planner.pose((1.5, 0.0, 0.1)), planner.pose(), plan_only=True).result()
    assert result.outcome.code == Code.OK
    assert result.goal_index == 1


def test_a_second_goal_does_not_replace_a_running_one(planner: PlannerCaller, at_rest: Arm) -> None:
    first = planner.move(speed_scale=0.2)
    assert first.reaches("move")
    assert planner.move(planner.pose((0.4, -0.2, 0.3))).result().outcome.code == Code.BUSY
    assert first.result().outcome.code == Code.OK
    np.testing.assert_allclose(at_rest.tool()[:3, 3], GOAL, atol=0.004)


def test_cancelled_in_motion_the_arm_stops_on_its_path(planner: PlannerCaller, at_rest: Arm) -> None:
    planned = planner.move(speed_scale=0.2, plan_only=True).result().trajectory
    path = np.array([point.positions for point in planned.points])
    motion = planner.move(speed_scale=0.2)
    assert motion.reaches("move")
    assert eventually(lambda: bool(np.abs(at_rest.joints() - READY).max() > 0.05))
    motion.cancel()
    assert motion.result().outcome.code == Code.CANCELLED
    assert eventually(at_rest.is_at_rest)
    stopped = at_rest.joints()
    assert np.linalg.norm(at_rest.tool()[:3, 3] - GOAL) > 0.02
    assert np.abs(path - stopped).max(axis=1).min() < 0.02


def test_stop_latches_until_resume(planner: PlannerCaller, at_rest: Arm) -> None:
    motion = planner.move(speed_scale=0.2)
    assert motion.reaches("move")
    assert planner.call("stop").success
    outcome = motion.result().outcome
    assert outcome.code == Code.CANCELLED
    assert "~/stop" in outcome.message
    assert eventually(at_rest.is_at_rest)
    assert planner.move().result().outcome.code == Code.REJECTED_BY_OPERATOR
    assert planner.call("resume").success
    assert planner.move(plan_only=True).result().outcome.code == Code.OK


def test_a_moving_arm_is_not_planned_from(planner: PlannerCaller, at_rest: Arm) -> None:
    node = planner.node
    publisher = node.create_publisher(JointState, "joint_states", 10)
    names = list(at_rest.scene.limits.names)
    message = JointState(name=names, position=READY.tolist(), velocity=[0.0, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0])

    def answer() -> int:
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
        return int(planner.move(plan_only=True).result().outcome.code)

    assert eventually(lambda: answer() == Code.BUSY)
    node.destroy_publisher(publisher)


def test_the_same_goal_gives_the_same_trajectory_within_limits(planner: PlannerCaller, at_rest: Arm) -> None:
    from molmo_ros.nodes.trajectory_messages import trajectory_from

    result = planner.move(plan_only=True).result()
    trajectory = trajectory_from(result.trajectory, at_rest.scene.limits.names)
    assert limit_violation(trajectory, at_rest.scene.limits) == ""
    assert (np.abs(trajectory.velocities) <= 0.5 * at_rest.scene.limits.velocity * (1 + 1e-6)).all()


def test_a_planner_that_dies_in_motion_leaves_an_arm_that_stops(
    graph: Graph, planner: PlannerCaller, at_rest: Arm, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Last: it ends the planner of this module."""
    at_rest.server.heartbeat_lost_s = 0.5
    motion = planner.move(speed_scale=0.1)
    assert motion.reaches("move")
    assert eventually(lambda: bool(np.abs(at_rest.joints() - READY).max() > 0.03))
    planner.ends(signal.SIGKILL)
    assert eventually(at_rest.is_at_rest, 5.0)
    assert np.linalg.norm(at_rest.tool()[:3, 3] - GOAL) > 0.05
