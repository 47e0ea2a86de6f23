"""Named colours: every draw keeps its name."""

from __future__ import annotations

import colorsys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.sim.colours import (
    COLOUR_NAMES,
    COLOURS,
    DULL_COLOURS,
    TEN_COLOURS,
    NamedColour,
    colour_named,
    distance,
    lab,
)


@given(st.sampled_from(COLOURS), st.integers(0, 2**32))
def test_a_drawn_colour_is_nearest_to_its_own_name(colour: NamedColour, seed: int) -> None:
    rgb = colour.draw(np.random.default_rng(seed))
    nearest = min(COLOURS, key=lambda other: distance(rgb, other.middle()))
    assert nearest.name == colour.name


@given(st.sampled_from(TEN_COLOURS), st.integers(0, 2**32))
def test_a_drawn_colour_of_ten_is_nearest_to_its_own_name(colour: NamedColour, seed: int) -> None:
    rgb = colour.draw(np.random.default_rng(seed))
    nearest = min(TEN_COLOURS, key=lambda other: distance(rgb, other.middle()))
    assert nearest.name == colour.name


@given(st.sampled_from(DULL_COLOURS), st.integers(0, 2**32))
def test_a_dull_colour_is_far_from_every_name(colour: NamedColour, seed: int) -> None:
    rgb = colour.draw(np.random.default_rng(seed))
    assert min(distance(rgb, named.middle()) for named in TEN_COLOURS) > 12


def test_hues_keep_their_distance() -> None:
    chromatic = sorted((c for c in COLOURS if c.name not in ("white", "black")), key=lambda c: c.hue_deg)
    for before, after in pairwise(chromatic):
        assert after.hue_deg[0] - before.hue_deg[1] >= 15, f"{before.name} and {after.name}"


def test_draws_vary() -> None:
    rng = np.random.default_rng(3)
    draws = {colour_named("blue").draw(rng) for _ in range(50)}
    assert len(draws) == 50
    values = [colorsys.rgb_to_hsv(*rgb)[2] for rgb in draws]
    assert max(values) - min(values) > 0.15


def test_lab_agrees_with_known_values() -> None:
    np.testing.assert_allclose(lab((1.0, 1.0, 1.0)), [100, 0, 0], atol=0.02)
    np.testing.assert_allclose(lab((1.0, 0.0, 0.0)), [53.24, 80.09, 67.20], atol=0.05)


def test_an_unknown_name_is_refused() -> None:
    assert "teal" not in COLOUR_NAMES
    with pytest.raises(KeyError):
        colour_named("teal")
