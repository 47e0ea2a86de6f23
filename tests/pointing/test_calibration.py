"""Raw probabilities become honest ones, and a model without curves keeps its own."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_ros.pointing.calibration import FILE_NAME, Calibration

shares = st.floats(1e-5, 1 - 1e-5)


@given(shares, st.floats(1e-4, 0.5))
def test_without_curves_numbers_stay_as_they_are(raw: float, sigma: float) -> None:
    assert Calibration().of_point(raw, sigma) == pytest.approx(raw)
    assert Calibration().of_absence(raw) == pytest.approx(raw)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(1e-4, 0.5))
def test_a_surer_model_is_never_less_confident(one: float, other: float, sigma: float) -> None:
    curve = Calibration((-1.0, 0.6, -0.3), (0.2, 0.8))
    low, high = sorted((one, other))
    assert 0 < curve.of_point(low, sigma) <= curve.of_point(high, sigma) < 1
    assert 0 < curve.of_absence(low) <= curve.of_absence(high) < 1


def test_what_has_no_probability_stays_without_one() -> None:
    assert math.isnan(Calibration().of_point(math.nan, 0.01))
    assert not math.isnan(Calibration((0.0, 1.0, 0.5), (0.0, 1.0)).of_point(0.5, math.nan))


def test_curves_are_stored_beside_the_model(tmp_path: Path) -> None:
    assert Calibration.from_folder(tmp_path) == Calibration()
    curve = Calibration((-1.25, 0.5, -0.125), (0.5, 0.75))
    curve.save(tmp_path)
    assert Calibration.from_folder(tmp_path) == curve


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"point": [1, 2], "absence": [0, 1]}', '{"point": [1, 2, NaN], "absence": [0, 1]}', "[1]"],
)
def test_a_broken_file_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ValueError, match=FILE_NAME):
        Calibration.from_folder(tmp_path)
