"""The annotated picture: marks where the points are, everything inside, the original untouched."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo_ros.pointing.annotate import PALETTE, REFUSED, annotate
from molmo_ros.pointing.point import Point2D


def point(
    u: float, v: float, label: str = "red mug", confidence: float = 0.9, sigma_px: float = 2.0
) -> Point2D:
    return Point2D(u=u, v=v, label=label, confidence=confidence, sigma_px=sigma_px, index=0)


def grey(height: int = 480, width: int = 640) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def test_the_ring_is_at_the_point_in_its_colour_and_the_original_is_untouched() -> None:
    image = grey()
    picture = annotate(image, [point(300, 200)])
    assert (image == 90).all()
    assert picture.shape == image.shape
    assert picture.dtype == np.uint8
    assert tuple(picture[200, 300]) == PALETTE[0]
    assert tuple(picture[200, 308]) == PALETTE[0]
    assert (picture[200, 200] == 90).all()


def test_a_refused_point_is_grey_and_the_chosen_one_has_a_second_ring() -> None:
    plain = annotate(grey(), [point(300, 200)])
    refused = annotate(grey(), [point(300, 200)], refused={0})
    chosen = annotate(grey(), [point(300, 200)], chosen=0)
    assert tuple(refused[200, 300]) == REFUSED
    assert (plain[213, 300] == 90).all()
    assert tuple(chosen[213, 300]) == PALETTE[0]


def test_the_label_is_readable_beside_the_point() -> None:
    picture = annotate(grey(), [point(300, 200)], notes=["0.72 m"])
    label = picture[188:212, 316:460].astype(int)
    assert (label.min(axis=2) > 200).sum() > 50, "white letters"
    assert (label.max(axis=2) < 60).sum() > 500, "on a dark ground"


def test_labels_of_neighbours_do_not_cover_each_other() -> None:
    """The second point's own first choice of place would lie across the first label."""
    one = annotate(grey(), [point(300, 200)])
    both = annotate(grey(), [point(300, 200), point(260, 200, "blue cup")])
    letters = (one[188:212, 330:420].astype(int).min(axis=2) > 200).sum()
    still = (both[188:212, 330:420].astype(int).min(axis=2) > 200).sum()
    assert letters > 50
    assert still == letters


def test_the_banner_stands_at_the_bottom() -> None:
    picture = annotate(grey(), [], banner="the red mug · NOT_FOUND")
    assert (picture[470] < 90).any()
    assert (picture[:440] == 90).all()


@settings(max_examples=40, deadline=None)
@given(
    u=st.one_of(st.floats(-1e7, 1e7), st.just(math.nan), st.just(math.inf)),
    v=st.floats(-1e4, 1e4),
    label=st.text(max_size=80),
    confidence=st.one_of(st.floats(0, 1), st.just(math.nan)),
    size=st.sampled_from([(1, 1), (24, 32), (480, 640), (3, 500)]),
    banner=st.text(max_size=200),
)
def test_nothing_that_a_model_says_breaks_the_picture(
    u: float, v: float, label: str, confidence: float, size: tuple[int, int], banner: str
) -> None:
    picture = annotate(
        grey(*size), [point(u, v, label, confidence, 1e9)], banner=banner, notes=["x"], chosen=0
    )
    assert picture.shape == (*size, 3)


@pytest.mark.parametrize("count", [0, 30])
def test_any_number_of_points_will_do(count: int) -> None:
    points = [point(20.0 * n, 15.0 * n) for n in range(count)]
    assert annotate(grey(), points).shape == (480, 640, 3)
