"""launch/moveit.launch.xml and launch/nav2.launch.xml, started as users start them: the installed node, its bundled
model, the simulated table, and a planner of the same interface in the place of the real one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from planner_servers import MoveItServer
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from ros_graph import LATCHED, UP_WITHIN_S, Caller, Graph, wait_until
from scipy.spatial.transform import Rotation

from molmo_ros.outcome import Code
from molmo_ros_interfaces.msg import SceneTruth

pytestmark = pytest.mark.ros
ROOT = Path(__file__).resolve().parents[2]
LOADED_WITHIN_S = 400.0


def launched(graph: Graph, log: Path, file: str, *arguments: str) -> subprocess.Popen[str]:
    return graph.start(sys.executable, str(ROOT / "tools" / "launch"), file, *arguments, log=log)


def is_active(caller: Caller, process: subprocess.Popen[str]) -> bool:
    """The real model is behind torch, whose import alone takes minutes on a machine that builds beside the tests."""
    return caller.is_up(process, loaded=False) and wait_until(
        lambda: process.poll() is not None or caller.state() == "active", LOADED_WITHIN_S
    )


def values_of(caller: Caller, *names: str) -> list[object]:
    reply = caller.call(GetParameters, "get_parameters", GetParameters.Request(names=list(names)))
    values: list[ParameterValue] = reply.values
    return [parameter_value_to_python(value) for value in values]


def ends_cleanly(process: subprocess.Popen[str], log: Path) -> bool:
    process.send_signal(signal.SIGINT)
    return process.wait(30) == 0 and "Traceback" not in log.read_text()


def test_words_become_a_plan_of_moveit(graph: Graph, tmp_path: Path) -> None:
    """From words about the simulated table to a MoveGroup goal for the arm of config/moveit.yaml."""
    log = tmp_path / "log.txt"
    moveit = MoveItServer(graph.node("move_group"), "/cell/move_action")
    simulator = graph.start(
        *[sys.executable, "-m", "molmo_ros.nodes.tabletop_sim", "--ros-args"],
        *["--params-file", str(ROOT / "config" / "tabletop_sim.yaml"), "-r", "__ns:=/cell"],
        log=tmp_path / "simulator.txt",
    )
    process = launched(graph, log, "moveit.launch.xml", "namespace:=cell", "name:=eyes")
    node = graph.node("launch_caller")
    scenes: list[SceneTruth] = []
    node.create_subscription(SceneTruth, "/cell/tabletop_sim/truth", scenes.append, LATCHED)
    caller = Caller(node, "/cell/eyes")
    assert is_active(caller, process), log.read_text()
    assert wait_until(lambda: bool(scenes), UP_WITHIN_S), (tmp_path / "simulator.txt").read_text()
    assert simulator.poll() is None

    # The small model does not know everything; of a whole table it finds something that can be a goal.
    replies = [caller.point_to(label, 60.0, max_points=1) for label in scenes[-1].labels]
    taken = [reply for reply in replies if reply.outcome.code == Code.OK]
    assert taken, [reply.outcome for reply in replies]
    assert moveit.wait_for(lambda: bool(moveit.goals))
    goal = moveit.goals[0]
    assert (goal.request.group_name, goal.planning_options.plan_only) == ("fr3_arm", True)
    (constraints,) = goal.request.goal_constraints
    where = constraints.position_constraints[0]
    assert (where.link_name, where.header.frame_id) == ("fr3_hand_tcp", "base_link")
    # 10 cm before the goal and 9.5 mm above the finger tips, along the approach.
    target = taken[0].targets.targets[0].pose.pose.pose
    q, at = target.orientation, target.position
    approach = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()[:, 2]
    assert approach[2] < -0.99
    middle = where.constraint_region.primitive_poses[0].position
    expected = np.array([at.x, at.y, at.z]) - 0.1095 * approach
    assert [middle.x, middle.y, middle.z] == pytest.approx(expected, abs=1e-9)
    assert len(goal.planning_options.planning_scene_diff.world.collision_objects) == 1
    moveit.succeed()
    assert ends_cleanly(process, log), log.read_text()


def test_nav2_gets_its_goals_only_after_a_word_and_moves_only_when_told(graph: Graph, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    process = launched(graph, log, "nav2.launch.xml", "namespace:=drives", "confirm:=true", "execute:=true")
    caller = Caller(graph.node("nav2_launch_caller"), "/drives/pointing_node")
    assert is_active(caller, process), log.read_text()
    names = ["hand_off", "execute", "confirm", "nav2_frame", "fixed_frame", "target_frame", "nav2_stand_off_m"]
    assert values_of(caller, *names) == ["nav2", True, True, "map", "odom", "base_link", 0.7]
    assert ends_cleanly(process, log), log.read_text()


def test_nothing_moves_by_these_files_alone(graph: Graph, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    process = launched(graph, log, "nav2.launch.xml", "namespace:=still")
    caller = Caller(graph.node("still_caller"), "/still/pointing_node")
    assert caller.is_up(process, loaded=False), log.read_text()
    assert values_of(caller, "hand_off", "execute") == ["nav2", False]
    assert ends_cleanly(process, log), log.read_text()
