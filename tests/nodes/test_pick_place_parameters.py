"""The parameters of pick_place_node: the table, its page and its example file say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from molmo_ros.nodes.parameter_table import ParameterError, Value
from molmo_ros.nodes.pick_place_parameters import (
    PICK_PLACE_PARAMETERS,
    PickPlaceParameters,
    as_example,
    as_markdown,
)
from molmo_ros.planning.pick_options import PickOptions
from molmo_ros.planning.task_words import PlaceWords

ROOT = Path(__file__).parents[2]


def defaults(**changes: Value) -> dict[str, Value]:
    return {parameter.name: parameter.default for parameter in PICK_PLACE_PARAMETERS} | changes


def test_the_page_and_the_example_are_current() -> None:
    assert (ROOT / "docs" / "pick_place_parameters.md").read_text() == as_markdown()
    assert (ROOT / "config" / "pick_place.yaml").read_text() == as_example()
    assert yaml.safe_load(as_example())["/**"]["ros__parameters"] == defaults()


def test_the_defaults_are_those_of_the_task_without_ros() -> None:
    """So that what the benchmark measures is what the node does."""
    parameters = PickPlaceParameters.from_values(defaults(wrist_camera="wrist"))
    assert parameters.options() == PickOptions()
    assert parameters.place_words() == PlaceWords()
    assert not PickPlaceParameters.from_values(defaults()).options().uses_wrist


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tries": 0}, "tries"),
        ({"camera": ""}, "camera"),
        ({"reach_min_m": 0.7}, "reach_min_m"),
        ({"finger_depth_m": float("nan")}, "finger_depth_m"),
    ],
)
def test_a_value_that_cannot_be_is_named(changes: dict[str, Value], named: str) -> None:
    with pytest.raises(ParameterError, match=named):
        PickPlaceParameters.from_values(defaults(**changes))
