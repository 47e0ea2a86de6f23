"""A ChArUco board: drawn to print, and found in pictures (Garrido-Jurado et al., Pattern Recognition 2014; OpenCV).

Its frame lies in the top left corner of the print: x to the right, y down, z into the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from molmo_ros.outcome import Code, PointingError

#: Fewer corners than this do not say how a board is turned.
FEWEST_CORNERS = 6
DICTIONARIES = ("4X4_50", "4X4_100", "5X5_100", "6X6_250", "APRILTAG_36h11")


@dataclass(frozen=True, eq=False)
class BoardSight:
    """Corners of a board: where they are on it (N, 3; metres) and in a picture (N, 2; pixels)."""

    points_board_N3: np.ndarray
    pixels_N2: np.ndarray


@dataclass(frozen=True)
class CharucoBoard:
    """`columns` x `rows` squares of `square_m`, markers of `marker_m` in the white ones.

    The default fits on A4 and US Letter paper. Raises PointingError(INVALID_REQUEST) for a board that cannot be.
    """

    columns: int = 7
    rows: int = 5
    square_m: float = 0.035
    marker_m: float = 0.026
    dictionary: str = "4X4_50"

    def __post_init__(self) -> None:
        if not (3 <= self.columns <= 30 and 3 <= self.rows <= 30):
            raise _impossible(f"{self.columns} x {self.rows} squares: it takes 3 to 30 each way")
        if not 0.001 <= self.marker_m < self.square_m <= 1.0:
            raise _impossible(
                f"squares of {self.square_m:g} m with markers of {self.marker_m:g} m: markers must be smaller than "
                "squares, both in metres"
            )
        if self.dictionary not in DICTIONARIES:
            raise _impossible(f"dictionary {self.dictionary!r}: there are {', '.join(DICTIONARIES)}")
        needed, there = self.columns * self.rows // 2, len(self._markers.bytesList)
        if needed > there:
            raise _impossible(f"it needs {needed} markers, dictionary {self.dictionary} has {there}")

    @property
    def size_m(self) -> tuple[float, float]:
        """Width and height."""
        return self.columns * self.square_m, self.rows * self.square_m

    def __str__(self) -> str:
        return (
            f"{self.columns} x {self.rows} squares of {1e3 * self.square_m:g} mm, markers of "
            f"{1e3 * self.marker_m:g} mm, {self.dictionary}"
        )

    def picture(self, square_px: int) -> np.ndarray:
        """The board alone, HxW uint8, each square `square_px` wide."""
        return np.asarray(self._board.generateImage((self.columns * square_px, self.rows * square_px)))

    def find(self, image: np.ndarray) -> BoardSight:
        """The board in a picture (HxWx3 uint8 RGB, or HxW).

        Raises PointingError(NOT_FOUND) with what was seen of it when fewer than `FEWEST_CORNERS` corners are seen, or
        all of them in one line.
        """
        grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        corners, numbers, _, markers = self._detector.detectBoard(grey)
        count = 0 if numbers is None else len(numbers)
        if count < FEWEST_CORNERS:
            seen = 0 if markers is None else len(markers)
            raise PointingError(
                Code.NOT_FOUND,
                f"{count} corners and {seen} markers of the board ({self}) are seen, at least {FEWEST_CORNERS} corners "
                "are needed; bring it nearer, into the light, wholly into the picture, and check its numbers",
            )
        points = np.asarray(self._board.getChessboardCorners(), float)[numbers.ravel()]
        if np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[1] < 0.5 * self.square_m:
            raise PointingError(
                Code.NOT_FOUND,
                "all corners that are seen lie in one line; show the board's other rows, too",
            )
        return BoardSight(points, corners.reshape(-1, 2).astype(float))

    @cached_property
    def _markers(self) -> cv2.aruco.Dictionary:
        if not hasattr(cv2.aruco, "CharucoDetector"):
            raise PointingError(
                Code.INVALID_REQUEST,
                f"OpenCV {cv2.__version__} is too old for ChArUco boards; 4.7 and later find them: "
                "pip install 'opencv-python-headless>=4.8,<5'",
            )
        return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, f"DICT_{self.dictionary}"))

    @cached_property
    def _board(self) -> cv2.aruco.CharucoBoard:
        return cv2.aruco.CharucoBoard((self.columns, self.rows), self.square_m, self.marker_m, self._markers)

    @cached_property
    def _detector(self) -> cv2.aruco.CharucoDetector:
        return cv2.aruco.CharucoDetector(self._board)


def _impossible(message: str) -> PointingError:
    return PointingError(Code.INVALID_REQUEST, f"no such board: {message}")
