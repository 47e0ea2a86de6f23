import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from molmo_ros.geometry.depth_image import depth_m_from
from molmo_ros.outcome import Code, PointingError


@pytest.mark.parametrize("encoding", ["16UC1", "mono16"])
def test_sixteen_bits_are_millimetres_and_zero_is_no_return(encoding: str) -> None:
    depth = depth_m_from(encoding, np.array([[0, 1, 1500], [65535, 250, 0]], np.uint16))
    np.testing.assert_allclose(depth, [[np.nan, 0.001, 1.5], [65.535, 0.25, np.nan]], rtol=1e-6)
    assert depth.dtype == np.float32


def test_floats_are_metres_and_nonsense_is_no_return() -> None:
    raw = np.array([[0.0, -1.0, 0.75], [np.inf, -np.inf, np.nan]], np.float32)
    np.testing.assert_array_equal(
        depth_m_from("32FC1", raw), np.array([[np.nan, np.nan, 0.75], [np.nan] * 3], "f4")
    )
    assert raw[0, 1] == -1.0, "the driver's buffer is left alone"


@given(hnp.arrays(np.float32, (4, 5), elements=st.floats(width=32)))
def test_whatever_comes_out_is_nan_or_a_positive_number(raw: np.ndarray) -> None:
    depth = depth_m_from("32FC1", raw)
    assert (np.isnan(depth) | ((depth > 0) & np.isfinite(depth))).all()


def test_a_big_endian_image_is_read_as_such() -> None:
    depth = depth_m_from("16UC1", np.array([[1500]], dtype=">u2"))
    assert depth[0, 0] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("encoding", "raw", "said"),
    [
        ("8UC1", np.zeros((2, 2), np.uint8), "'8UC1' is unknown; valid are 16UC1, mono16.*32FC1"),
        ("", np.zeros((2, 2), np.uint16), "'' is unknown"),
        ("16UC1", np.zeros((2, 2), np.float32), "says 16UC1 but its pixels have shape .2, 2. of float32"),
        ("32FC1", np.zeros((2, 2), np.float64), "float64"),
        ("16UC1", np.zeros((2, 2, 3), np.uint16), "shape .2, 2, 3."),
    ],
)
def test_other_images_are_refused(encoding: str, raw: np.ndarray, said: str) -> None:
    with pytest.raises(PointingError, match=said) as caught:
        depth_m_from(encoding, raw)
    assert caught.value.outcome.code == Code.BAD_IMAGE
