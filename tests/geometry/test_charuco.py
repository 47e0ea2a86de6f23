"""The printed board: drawn, seen from aside and half covered, and refused when nothing can be said of it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from molmo_ros.geometry.charuco import CharucoBoard
from molmo_ros.outcome import Code, PointingError

BOARD = CharucoBoard()
SQUARE_PX = 40


def seen_from_aside() -> tuple[np.ndarray, np.ndarray]:
    """A picture of the board, and the 3x3 map from its metres to pixels."""
    picture = BOARD.picture(SQUARE_PX)
    height, width = picture.shape
    outline = np.array(
        [(-0.5, -0.5), (width - 0.5, -0.5), (width - 0.5, height - 0.5), (-0.5, height - 0.5)], np.float32
    )
    aside = np.array([(90, 60), (400, 110), (380, 330), (110, 380)], np.float32)
    H = cv2.getPerspectiveTransform(outline, aside)
    seen = cv2.warpPerspective(picture, H, (480, 440), flags=cv2.INTER_AREA, borderValue=200)
    to_px = np.array(
        [[SQUARE_PX / BOARD.square_m, 0, -0.5], [0, SQUARE_PX / BOARD.square_m, -0.5], [0, 0, 1]]
    )
    return cv2.GaussianBlur(seen, (3, 3), 0), H @ to_px


def test_corners_are_where_they_are() -> None:
    picture, H = seen_from_aside()
    sight = BOARD.find(np.repeat(picture[..., None], 3, axis=2))
    assert len(sight.pixels_N2) == (BOARD.columns - 1) * (BOARD.rows - 1)
    expected = np.column_stack([sight.points_board_N3[:, :2], np.ones(len(sight.points_board_N3))]) @ H.T
    np.testing.assert_allclose(sight.pixels_N2, expected[:, :2] / expected[:, 2:], atol=0.4)
    assert np.median(np.abs(sight.pixels_N2 - expected[:, :2] / expected[:, 2:])) < 0.15


def test_a_board_half_covered_is_found_by_its_other_half() -> None:
    picture, _ = seen_from_aside()
    picture[:, 250:] = 128
    sight = BOARD.find(picture)
    assert 6 <= len(sight.pixels_N2) < 18
    assert (sight.pixels_N2[:, 0] < 255).all()


def test_no_board_is_said_with_what_would_help() -> None:
    with pytest.raises(PointingError, match=r"0 corners and 0 markers.*nearer") as refused:
        BOARD.find(np.full((480, 640, 3), 128, np.uint8))
    assert refused.value.outcome.code == Code.NOT_FOUND


def test_a_board_of_other_markers_is_not_taken_for_ours() -> None:
    picture = np.pad(CharucoBoard(dictionary="6X6_250").picture(SQUARE_PX), 40, constant_values=255)
    with pytest.raises(PointingError):
        BOARD.find(picture)


@pytest.mark.parametrize(
    "wrong",
    [
        {"columns": 2},
        {"marker_m": 0.04},
        {"square_m": 35.0, "marker_m": 26.0},
        {"dictionary": "none"},
        {"columns": 20, "rows": 20},
    ],
)
def test_a_board_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(PointingError, match="no such board") as refused:
        CharucoBoard(**wrong)  # type: ignore[arg-type]
    assert refused.value.outcome.code == Code.INVALID_REQUEST
