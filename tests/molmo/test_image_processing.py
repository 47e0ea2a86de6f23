"""Preprocessing against the reference at the released settings (tests/data/README.md)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from molmo_ros.molmo.image_processing import (
    ImageMarks,
    MolmoImageProcessor,
    fitted_size,
    rgb_array,
    select_tiling,
)

PREPROC = Path(__file__).parent.parent / "data" / "goldens" / "preproc"
MARKS = ImageMarks(start=152064, end=152065, patch=152066, col=152067)
SIZES = sorted(path.stem for path in PREPROC.glob("*.png"))


@cache
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(PREPROC / "preproc_336.npz"))


@pytest.mark.parametrize("size", SIZES)
def test_every_size_of_picture_comes_out_as_the_reference(size: str) -> None:
    ours = MolmoImageProcessor().process(Image.open(PREPROC / f"{size}.png"), MARKS)
    theirs = {key.split("/")[1]: value for key, value in golden().items() if key.startswith(f"{size}/")}
    np.testing.assert_array_equal(ours.tokens, theirs["input_ids"][:-3])
    np.testing.assert_array_equal(ours.image_input_idx, theirs["image_input_idx"])
    np.testing.assert_array_equal(ours.image_masks, theirs["image_masks"])
    np.testing.assert_allclose(ours.images.ravel()[theirs["pick"]], theirs["picked"], atol=1e-5)
    np.testing.assert_allclose(ours.images.mean(-1), theirs["patch_means"], atol=1e-5)
    np.testing.assert_allclose(ours.images.std(-1), theirs["patch_stds"], atol=1e-5)


def test_all_reference_sizes_were_found() -> None:
    assert len(SIZES) == 8


def test_tilings_and_sizes_are_the_reference_ones() -> None:
    table = json.loads((PREPROC / "tilings.json").read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    assert len(rows) == 1500
    for row in rows:
        tiling = select_tiling(row["height"] - 112, row["width"] - 112, (224, 224), row["max_crops"])
        assert tiling == (row["tiling_rows"], row["tiling_cols"]), row
        canvas = (tiling[0] * 224 + 112, tiling[1] * 224 + 112)
        assert fitted_size((row["height"], row["width"]), canvas) == (row["scaled_h"], row["scaled_w"]), row


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 14))
def test_a_tiling_never_has_more_crops_than_allowed(height: int, width: int, max_crops: int) -> None:
    rows, cols = select_tiling(height - 112, width - 112, (224, 224), max_crops)
    assert 1 <= rows * cols <= max_crops


@given(st.integers(1, 200), st.integers(1, 200))
def test_every_image_token_gets_exactly_one_feature(height: int, width: int) -> None:
    small = MolmoImageProcessor(
        [84, 84], image_token_length_h=3, image_token_length_w=3, overlap_margins=[2, 2]
    )
    picture = small.process(np.zeros((height, width, 3), np.uint8), MARKS)
    places = picture.image_input_idx[picture.image_input_idx >= 0]
    assert sorted(places) == list(np.flatnonzero(picture.tokens == MARKS.patch))


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_arrays_that_are_not_rgb_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="HxWx3 uint8 RGB"):
        rgb_array(np.zeros(shape, np.uint8))


def test_floats_are_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        rgb_array(np.zeros((4, 4, 3)))


def test_margins_that_cut_through_a_token_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples"):
        MolmoImageProcessor(overlap_margins=[1, 3])
