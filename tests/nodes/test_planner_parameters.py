"""The planner's parameters: the table, its page and its example file say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from molmo_ros.nodes.parameter_table import ParameterError, Value
from molmo_ros.nodes.planner_parameters import (
    PLANNER_PARAMETERS,
    PlannerParameters,
    as_example,
    as_markdown,
)

ROOT = Path(__file__).parents[2]


def defaults(**changes: Value) -> dict[str, Value]:
    return {parameter.name: parameter.default for parameter in PLANNER_PARAMETERS} | changes


def test_the_page_and_the_example_are_current() -> None:
    assert (ROOT / "docs" / "planner_parameters.md").read_text() == as_markdown()
    assert (ROOT / "config" / "planner.yaml").read_text() == as_example()


def test_the_example_holds_the_defaults() -> None:
    assert yaml.safe_load(as_example())["/**"]["ros__parameters"] == defaults()


def test_out_of_the_box_nothing_moves_and_speed_is_a_tenth() -> None:
    parameters = PlannerParameters.from_values(defaults())
    assert not parameters.execute
    assert parameters.speed_scale == 0.1
    assert parameters.command == "action"
    assert parameters.max_goal_age_s == 2.0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"command": "telepathy"}, "command"),
        ({"speed_scale": 0.0}, "speed_scale"),
        ({"speed_scale": 0.5, "max_speed_scale": 0.2}, "max_speed_scale"),
        ({"max_goal_age_s": float("nan")}, "max_goal_age_s"),
        ({"attempts": 0}, "attempts"),
    ],
)
def test_a_value_that_cannot_be_is_named(changes: dict[str, Value], named: str) -> None:
    with pytest.raises(ParameterError, match=named):
        PlannerParameters.from_values(defaults(**changes))
