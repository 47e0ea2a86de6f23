"""planner_node: motions besides goals, what a request says is around, and joint states that cannot be planned from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from arm_graph import GOAL, READY, Arm, PlannerCaller, eventually
from geometry_msgs.msg import Point, Vector3
from ros_graph import UP_WITHIN_S, Graph, wait_until
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import Header

from molmo_ros.nodes.motion_messages import cloud_message
from molmo_ros.outcome import Code
from molmo_ros.sim import fr3
from molmo_ros.sim.scene import draw_scene
from molmo_ros_interfaces.action import MoveToGoal

pytestmark = pytest.mark.ros

ASIDE = READY + [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def arm(graph: Graph) -> Iterator[Arm]:
    ours = Arm()
    yield ours
    ours.close()


@pytest.fixture(scope="module")
def planner(graph: Graph, arm: Arm, tmp_path_factory: pytest.TempPathFactory) -> PlannerCaller:
    ours = PlannerCaller(graph, "planner", tmp_path_factory.mktemp("planner"), "execute:=true")
    assert ours.is_up(), ours.log.read_text()
    return ours


@pytest.fixture
def at_rest(arm: Arm, planner: PlannerCaller) -> Arm:
    arm.reset(draw_scene(1))
    assert eventually(arm.is_at_rest)
    return arm


def asked(planner: PlannerCaller, **fields: Any) -> MoveToGoal.Result:
    """The result of a request without goals."""
    return planner.request(MoveToGoal.Goal(**fields)).result()


def posture(joints: np.ndarray) -> JointState:
    return JointState(name=list(fr3.JOINTS), position=[float(q) for q in joints])


def wall(x: float) -> PointCloud2:
    """Points of a wall across the table, 0.6 m high, as fr3_link0 sees it."""
    y, z = np.meshgrid(np.arange(-0.6, 0.6, 0.01), np.arange(0.02, 0.6, 0.01))
    points = np.column_stack([np.full(y.size, x), y.ravel(), z.ravel()])
    return cloud_message(points, Header(frame_id="fr3_link0"))


def test_a_posture_is_gone_to(planner: PlannerCaller, at_rest: Arm) -> None:
    result = asked(planner, posture=posture(ASIDE))
    assert result.outcome.code == Code.OK, result.outcome
    np.testing.assert_allclose(at_rest.joints(), ASIDE, atol=0.01)


def test_the_way_back_ends_where_the_approach_began(planner: PlannerCaller, at_rest: Arm) -> None:
    assert planner.move(approach_offset=0.1).result().outcome.code == Code.OK
    result = asked(planner, back=True)
    assert result.outcome.code == Code.OK, result.outcome
    np.testing.assert_allclose(at_rest.tool()[:3, 3], np.array(GOAL) + [0, 0, 0.1], atol=0.005)
    again = asked(planner, back=True)
    assert again.outcome.code == Code.PLANNING_FAILED
    assert "end of an approach" in again.outcome.message


def test_what_the_caller_sees_around_is_not_driven_into(planner: PlannerCaller, at_rest: Arm) -> None:
    free = planner.move(plan_only=True).result()
    assert free.outcome.code == Code.OK, free.outcome
    result = planner.move(plan_only=True, obstacles=wall(GOAL[0])).result()
    assert result.outcome.code == Code.BLOCKED, result.outcome
    assert "camera sees" in result.outcome.message
    assert planner.move(plan_only=True).result().outcome.code == Code.OK  # it is not remembered


def test_what_the_hand_holds_does_not_touch_the_table(planner: PlannerCaller, at_rest: Arm) -> None:
    low = planner.pose((GOAL[0], GOAL[1], 0.06))
    assert planner.move(low, plan_only=True).result().outcome.code == Code.OK
    held = {"held_size": Vector3(x=0.04, y=0.04, z=0.16), "held_centre": Point(z=0.06)}
    result = planner.move(planner.pose((GOAL[0], GOAL[1], 0.06)), plan_only=True, **held).result()
    assert result.outcome.code == Code.BLOCKED, result.outcome
    assert "hand holds" in result.outcome.message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "one of the three"),
        ({"back": True, "posture": posture(ASIDE)}, "one of the three"),
        ({"posture": JointState(name=["fr3_joint1"], position=[0.1])}, "fr3_joint2"),
        ({"posture": posture(np.full(7, np.nan))}, "finite"),
        ({"posture": posture(ASIDE), "gripper_opening": 0.3}, "gripper_opening"),
        ({"posture": posture(ASIDE), "held_size": Vector3(x=0.1, y=-0.1, z=0.1)}, "held_size"),
        ({"posture": posture(ASIDE), "obstacles": PointCloud2(width=9, height=1, point_step=12)}, "x, y, z"),
        ({"posture": posture(ASIDE), "speed_scale": 1.5}, "speed_scale"),
    ],
)
def test_requests_that_mean_nothing_are_refused_and_move_nothing(
    planner: PlannerCaller, at_rest: Arm, fields: dict[str, Any], said: str
) -> None:
    result = asked(planner, **fields)
    assert result.outcome.code == Code.INVALID_REQUEST, result.outcome
    assert said in result.outcome.message
    np.testing.assert_allclose(at_rest.joints(), READY, atol=0.005)


def test_joint_states_that_are_missing_or_stale_or_outside_the_limits_are_not_planned_from(
    graph: Graph, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("deaf")
    deaf = PlannerCaller(graph, "deaf_planner", folder, "joint_states_topic:=told_states")
    assert deaf.has_action(UP_WITHIN_S), deaf.log.read_text()
    node = deaf.node
    publisher = node.create_publisher(JointState, "told_states", 10)
    names = [*fr3.JOINTS, *fr3.FINGERS]
    answers = []

    def answer(joints: np.ndarray, age_s: float, count: int = len(names)) -> Code:
        now_ns = node.get_clock().now().nanoseconds - round(age_s * 1e9)
        message = JointState(name=names[:count], position=[*map(float, joints), 0.04, 0.04][:count])
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now_ns, 1_000_000_000)
        publisher.publish(message)
        answers.append(deaf.move(plan_only=True).result().outcome)
        return Code(answers[-1].code)

    missing = deaf.move(plan_only=True).result().outcome
    assert missing.code == Code.STATE_STALE
    assert "joints heard of: none" in missing.message
    assert wait_until(lambda: "heard of: fr3_joint1" in (answer(READY, 0.0, 3), answers[-1].message)[1], 30.0)
    assert answers[-1].code == Code.STATE_STALE
    assert wait_until(lambda: answer(READY, 0.0) == Code.OK, 30.0)
    outside = READY.copy()
    outside[3] = 0.3
    assert wait_until(lambda: answer(outside, 0.0) == Code.PLANNING_FAILED, 30.0)
    assert "fr3_joint4" in answers[-1].message
    assert wait_until(lambda: answer(READY, 60.0) == Code.STATE_STALE, 30.0)
    assert "old" in answers[-1].message
