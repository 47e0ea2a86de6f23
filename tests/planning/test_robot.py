"""Robots read from their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from molmo_ros.planning.robot import RobotError, load_robot, robot_folders

NAMES = sorted(file.stem for file in robot_folders()[0].glob("*.yaml"))


def changed(tmp_path: Path, **entries: object) -> Path:
    """The FR3's file with some entries changed; None removes one."""
    file = robot_folders()[0] / "fr3.yaml"
    whole = {**yaml.safe_load(file.read_text()), **entries}
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in whole.items() if value is not None}))
    return path


def test_three_robots_are_there() -> None:
    assert NAMES == ["fr3", "so101", "ur5"]


@pytest.mark.parametrize("name", NAMES)
def test_a_robots_description_is_plain_urdf_with_its_base_and_tip(name: str) -> None:
    robot = load_robot(name)
    xml = robot.urdf_xml()
    assert "<xacro:" not in xml
    assert f'<link name="{robot.base}"' in xml
    assert f'<link name="{robot.tip}"' in xml
    if robot.gripper:
        assert f'<joint name="{robot.gripper.joint}"' in xml


@pytest.mark.parametrize("name", NAMES)
def test_goal_and_tip_are_each_others_inverse_and_share_the_approach(name: str) -> None:
    robot = load_robot(name)
    T = np.array([[0.0, 1, 0, 0.4], [1, 0, 0, 0.1], [0, 0, -1, 0.2], [0, 0, 0, 1]])
    tip = robot.tip_pose(T)
    np.testing.assert_allclose(robot.goal_pose(tip), T, atol=1e-12)
    np.testing.assert_allclose(tip[:3, 2], T[:3, 2], atol=1e-12)


def test_frankas_hand_closes_along_its_y() -> None:
    robot = load_robot("fr3")
    np.testing.assert_allclose(robot.tip_pose(np.eye(4))[:3, 1], [1, 0, 0], atol=1e-12)


def test_a_file_is_found_by_its_path_and_its_sources_beside_it(tmp_path: Path) -> None:
    (tmp_path / "arm.urdf").write_text("<robot name='a'/>")
    (tmp_path / "arm.srdf").write_text("<robot name='a'/>")
    robot = load_robot(changed(tmp_path, urdf="arm.urdf", srdf="arm.srdf"))
    assert robot.urdf == tmp_path / "arm.urdf"
    assert robot.urdf_xml() == "<robot name='a'/>"


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"tip": None}, "tip missing"),
        ({"colour": "red"}, "unknown colour"),
        ({"urdf": "nowhere.urdf"}, "is not there"),
        ({"urdf": "package://no_such_package/a.urdf"}, "no_such_package"),
        ({"urdf": "http://example.org/a.urdf"}, "neither a path"),
        ({"ready_rad": 1.0}, "ready_rad"),
        ({"ready_rad": [float("nan")] * 7}, "finite"),
        ({"tool_from_goal": {"xyz_m": [0, 0, 0]}}, "tool_from_goal"),
        ({"tool_from_goal": {"xyz_m": [0, 0], "rpy_rad": [0, 0, 0]}}, "tool_from_goal.xyz_m"),
        ({"gripper": {"joint": "j"}}, "gripper"),
        ({"angular_tolerance_rad": 0}, "angular_tolerance_rad"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, entries: dict[str, object], named: str) -> None:
    with pytest.raises(RobotError, match=named):
        load_robot(changed(tmp_path, **entries))


def test_an_unknown_robot_is_answered_with_those_there_are() -> None:
    with pytest.raises(RobotError, match="fr3, so101, ur5"):
        load_robot("r2d2")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RobotError, match="no robot file"):
        load_robot(tmp_path / "gone.yaml")
