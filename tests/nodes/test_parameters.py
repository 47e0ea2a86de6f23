"""Parameters stand once: the table, the page, the example file and the dataclass say the same."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from molmo_ros.geometry.depth_profile import PROFILES
from molmo_ros.nodes.parameters import (
    PARAMETERS,
    ParameterError,
    PointingParameters,
    Value,
    as_example,
    as_markdown,
)
from molmo_ros.pointing.formats import FORMATS

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS: dict[str, Value] = {parameter.name: parameter.default for parameter in PARAMETERS}


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


def test_every_parameter_is_read_and_described() -> None:
    assert [field.name for field in fields(PointingParameters)] == [
        parameter.name for parameter in PARAMETERS
    ]
    for parameter in PARAMETERS:
        assert parameter.description.endswith(".")
        for suffix, unit in (("_s", "s"), ("_m", "m"), ("_px", "pixels"), ("_rad", "rad")):
            if parameter.name.endswith(suffix):
                assert parameter.unit == unit


def test_the_defaults_are_valid() -> None:
    parameters = PointingParameters.from_values(DEFAULTS)
    assert parameters.workspace_min == (-1000.0, -1000.0, -1000.0)
    assert parameters.depth_noise in PROFILES


def test_every_known_way_of_pointing_can_be_chosen() -> None:
    choices = next(parameter.choices for parameter in PARAMETERS if parameter.name == "point_format")
    assert choices == ("auto", *FORMATS)


def test_depth_noise_names_are_those_of_geometry() -> None:
    choices = next(parameter.choices for parameter in PARAMETERS if parameter.name == "depth_noise")
    assert set(choices) == set(PROFILES)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("min_confidence", 1.5, "it takes 0 to 1"),
        ("min_confidence", float("nan"), "it takes 0 to 1"),
        ("select", "worst", "best, first"),
        ("workspace_min", [0.0, 0.0], "2 numbers: it takes 3"),
        ("workspace_min", [0.0, 0.0, 2000.0], "below workspace_max"),
        ("depth_min_m", 50.0, "below depth_max_m"),
        ("color_topic", "", "must name topics"),
        ("target_frame", "", "base_link"),
    ],
)
def test_a_value_that_cannot_be_is_named(name: str, value: Value, words: str) -> None:
    with pytest.raises(ParameterError, match=name) as raised:
        PointingParameters.from_values({**DEFAULTS, name: value})
    assert words in str(raised.value)
