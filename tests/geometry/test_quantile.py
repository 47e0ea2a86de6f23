"""Order statistics without interpolation."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from molmo_ros.geometry.quantile import median, quantile

VALUES = arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e6, 1e6))


@given(VALUES)
def test_the_median_is_that_of_numpy_or_the_upper_of_the_two_in_the_middle(values: np.ndarray) -> None:
    assert median(values) == np.sort(values)[len(values) // 2]
    assert median(values) >= np.median(values)


@given(VALUES, st.floats(0, 1))
def test_a_quantile_is_the_nearest_of_the_values(values: np.ndarray, share: float) -> None:
    ranked = np.sort(values)
    assert quantile(values, share) == ranked[round(share * (len(ranked) - 1))]
