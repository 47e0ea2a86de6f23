"""The presets of cameras and the examples of robots are files that the node takes, alone and together."""

from __future__ import annotations

from pathlib import Path

import pytest

from molmo_ros.geometry.gripper_room import DEFAULT_GRIPPER
from molmo_ros.nodes.camera_parameters import CAMERA_PARAMETERS
from molmo_ros.nodes.frame_rules import FrameRules
from molmo_ros.nodes.parameter_files import read_parameters, read_values
from molmo_ros.nodes.parameter_table import ParameterError
from molmo_ros.nodes.parameters import NODE_PARAMETERS

CONFIG = Path(__file__).resolve().parents[2] / "config"
CAMERAS = sorted((CONFIG / "cameras").glob("*.yaml"))
ROBOTS = sorted((CONFIG / "robots" / "pointing").glob("*.yaml"))
# As the public drivers name them: colour, CameraInfo, depth registered to colour.
DRIVERS = {
    "azure_kinect": ("/rgb/image_raw", "/rgb/camera_info", "/depth_to_rgb/image_raw"),
    "oak_d": ("/oak/rgb/image_raw", "/oak/rgb/camera_info", "/oak/stereo/image_raw"),
    "orbbec": ("/camera/color/image_raw", "/camera/color/camera_info", "/camera/depth/image_raw"),
    "realsense": (
        "/camera/camera/color/image_raw",
        "/camera/camera/color/camera_info",
        "/camera/camera/aligned_depth_to_color/image_raw",
    ),
    "simulator": ("camera/color/image_raw", "camera/color/camera_info", "camera/depth/image_rect"),
    "zed": (
        "/zed/zed_node/rgb/color/rect/image",
        "/zed/zed_node/rgb/color/rect/camera_info",
        "/zed/zed_node/depth/depth_registered",
    ),
}


@pytest.mark.parametrize("preset", CAMERAS, ids=lambda path: path.stem)
def test_a_preset_of_a_camera_names_its_drivers_topics(preset: Path) -> None:
    (camera,) = read_parameters([preset]).cameras
    assert (camera.color_topic, camera.color_info_topic, camera.depth_topic) == DRIVERS[preset.stem]
    rules = FrameRules.of(camera, read_parameters([preset]), lambda name: name)
    assert rules.depth_info_topic is None, "all of these drivers register depth themselves"
    assert rules.color_transport == rules.depth_transport == "raw"


def test_there_is_a_preset_for_every_camera_that_is_promised() -> None:
    assert {path.stem for path in CAMERAS} == set(DRIVERS)
    assert {path.stem for path in ROBOTS} == {"franka", "stretch", "ur"}


@pytest.mark.parametrize("robot", ROBOTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("camera", CAMERAS, ids=lambda path: path.stem)
def test_every_camera_goes_with_every_robot(camera: Path, robot: Path) -> None:
    both = read_parameters([CONFIG / "pointing.yaml", camera, robot])
    (seen,), (alone,) = both.cameras, read_parameters([camera]).cameras
    assert (seen.name, seen.color_topic, seen.depth_min_m) == (alone.name, alone.color_topic, alone.depth_min_m)
    assert seen.extrinsic_sigma_m == read_values(robot)["extrinsic_sigma_m"]
    assert list(both.workspace_max) == read_values(robot)["workspace_max"]
    assert both.gripper.max_opening_m == read_values(robot)["gripper_max_opening_m"]


def test_a_camera_says_nothing_about_the_robot_and_a_robot_nothing_about_topics() -> None:
    of_cameras = {entry.name for entry in CAMERA_PARAMETERS} | {"cameras"}
    mounted = {"extrinsic_sigma_m", "extrinsic_sigma_rad"}
    of_node = {entry.name for entry in NODE_PARAMETERS} - {"cameras"}
    for file in CAMERAS:
        assert set(read_values(file)) <= of_cameras - mounted, file
    for file in ROBOTS:
        assert set(read_values(file)) <= of_node | mounted, file


def test_the_default_gripper_is_the_table_s() -> None:
    assert read_parameters([]).gripper == DEFAULT_GRIPPER


def test_what_a_file_cannot_hold_is_named(tmp_path: Path) -> None:
    def refused(text: str, says: str) -> None:
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        with pytest.raises(ParameterError, match=says):
            read_parameters([file])

    whole = "/**: {ros__parameters: {%s}}"
    refused(whole % "color_topik: /x", "unknown parameter color_topik; is color_topic meant")
    refused(whole % "max_queue: 2.0", "max_queue is 2.0: it takes a integer")
    refused(whole % "min_confidence: 2.0", "min_confidence is 2.0: it takes 0 to 1")
    refused(whole % "tail: {depth_topic: /x}", "no camera is called 'tail'")
    refused("/**/planner_node: {ros__parameters: {max_queue: 2}}", "holds nothing for /pointing_node")
    refused("max_queue: 2", "holds nothing for /pointing_node")
    refused("", "is empty")
    refused("a: [", "cannot be read")


def test_a_later_file_outdoes_an_earlier_one_and_nodes_are_told_apart(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("/**: {ros__parameters: {max_queue: 1, max_points: 1, cameras: [left, right]}}")
    second.write_text(
        "/**/pointing_node: {ros__parameters: {max_queue: 2, right: {depth_min_m: 0.5}}}\n"
        "/other: {ros__parameters: {max_points: 3}}"
    )
    read = read_parameters([first, second])
    assert (read.max_queue, read.max_points) == (2, 1)
    assert [camera.depth_min_m for camera in read.cameras] == [0.1, 0.5]
    assert read_parameters([first, second], "/robot1/pointing_node").max_queue == 2


def test_parameters_become_values_and_the_same_parameters_again() -> None:
    read = read_parameters([CONFIG / "cameras" / "zed.yaml", CONFIG / "robots" / "pointing" / "stretch.yaml"])
    assert type(read).from_values(read.values()) == read
