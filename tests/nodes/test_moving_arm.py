"""tabletop_sim with the arm that moves, as its own process: states, wrist camera, gripper, a motion that is seen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from control_msgs.action import FollowJointTrajectory, GripperCommand
from ros_graph import UP_WITHIN_S, Graph, wait_until
from sensor_msgs.msg import Image, JointState

from molmo_ros.nodes.goal_client import GoalClient
from molmo_ros.nodes.trajectory_messages import trajectory_message
from molmo_ros.planning.reach import ReachOptions, plan_joints
from molmo_ros.planning.roboplan_scene import RoboplanScene
from molmo_ros.sim import fr3

pytestmark = pytest.mark.ros


def ended(future: Any, timeout_s: float = 60.0) -> Any:
    assert wait_until(future.done, timeout_s), "no answer"
    return future.result()


def test_the_arm_moves_by_its_actions_and_its_wrist_camera_goes_along(graph: Graph, tmp_path: Path) -> None:
    log = tmp_path / "sim.log"
    module = ["-m", "molmo_ros.nodes.tabletop_sim", "--ros-args", "-p", "arm:=fr3", "-p", "width:=160"]
    process = graph.start(sys.executable, *module, "-p", "height:=120", log=log)
    node = graph.node("moving_arm_test")
    states: list[JointState] = []
    pictures: list[Image] = []
    node.create_subscription(JointState, "/joint_states", states.append, 5)
    node.create_subscription(Image, "/wrist_camera/color/image_raw", pictures.append, 1)
    name = "/joint_trajectory_controller/follow_joint_trajectory"
    follow = GoalClient(node, FollowJointTrajectory, name, node.executor)
    grip = GoalClient(node, GripperCommand, "/gripper_controller/gripper_cmd", node.executor)
    assert follow.wait_for_server(UP_WITHIN_S), log.read_text()
    assert wait_until(lambda: bool(states and pictures), UP_WITHIN_S), log.read_text()
    assert process.poll() is None

    def joints() -> np.ndarray:
        newest = dict(zip(states[-1].name, states[-1].position, strict=True))
        return np.array([newest[name] for name in fr3.JOINTS])

    scene = RoboplanScene(fr3.robot())
    before = np.frombuffer(bytes(pictures[-1].data), np.uint8).astype(int)
    motion = plan_joints(scene, joints(), np.array(fr3.robot().ready_rad), ReachOptions(speed_scale=0.5))
    handle = ended(follow.send(FollowJointTrajectory.Goal(trajectory=trajectory_message(motion))))
    assert handle.accepted
    assert ended(handle.get_result_async()).result.error_code == FollowJointTrajectory.Result.SUCCESSFUL
    assert wait_until(lambda: bool(np.abs(joints() - fr3.robot().ready_rad).max() < 0.02))
    seen = len(pictures)
    assert wait_until(lambda: len(pictures) > seen + 1)
    after = np.frombuffer(bytes(pictures[-1].data), np.uint8).astype(int)
    assert (np.abs(after - before) > 20).mean() > 0.05

    far = trajectory_message(motion)  # it begins where the arm no longer is
    handle = ended(follow.send(FollowJointTrajectory.Goal(trajectory=far)))
    result = ended(handle.get_result_async()).result
    assert result.error_code == FollowJointTrajectory.Result.INVALID_GOAL
    assert "begins" in result.error_string

    close = GripperCommand.Goal()
    close.command.position = 0.0
    done = ended(ended(grip.send(close)).get_result_async()).result
    assert done.reached_goal
    assert done.position < 0.003
