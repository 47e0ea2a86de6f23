"""planner_node as it comes, on hardware with an operator, and with a depth camera: each its own process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from arm_graph import GOAL, READY, Arm, PlannerCaller, eventually
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from ros_graph import Graph
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Header
from tf2_ros import StaticTransformBroadcaster

from molmo_ros.nodes.tabletop_messages import camera_info_message, depth_message, transform_message
from molmo_ros.nodes.trajectory_messages import trajectory_from
from molmo_ros.outcome import Code
from molmo_ros.sim import fr3
from molmo_ros.sim.robot_cell import RobotCell
from molmo_ros.sim.scene import SceneObject, SceneRecipe, SceneState, draw_scene
from molmo_ros.sim.worlds import FIRST

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def arm(graph: Graph) -> Iterator[Arm]:
    ours = Arm()
    yield ours
    ours.close()


@pytest.fixture
def at_rest(arm: Arm) -> Arm:
    arm.reset(draw_scene(1))
    assert eventually(arm.is_at_rest)
    return arm


# ------------------------------------------------------------ as it comes


class Joints:
    """Says at 20 Hz that the joints are at `positions`; silent while that is None."""

    def __init__(self, node: Node) -> None:
        self.positions: dict[str, float] | None = None
        self._node = node
        self._publisher = node.create_publisher(JointState, "/cautious/joints", 10)
        node.create_timer(0.05, self._publish)

    def _publish(self) -> None:
        if self.positions is None:
            return
        message = JointState(name=list(self.positions), position=list(self.positions.values()))
        message.velocity = [0.0] * len(message.name)
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)


def resting(**other: float) -> dict[str, float]:
    return dict(zip(fr3.JOINTS, map(float, READY), strict=True)) | dict.fromkeys(fr3.FINGERS, 0.04) | other


@pytest.fixture(scope="module")
def cautious(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> PlannerCaller:
    """With the default speed, and without leave to move."""
    topic = "joint_states_topic:=/cautious/joints"
    return PlannerCaller(graph, "cautious", tmp_path_factory.mktemp("cautious"), topic, speed_scale=None)


@pytest.fixture(scope="module")
def joints(graph: Graph, cautious: PlannerCaller) -> Joints:
    said = Joints(graph.node("said_joints"))
    said.positions = resting()
    assert cautious.is_up(), cautious.log.read_text()
    return said


def answers(planner: PlannerCaller, code: Code, words: str = "") -> bool:
    """Whether the planner says so, once what was published has reached it."""

    def asked() -> bool:
        outcome = planner.move(plan_only=True).result().outcome
        return bool(outcome.code == code and words in outcome.message)

    return eventually(asked)


def test_the_default_speed_is_a_tenth_of_the_limits(
    cautious: PlannerCaller, joints: Joints, arm: Arm
) -> None:
    joints.positions = resting()
    assert answers(cautious, Code.OK)
    result = cautious.move(plan_only=True).result()
    limits = arm.scene.limits
    slow = trajectory_from(result.trajectory, limits.names)
    assert (np.abs(slow.velocities) <= 0.1 * limits.velocity * (1 + 1e-6)).all()
    assert np.abs(slow.velocities / limits.velocity).max() > 0.05


def test_without_leave_nothing_moves(cautious: PlannerCaller, joints: Joints) -> None:
    outcome = cautious.move().result().outcome
    assert outcome.code == Code.INVALID_REQUEST
    assert "execute" in outcome.message


def test_a_joint_outside_its_limits_at_the_start_is_named(
    cautious: PlannerCaller, joints: Joints, arm: Arm
) -> None:
    limits = arm.scene.limits
    last = limits.names.index("fr3_joint7")
    outside = float(limits.upper[last]) + 0.05
    joints.positions = resting(fr3_joint7=outside)
    assert answers(cautious, Code.PLANNING_FAILED, f"fr3_joint7 is at {outside:.4f}, outside its limits")
    # A hair outside is an encoder's rounding.
    joints.positions = resting(fr3_joint7=float(limits.upper[last]) + 0.002)
    assert answers(cautious, Code.OK)
    joints.positions = resting()


def test_joint_states_that_end_or_are_not_numbers_are_no_state(
    cautious: PlannerCaller, joints: Joints
) -> None:
    assert answers(cautious, Code.OK)
    joints.positions = None
    assert answers(cautious, Code.STATE_STALE, "s old")
    joints.positions = resting(fr3_joint2=float("nan"))
    assert answers(cautious, Code.STATE_STALE, "not numbers")
    joints.positions = resting()
    assert answers(cautious, Code.OK)


# ------------------------------------------------------------ by topic, with an operator


@pytest.fixture(scope="module")
def confirming(graph: Graph, arm: Arm, tmp_path_factory: pytest.TempPathFactory) -> PlannerCaller:
    """Commands by topic, and waits for a word before each motion."""
    ours = PlannerCaller(
        graph,
        "confirming",
        tmp_path_factory.mktemp("confirming"),
        *["execute:=true", "command:=topic", "confirm:=true", "confirm_timeout_s:=20.0"],
    )
    assert ours.is_up(), ours.log.read_text()
    return ours


def test_a_motion_waits_for_its_word_and_is_then_commanded_by_topic(
    confirming: PlannerCaller, at_rest: Arm
) -> None:
    motion = confirming.move()
    assert motion.reaches("confirm")
    assert eventually(lambda: confirming.waiting[-1:] == [motion.goal_id])
    assert confirming.confirm("another", True).outcome.code == Code.INVALID_REQUEST
    np.testing.assert_allclose(at_rest.joints(), READY, atol=0.005)
    assert confirming.confirm(motion.goal_id, True).outcome.code == Code.OK
    assert motion.result().outcome.code == Code.OK
    np.testing.assert_allclose(at_rest.tool()[:3, 3], GOAL, atol=0.004)
    assert eventually(lambda: confirming.waiting[-1] == "")


def test_a_rejected_motion_moves_nothing_and_one_word_is_enough(
    confirming: PlannerCaller, at_rest: Arm
) -> None:
    motion = confirming.move()
    assert motion.reaches("confirm")
    assert confirming.confirm(motion.goal_id, False).outcome.code == Code.OK
    assert confirming.confirm(motion.goal_id, True).outcome.code == Code.INVALID_REQUEST
    assert motion.result().outcome.code == Code.REJECTED_BY_OPERATOR
    np.testing.assert_allclose(at_rest.joints(), READY, atol=0.005)


def test_a_goal_from_the_topic_can_be_confirmed_by_the_id_that_is_published(
    confirming: PlannerCaller, at_rest: Arm
) -> None:
    confirming.waiting.clear()
    confirming.outcomes.clear()
    confirming.publish_goals(confirming.pose((1.5, 0.0, 0.1)), confirming.pose())
    assert eventually(lambda: any(confirming.waiting), 40.0)
    assert confirming.confirm(confirming.waiting[-1], True).outcome.code == Code.OK
    assert eventually(lambda: bool(confirming.outcomes), 40.0)
    assert confirming.outcomes[0].code == Code.OK, confirming.outcomes[0]
    np.testing.assert_allclose(at_rest.tool()[:3, 3], GOAL, atol=0.004)


def test_a_stop_ends_the_waiting_and_brakes_a_motion_by_topic(
    confirming: PlannerCaller, at_rest: Arm
) -> None:
    waits = confirming.move()
    assert waits.reaches("confirm")
    assert confirming.call("stop").success
    assert waits.result().outcome.code == Code.CANCELLED
    assert eventually(lambda: bool(confirming.call("resume").success))
    motion = confirming.move(speed_scale=0.2)
    assert motion.reaches("confirm")
    assert confirming.confirm(motion.goal_id, True).outcome.code == Code.OK
    assert eventually(lambda: bool(np.abs(at_rest.joints() - READY).max() > 0.05))
    assert confirming.call("stop").success
    assert motion.result().outcome.code == Code.CANCELLED
    assert eventually(at_rest.is_at_rest)
    assert np.linalg.norm(at_rest.tool()[:3, 3] - GOAL) > 0.02
    assert confirming.move().result().outcome.code == Code.REJECTED_BY_OPERATOR
    assert eventually(lambda: bool(confirming.call("resume").success))


def test_nobody_confirms_nobody_moves(graph: Graph, arm: Arm, at_rest: Arm, tmp_path: Path) -> None:
    """And, when somebody does: nobody listens, nobody moves."""
    planner = PlannerCaller(
        graph,
        "unheard",
        tmp_path,
        *["execute:=true", "command:=topic", "trajectory_topic:=/nobody/listens"],
        *["confirm:=true", "confirm_timeout_s:=0.5"],
    )
    assert planner.is_up(), planner.log.read_text()
    assert planner.move().result().outcome.code == Code.CONFIRM_TIMEOUT
    outcomes: list[int] = []

    def confirmed_in_time() -> bool:
        motion = planner.move()
        if motion.reaches("confirm"):
            planner.confirm(motion.goal_id, True)
        outcomes.append(motion.result().outcome.code)
        return outcomes[-1] == Code.EXECUTION_FAILED

    assert eventually(confirmed_in_time), outcomes
    np.testing.assert_allclose(at_rest.joints(), READY, atol=0.005)
    assert planner.ends() == 0


# ------------------------------------------------------------ with a depth camera


class DepthCamera:
    """Publishes one depth image at 10 Hz, fresh each time, as a camera does that looks at what does not move."""

    def __init__(self, node: Node, depth_m: np.ndarray, K: np.ndarray, T_base_camera: np.ndarray) -> None:
        self.speaks = True
        self.depth_m = depth_m
        self._node, self._K = node, K
        self._depth = node.create_publisher(Image, "/depth/image_rect", 5)
        self._info = node.create_publisher(CameraInfo, "/depth/camera_info", 5)
        self._static = StaticTransformBroadcaster(node)
        transform: TransformStamped = transform_message(
            "fr3_link0", "depth_camera", T_base_camera, node.get_clock().now().to_msg()
        )
        self._static.sendTransform(transform)
        node.create_timer(0.1, self._publish)

    def _publish(self) -> None:
        if not self.speaks:
            return
        header = Header(stamp=self._node.get_clock().now().to_msg(), frame_id="depth_camera")
        height, width = self.depth_m.shape
        self._info.publish(camera_info_message(self._K, (width, height), header))
        self._depth.publish(depth_message(self.depth_m, header))


def with_one_thing(seed: int) -> tuple[SceneState, SceneObject]:
    """A scene with nothing but its tallest thing, put within reach."""
    state = draw_scene(seed, SceneRecipe(world=FIRST))
    tallest = max(state.objects, key=lambda thing: thing.size_m[1])
    thing = replace(tallest, id=1, centre_m=(0.5, 0.1, tallest.centre_m[2]))
    return replace(state, objects=(thing,)), thing


@pytest.fixture(scope="module")
def thing() -> SceneObject:
    return with_one_thing(1)[1]


@pytest.fixture(scope="module")
def depth_camera(graph: Graph) -> DepthCamera:
    """A camera across the table sees arm, table and one thing."""
    cell = RobotCell((320, 240), SceneRecipe(world=FIRST))
    cell.show(with_one_thing(1)[0])
    view, camera = cell.look(), cell.camera()
    cell.close()
    return DepthCamera(graph.node("depth_camera"), view.depth_m, camera.K((320, 240)), camera.T_base_camera)


@pytest.fixture(scope="module")
def seeing(
    graph: Graph, arm: Arm, depth_camera: DepthCamera, tmp_path_factory: pytest.TempPathFactory
) -> PlannerCaller:
    """Plans only; its camera shows what is in the way."""
    topics = ["depth_topic:=/depth/image_rect", "depth_info_topic:=/depth/camera_info"]
    ours = PlannerCaller(graph, "seeing", tmp_path_factory.mktemp("seeing"), *topics, "target_radius_m:=0.05")
    assert ours.is_up(), ours.log.read_text()
    return ours


def above(thing: SceneObject, up_m: float, aside_m: float = 0.0) -> tuple[float, float, float]:
    return thing.centre_m[0], thing.centre_m[1] + aside_m, thing.size_m[1] + up_m


def test_the_arm_in_the_picture_is_no_obstacle_and_the_way_is_free(
    seeing: PlannerCaller, at_rest: Arm
) -> None:
    result = seeing.move(seeing.pose((0.5, -0.2, 0.25)), plan_only=True).result()
    assert result.outcome.code == Code.OK, result.outcome


def test_what_the_camera_sees_is_in_the_way(seeing: PlannerCaller, at_rest: Arm, thing: SceneObject) -> None:
    # Beside the thing, at half its height: a finger would be inside it.
    x, y, z = above(thing, -0.5 * thing.size_m[1], aside_m=thing.shape.radius_m + 0.055)
    outcome = seeing.move(seeing.pose((x, y, z)), plan_only=True).result().outcome
    assert outcome.code == Code.BLOCKED, outcome
    assert "what the camera sees" in outcome.message


def test_what_stands_at_the_goal_is_the_target_and_no_obstacle(
    seeing: PlannerCaller, at_rest: Arm, thing: SceneObject
) -> None:
    result = seeing.move(seeing.pose(above(thing, -0.02)), plan_only=True).result()
    assert result.outcome.code == Code.OK, result.outcome


def test_without_a_picture_nothing_is_planned(
    seeing: PlannerCaller, at_rest: Arm, depth_camera: DepthCamera
) -> None:
    depth_camera.speaks = False
    assert answers(seeing, Code.NO_FRAME, "/depth/image_rect")
    depth_camera.speaks = True
    assert answers(seeing, Code.OK)
