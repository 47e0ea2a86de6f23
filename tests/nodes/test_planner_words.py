"""What goals are in MoveIt's words, and what MoveIt's and Nav2's codes mean; without a graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from moveit_msgs.msg import MoveItErrorCodes
from scipy.spatial.transform import Rotation

from molmo_ros.geometry.footprint import Footprint
from molmo_ros.geometry.grasp import GraspPlan
from molmo_ros.geometry.locate import Located
from molmo_ros.geometry.support_plane import SupportPlane
from molmo_ros.nodes import moveit_hand_off, nav2_hand_off
from molmo_ros.nodes.hand_off_parameters import HAND_OFF_PARAMETERS, HandOffParameters
from molmo_ros.nodes.moveit_hand_off import outcome_of_codes, support_plate, target_box, tip_pose
from molmo_ros.outcome import Code, Outcome
from molmo_ros.planning.robot import load_robot

DEFAULTS = HandOffParameters.from_values({entry.name: entry.default for entry in HAND_OFF_PARAMETERS})


def any_pose(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    T = np.eye(4)
    T[:3, :3] = Rotation.random(rng=rng).as_matrix()
    T[:3, 3] = rng.uniform(-1, 1, 3)
    return T


def test_every_code_of_moveit_has_one_of_ours_and_its_name() -> None:
    constants = {
        name: getattr(MoveItErrorCodes, name)
        for name in dir(type(MoveItErrorCodes))
        if name.isupper() and name[0] != "_"
    }
    assert len(constants) > 25
    assert set(moveit_hand_off.CODES) == set(constants.values())
    assert {name: value for value, name in moveit_hand_off.NAMES.items()} == constants
    assert [val for val, code in moveit_hand_off.CODES.items() if code == Code.OK] == [MoveItErrorCodes.SUCCESS]


def test_a_code_of_moveit_that_nobody_knows_is_no_success() -> None:
    outcome = outcome_of_codes(MoveItErrorCodes(val=-4711, message="new"))
    assert outcome == Outcome(Code.PLANNING_FAILED, "MoveIt says error (-4711): new")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (0, Code.OK),
        (102, Code.TF_UNAVAILABLE),
        (100, Code.EXECUTION_FAILED),
        (200, Code.PLANNING_FAILED),
        (203, Code.PLANNING_FAILED),
        (306, Code.BLOCKED),
        (308, Code.UNREACHABLE),
        (702, Code.EXECUTION_FAILED),
        (9003, Code.TIMEOUT),
    ],
)
def test_codes_of_nav2(error: int, code: Code) -> None:
    assert nav2_hand_off.outcome_of_code(error, "").code == code


@pytest.mark.parametrize("robot", ["fr3", "ur5"])
def test_the_tip_is_where_the_embedded_planner_would_bring_it(robot: str) -> None:
    """The same tool_from_goal in both, so that MoveIt can take planner_node's place."""
    import yaml

    known = load_robot(robot)
    entry = yaml.safe_load(known.file.read_text())["tool_from_goal"]
    parameters = replace(
        DEFAULTS,
        moveit_tool_from_goal_xyz_m=tuple(entry["xyz_m"]),
        moveit_tool_from_goal_rpy_rad=tuple(entry["rpy_rad"]),
    )
    goal = any_pose(1)
    assert tip_pose(goal, parameters) == pytest.approx(known.tip_pose(goal))


def test_an_offset_stops_before_the_goal_along_its_approach() -> None:
    goal = any_pose(2)
    before = tip_pose(goal, replace(DEFAULTS, moveit_goal_offset_m=0.12))
    assert before[:3, 3] == pytest.approx(goal[:3, 3] - 0.12 * goal[:3, 2])
    assert before[:3, :3] == pytest.approx(goal[:3, :3])


def test_the_box_of_a_measured_target_has_its_extent() -> None:
    plan = GraspPlan(
        footprint=Footprint(np.zeros(2), 0.4, 0.03, 0.09, False),
        T_base_plan=np.eye(4),
        top_base_m=np.array([0.5, 0.1, 0.2]),
        height_m=0.12,
        position_cov_m2=np.eye(3),
        grasps=(),
        outcome=Outcome(),
    )
    located = Located(Outcome(), position_base_m=np.array([0.49, 0.1, 0.2]), grasp=plan)
    T, edges = target_box(located, 0.08)
    assert edges == (0.03, 0.09, 0.12)
    assert T[:3, 3] == pytest.approx([0.5, 0.1, 0.14])
    assert np.arctan2(T[1, 0], T[0, 0]) == pytest.approx(0.4)


def test_a_target_of_unknown_extent_is_a_cube_around_it() -> None:
    T, edges = target_box(Located(Outcome(), position_base_m=np.array([0.1, 0.2, 0.3])), 0.08)
    assert edges == (0.08, 0.08, 0.08)
    assert T[:3, 3] == pytest.approx([0.1, 0.2, 0.3]) and T[:3, :3] == pytest.approx(np.eye(3))


def test_the_plate_lies_just_below_the_support_under_the_target() -> None:
    up = np.array([0.0, np.sin(0.1), np.cos(0.1)])
    support = SupportPlane(up, 0.4, 0.001, 0.5)
    target = np.array([0.5, 0.2, 0.55])
    T = support_plate(support, target)
    assert T[:3, 2] == pytest.approx(up)
    corners = [T @ [x, y, 0.01, 1.0] for x in (-0.2, 0.2) for y in (-0.2, 0.2)]
    assert support.height_m([corner[:3] for corner in corners]) == pytest.approx(-0.005)
    across = (T[:3, 3] - target) - ((T[:3, 3] - target) @ up) * up
    assert across == pytest.approx(np.zeros(3), abs=1e-12)
