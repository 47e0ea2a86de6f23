"""Parameters stand once: the tables, the page, the example file and the dataclasses say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from molmo_ros.geometry.depth_profile import PROFILES
from molmo_ros.nodes.camera_parameters import CAMERA_PARAMETERS
from molmo_ros.nodes.parameter_table import Parameter, ParameterError, Value, nearest_name
from molmo_ros.nodes.parameters import (
    NODE_PARAMETERS,
    PARAMETERS,
    PointingParameters,
    as_example,
    as_markdown,
    table_entry,
)
from molmo_ros.pointing.formats import FORMATS

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS: dict[str, Value] = {parameter.name: parameter.default for parameter in PARAMETERS}


def entry(name: str) -> Parameter:
    return next(parameter for parameter in PARAMETERS if parameter.name == name)


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "parameters.md").read_text() == as_markdown(), (
        "run: tools/run python -m molmo_ros.nodes.parameters > docs/parameters.md"
    )


def test_the_example_file_is_current() -> None:
    assert (ROOT / "config" / "pointing.yaml").read_text() == as_example(), (
        "run: tools/run python -m molmo_ros.nodes.parameters --yaml > config/pointing.yaml"
    )


def test_the_example_file_holds_every_parameter_with_its_default() -> None:
    content = yaml.safe_load((ROOT / "config" / "pointing.yaml").read_text())
    assert content == {"/**": {"ros__parameters": DEFAULTS}}
    types = {name: type(value) for name, value in content["/**"]["ros__parameters"].items()}
    assert types == {name: type(value) for name, value in DEFAULTS.items()}


def test_every_parameter_is_described_with_its_unit() -> None:
    names = [parameter.name for parameter in PARAMETERS]
    assert len(set(names)) == len(names)
    for parameter in PARAMETERS:
        assert parameter.description.endswith(".")
        for suffix, unit in (
            ("_s", "s"),
            ("_m", "m"),
            ("_px", "pixels"),
            ("_rad", "rad"),
            ("_megabytes", "MB"),
        ):
            if parameter.name.endswith(suffix):
                assert parameter.unit == unit
        number = not isinstance(parameter.default, bool) and isinstance(parameter.default, int | float)
        assert bool(parameter.range) or not number, f"{parameter.name} has no range"


def test_the_defaults_are_valid_and_name_the_usual_topics() -> None:
    parameters = PointingParameters.from_values(DEFAULTS)
    assert parameters.workspace_min == (-1000.0, -1000.0, -1000.0)
    (camera,) = parameters.cameras
    assert camera.name == "camera" and camera.color_topic == "camera/color/image_raw"
    assert camera.depth_noise in PROFILES


def test_every_known_way_of_pointing_can_be_chosen() -> None:
    assert entry("point_format").choices == ("auto", *FORMATS)


def test_depth_noise_names_are_those_of_geometry() -> None:
    assert set(entry("depth_noise").choices) == set(PROFILES)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("min_confidence", 1.5, "it takes 0 to 1"),
        ("min_confidence", float("nan"), "it takes 0 to 1"),
        ("select", "worst", "single, best, first"),
        ("workspace_min", [0.0, 0.0], "2 numbers: it takes 3"),
        ("workspace_min", [0.0, 0.0, 2000.0], "below workspace_max"),
        ("depth_min_m", 50.0, "below depth_max_m"),
        ("color_topic", "", "must name topics"),
        ("target_frame", "", "base_link"),
        ("cameras", ["left", "left"], "each once"),
        ("cameras", ["left hand"], "letters, digits and underscores"),
        ("cameras", ["model"], "no parameter's name"),
    ],
)
def test_a_value_that_cannot_be_is_named(name: str, value: Value, words: str) -> None:
    with pytest.raises(ParameterError, match=name) as raised:
        PointingParameters.from_values({**DEFAULTS, name: value})
    assert words in str(raised.value)


def test_a_cameras_own_value_goes_before_the_one_for_all() -> None:
    parameters = PointingParameters.from_values(
        DEFAULTS
        | {"cameras": ["head", "wrist"], "wrist.depth_min_m": 0.05, "depth_max_m": 2.0}
        | {"wrist.color_topic": "/hand/{camera}/rgb"}
    )
    head, wrist = parameters.cameras
    assert (head.depth_min_m, wrist.depth_min_m) == (0.1, 0.05)
    assert (head.depth_max_m, wrist.depth_max_m) == (2.0, 2.0)
    assert (head.color_topic, wrist.color_topic) == ("head/color/image_raw", "/hand/wrist/rgb")
    assert parameters.camera_called("") is head and parameters.camera_called("wrist") is wrist
    assert parameters.camera_called("tail") is None


def test_a_fault_in_a_cameras_own_value_is_named_as_its_own() -> None:
    with pytest.raises(ParameterError, match=r"camera\.depth_noise is 'loud'"):
        PointingParameters.from_values(DEFAULTS | {"camera.depth_noise": "loud"})


def test_two_cameras_on_one_topic_are_refused() -> None:
    with pytest.raises(ParameterError, match="same color_topic '/rgb'"):
        PointingParameters.from_values(DEFAULTS | {"cameras": ["a", "b"], "color_topic": "/rgb"})


@pytest.mark.parametrize("missing", ["remote_url", "model", "point_format"])
def test_a_remote_model_needs_address_name_and_format(missing: str) -> None:
    whole: dict[str, Value] = {"remote_url": "https://host/v1", "model": "molmo", "point_format": "molmo"}
    values = {**DEFAULTS, "backend": "remote", **whole}
    PointingParameters.from_values(values)
    with pytest.raises(ParameterError, match=missing):
        PointingParameters.from_values({**values, missing: DEFAULTS[missing]})


MOVEIT: dict[str, Value] = {"hand_off": "moveit", "moveit_group": "arm", "moveit_tip_link": "hand"}
NAV2: dict[str, Value] = {"hand_off": "nav2", "fixed_frame": "odom"}


@pytest.mark.parametrize("whole", [MOVEIT, NAV2])
def test_a_planner_is_told_and_not_yet_moved(whole: dict[str, Value]) -> None:
    planner = PointingParameters.from_values({**DEFAULTS, **whole}).planner
    assert planner.hand_off == whole["hand_off"] and not planner.execute and not planner.confirm
    assert planner.moveit_velocity_scale == planner.moveit_acceleration_scale == 0.1


@pytest.mark.parametrize(
    ("whole", "name", "value", "words"),
    [
        (MOVEIT, "moveit_group", "", "hand_off moveit needs it"),
        (MOVEIT, "moveit_tip_link", "", "hand_off moveit needs it"),
        (MOVEIT, "moveit_target_object", True, "moveit_goal_offset_m is 0"),
        (MOVEIT, "moveit_velocity_scale", 0.0, "0.001 to 1"),
        (NAV2, "nav2_frame", "", "hand_off nav2 needs it"),
        (NAV2, "fixed_frame", "", "e.g. odom"),
        (NAV2, "target_frame", "map", "a frame of the robot"),
        (NAV2, "target_frame", "/odom", "a frame of the robot"),
    ],
)
def test_a_planner_that_cannot_be_told_is_refused(
    whole: dict[str, Value], name: str, value: Value, words: str
) -> None:
    with pytest.raises(ParameterError, match=name) as raised:
        PointingParameters.from_values({**DEFAULTS, **whole, name: value})
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("min_confidance", "min_confidence"),
        ("colour_topic", "color_topic"),
        ("target_frames", "target_frame"),
        ("wrist.depth_topics", "wrist.depth_topic"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ParameterError, match=f"unknown parameter {name}; is {nearest} meant"):
        table_entry(name, ("wrist",))


def test_a_parameter_of_a_camera_that_is_not_there_is_said_to_be_one() -> None:
    with pytest.raises(ParameterError, match="no camera is called 'tail'; parameter cameras names wrist"):
        table_entry("tail.depth_topic", ("wrist",))


def test_a_name_like_no_other_has_no_nearest() -> None:
    assert nearest_name("zzzzzzzz", DEFAULTS) == ""


def test_the_same_model_is_meant_until_something_of_it_changes() -> None:
    choice = PointingParameters.from_values(DEFAULTS).model_choice()
    assert PointingParameters.from_values(DEFAULTS | {"select": "best"}).model_choice() == choice
    assert PointingParameters.from_values(DEFAULTS | {"max_crops": 3}).model_choice() != choice


def test_what_belongs_to_cameras_changes_only_with_them() -> None:
    for parameter in (*NODE_PARAMETERS, *CAMERA_PARAMETERS):
        if parameter.name.endswith(("_topic", "_transport", "_frame")):
            assert parameter.change == "inactive", parameter.name
