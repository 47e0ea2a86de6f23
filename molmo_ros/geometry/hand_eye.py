"""Where a camera is, from views of a board that an arm moved (hand-eye calibration).

Both mountings are one problem. The camera is fixed in one frame, its mount; the board in another, its carrier; and
the arm says where the carrier is in the mount:

    eye_to_hand: the camera stands in the base's frame, the hand carries the board
    eye_in_hand: the hand carries the camera, the board lies in the base's frame

A closed form (Park & Martin 1994, Horaud & Dornaika 1995, Daniilidis 1999; OpenCV's) gives a start. Then both poses,
of the camera in its mount and of the board on its carrier, are fitted together to the corners in all pictures, with a
robust loss (Huber 1964): what is small in the end is the reprojection error, in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.charuco import BoardSight
from molmo_ros.geometry.pose import check_rigid, inverse
from molmo_ros.outcome import Code, PointingError

Mounting = Literal["eye_to_hand", "eye_in_hand"]
MOUNTINGS: tuple[Mounting, ...] = get_args(Mounting)

FEWEST_VIEWS = 5
#: How far the hand must have been turned, at most and about the second axis (root mean square over pairs of views).
LEAST_TURN_RAD = np.radians(15.0)
LEAST_SECOND_TURN_RAD = np.radians(5.0)
#: A view this much worse than the middle one, and worse than `_POOR_PX`, is none: TF or stamp did not fit it.
_POOR_TIMES, _POOR_PX = 4.0, 2.0
#: An estimate that the views leave more open than this (one sigma) is refused.
MOST_SIGMA_M, MOST_SIGMA_RAD = 0.01, np.radians(1.0)
_LOST_PX = 1e3
_START_HUBER_PX, _HUBER_PX = 10.0, 1.0


@dataclass(frozen=True, eq=False)
class BoardView:
    """One picture of the board: `T_base_hand` (4x4) at its stamp, and the corners that were seen."""

    T_base_hand: np.ndarray
    sight: BoardSight


@dataclass(frozen=True, eq=False)
class HandEye:
    """What the views say.

    `T_mount_camera`, `T_carrier_board`: 4x4, see the module. `rms_px`: over the corners of all views that were used;
    `view_rms_px` of each view, used or not; `left_out`: numbers of those that fit to nothing. `sigma_m`, `sigma_rad`:
    standard deviation of the camera's place and turn in their worst direction, from the scatter of views and corners: a
    bent board or a wrong focal length come on top. `board_scale`, `board_scale_sigma`: how large the print seems to be
    for its said size, by the arm's measure.
    """

    T_mount_camera: np.ndarray
    T_carrier_board: np.ndarray
    rms_px: float
    view_rms_px: tuple[float, ...]
    left_out: tuple[int, ...]
    sigma_m: float
    sigma_rad: float
    board_scale: float
    board_scale_sigma: float


def calibrate_hand_eye(views: Sequence[BoardView], camera: CameraModel, mounting: Mounting) -> HandEye:
    """The camera's pose from views of one board.

    Raises PointingError: INVALID_REQUEST for too few views, TF_UNAVAILABLE for a pose that is none, UNCERTAIN for
    motions that leave the answer open and for views that contradict each other, with what would work.
    """
    if len(views) < FEWEST_VIEWS:
        raise PointingError(
            Code.INVALID_REQUEST, f"{len(views)} views; at least {FEWEST_VIEWS} are needed, 15 are good"
        )
    for number, view in enumerate(views, start=1):
        check_rigid(f"the hand's pose in view {number}", view.T_base_hand)
    check_turns([view.T_base_hand for view in views])
    problem = _Problem(views, camera, mounting)
    used = np.ones(len(views), bool)
    fitted = problem.fit(problem.starts(), used, _START_HUBER_PX)
    for _ in range(3):
        fitted = problem.fit([fitted], used, _HUBER_PX)
        good = problem.good_views(fitted)
        if (good == used).all():
            break
        used = good
    _check_agreement(used, problem.view_rms_px(fitted))
    check_turns([view.T_base_hand for view, use in zip(views, used, strict=True) if use])
    sigma_m, sigma_rad = problem.sigmas(fitted, used)
    scale, scale_sigma = problem.board_scale(fitted, used)
    if sigma_m > MOST_SIGMA_M or sigma_rad > MOST_SIGMA_RAD:
        raise PointingError(
            Code.UNCERTAIN,
            f"the views leave the camera's pose open by {1e3 * sigma_m:.0f} mm and {np.degrees(sigma_rad):.1f} deg; "
            "take more of them, the board larger in the picture and tilted more, by 20 to 40 degrees each way",
        )
    every_px = problem.view_rms_px(fitted)
    return HandEye(
        T_mount_camera=fitted.T_mount_camera,
        T_carrier_board=fitted.T_carrier_board,
        rms_px=float(np.sqrt(np.mean(problem.errors_px(fitted)[problem.of_used(used)] ** 2) * 2)),
        view_rms_px=tuple(every_px),
        left_out=tuple(int(i) for i in np.nonzero(~used)[0]),
        sigma_m=sigma_m,
        sigma_rad=sigma_rad,
        board_scale=scale,
        board_scale_sigma=scale_sigma,
    )


def check_turns(T_base_hands: Sequence[np.ndarray]) -> None:
    """Raise PointingError(UNCERTAIN) unless the hand was turned enough, about two axes at least.

    With turns about one axis only, the camera's place along that axis stays open (Tsai & Lenz 1989).
    """
    R = np.array([T[:3, :3] for T in T_base_hands])
    first, second = np.triu_indices(len(R), 1)
    turns = Rotation.from_matrix(np.swapaxes(R[first], 1, 2) @ R[second]).as_rotvec()  # in the hand's frame
    largest = float(np.linalg.norm(turns, axis=1).max(initial=0.0))
    if largest < LEAST_TURN_RAD:
        raise PointingError(
            Code.UNCERTAIN,
            f"the hand was turned by at most {np.degrees(largest):.0f} degrees; turn it by 20 to 40 degrees between "
            "views, about two axes at least",
        )
    spread, axes = np.linalg.eigh(turns.T @ turns / len(turns))
    if np.sqrt(max(spread[1], 0.0)) < LEAST_SECOND_TURN_RAD:
        main, other = axes[:, 2], axes[:, 1]
        raise PointingError(
            Code.UNCERTAIN,
            f"the hand was turned about one axis only, {_axis(main)} in its own frame; tilt it by 20 to 40 degrees "
            f"about another one, too, such as {_axis(other)}",
        )


@dataclass(frozen=True, eq=False)
class _Fit:
    T_mount_camera: np.ndarray
    T_carrier_board: np.ndarray
    scale: float = 1.0

    def moved(self, step: np.ndarray) -> _Fit:
        """Turned and shifted by 12 small numbers, the board's scale by a 13th."""
        scale = self.scale * (1.0 + step[12]) if len(step) > 12 else self.scale
        return _Fit(_moved(self.T_mount_camera, step[:6]), _moved(self.T_carrier_board, step[6:12]), scale)


class _Problem:
    """All corners of all views, side by side."""

    def __init__(self, views: Sequence[BoardView], camera: CameraModel, mounting: Mounting) -> None:
        self._camera = camera
        self._sights = [view.sight for view in views]
        hands = [np.asarray(view.T_base_hand, float) for view in views]
        self._T_carrier_mount = np.array([inverse(T) if mounting == "eye_to_hand" else T for T in hands])
        counts = [len(sight.pixels_N2) for sight in self._sights]
        self._view = np.repeat(np.arange(len(views)), counts)
        self._points = np.concatenate([sight.points_board_N3 for sight in self._sights])
        self._pixels = np.concatenate([sight.pixels_N2 for sight in self._sights])

    def of_used(self, used: np.ndarray) -> np.ndarray:
        """Which corners belong to used views."""
        mask: np.ndarray = used[self._view]
        return mask

    def starts(self) -> list[_Fit]:
        """Closed forms: none is the best for all motions."""
        boards = np.array([_board_pose(sight, self._camera) for sight in self._sights])
        T_carrier_mount = self._T_carrier_mount
        starts = []
        for method in (
            cv2.CALIB_HAND_EYE_PARK,
            cv2.CALIB_HAND_EYE_HORAUD,
            cv2.CALIB_HAND_EYE_DANIILIDIS,
        ):
            R, t = cv2.calibrateHandEye(
                list(T_carrier_mount[:, :3, :3]),
                list(T_carrier_mount[:, :3, 3]),
                list(boards[:, :3, :3]),
                list(boards[:, :3, 3]),
                method=method,
            )
            if not (np.isfinite(R).all() and np.isfinite(t).all() and np.linalg.det(R) > 0.5):
                continue
            T_mount_camera = np.eye(4)
            T_mount_camera[:3, :3], T_mount_camera[:3, 3] = Rotation.from_matrix(R).as_matrix(), t.ravel()
            starts.append(_Fit(T_mount_camera, _middle(T_carrier_mount @ T_mount_camera @ boards)))
        if not starts:
            raise PointingError(
                Code.UNCERTAIN,
                "no camera pose fits the views even roughly; is the hand's frame the right one?",
            )
        return starts

    def errors_px(self, fit: _Fit) -> np.ndarray:
        """Seen minus expected (N, 2); a corner that cannot be seen at all counts as far away."""
        T_camera_board = (
            inverse(fit.T_mount_camera) @ np.linalg.inv(self._T_carrier_mount) @ fit.T_carrier_board
        )
        T = T_camera_board[self._view]
        points = np.einsum("nij,nj->ni", T[:, :3, :3], fit.scale * self._points) + T[:, :3, 3]
        expected = self._camera.project(points)
        return np.clip(np.nan_to_num(self._pixels - expected, nan=_LOST_PX), -_LOST_PX, _LOST_PX)

    def fit(self, starts: Sequence[_Fit], used: np.ndarray, huber_px: float) -> _Fit:
        """The best fit to the used views from any of the starts."""
        mask = self.of_used(used)
        found = []
        for start in starts:
            for _ in range(2):  # a second time from where the first ended: steps are small turns
                result = least_squares(
                    lambda step, start=start: self.errors_px(start.moved(step))[mask].ravel(),
                    np.zeros(12),
                    loss="huber",
                    f_scale=huber_px,
                    x_scale="jac",
                )
                start = start.moved(result.x)
            found.append((result.cost, start))
        return min(found, key=lambda each: each[0])[1]

    def view_rms_px(self, fit: _Fit) -> np.ndarray:
        squares = (self.errors_px(fit) ** 2).sum(axis=1)
        return np.sqrt(np.bincount(self._view, squares) / np.bincount(self._view))

    def good_views(self, fit: _Fit) -> np.ndarray:
        rms = self.view_rms_px(fit)
        good: np.ndarray = rms <= max(_POOR_TIMES * float(np.median(rms)), _POOR_PX)
        return good

    def sigmas(self, fit: _Fit, used: np.ndarray) -> tuple[float, float]:
        """Standard deviations of the camera's place and turn, each in its worst direction."""
        both = self._covariances(fit, used, 12)
        place, turn = (
            max(float(np.linalg.eigvalsh(covariance[part, part])[-1]) for covariance in both)
            for part in (slice(3, 6), slice(0, 3))
        )
        return float(np.sqrt(place)), float(np.sqrt(turn))

    def board_scale(self, fit: _Fit, used: np.ndarray) -> tuple[float, float]:
        """The board's true over its said size, by the arm's measure, and its standard deviation."""
        mask = self.of_used(used)
        result = least_squares(
            lambda step: self.errors_px(fit.moved(step))[mask].ravel(),
            np.zeros(13),
            loss="huber",
            f_scale=_HUBER_PX,
            x_scale="jac",
        )
        free = fit.moved(result.x)
        variance = max(float(covariance[12, 12]) for covariance in self._covariances(free, used, 13))
        return free.scale, float(np.sqrt(variance))

    def _covariances(self, fit: _Fit, used: np.ndarray, parameters: int) -> tuple[np.ndarray, np.ndarray]:
        """Of all parameters: as if every corner erred by itself, and as if views did."""
        mask = self.of_used(used)
        nudges = 1e-6 * np.eye(parameters)
        J = np.column_stack(
            [
                (self.errors_px(fit.moved(nudge)) - self.errors_px(fit.moved(-nudge)))[mask].ravel() / 2e-6
                for nudge in nudges
            ]
        )
        errors = self.errors_px(fit)[mask].ravel()
        # Corners of one view err together, with the hand's pose: views scatter, too (Liang & Zeger 1986). Two views
        # have as many freedoms as the two poses.
        count = int(used.sum())
        by_view = np.repeat(self._view[mask], 2)
        pulls = np.array([J[by_view == view].T @ errors[by_view == view] for view in np.nonzero(used)[0]])
        bread = np.linalg.pinv(J.T @ J)
        of_views = bread @ (pulls.T @ pulls) @ bread * count / max(count - 2, 1)
        of_corners = bread * (errors @ errors) / max(len(errors) - parameters, 1)
        return of_corners, of_views


def _check_agreement(used: np.ndarray, rms_px: np.ndarray) -> None:
    if used.sum() >= max(FEWEST_VIEWS, 0.6 * len(used)) and rms_px[used].max() <= _LOST_PX / 50:
        return
    raise PointingError(
        Code.UNCERTAIN,
        f"the views contradict each other: {int((~used).sum())} of {len(used)} fit to nothing, the others to "
        f"{np.median(rms_px):.1f} px. Is the board fixed to its carrier, does the hand rest in each view, are hand "
        "frame, mounting (eye_to_hand, eye_in_hand) and the board's numbers the right ones?",
    )


def _board_pose(sight: BoardSight, camera: CameraModel) -> np.ndarray:
    """T_camera_board (4x4) from one view alone; of a plane's two solutions the one that fits better."""
    rays = camera.rays(sight.pixels_N2)
    directions = np.ascontiguousarray(rays[:, :2] / rays[:, 2:])
    points = np.ascontiguousarray(sight.points_board_N3)
    _, turns, shifts, _ = cv2.solvePnPGeneric(points, directions, np.eye(3), None, flags=cv2.SOLVEPNP_IPPE)
    turn, shift = cv2.solvePnPRefineLM(points, directions, np.eye(3), None, turns[0], shifts[0])
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_rotvec(turn.ravel()).as_matrix(), shift.ravel()
    return T


def _middle(poses: np.ndarray) -> np.ndarray:
    """The pose (4x4) that most of some (N, 4, 4) are near to."""
    rotations = Rotation.from_matrix(poses[:, :3, :3])
    apart = np.array([(rotations * one.inv()).magnitude().sum() for one in rotations])
    T = np.eye(4)
    T[:3, :3] = rotations[int(apart.argmin())].as_matrix()
    T[:3, 3] = np.median(poses[:, :3, 3], axis=0)
    return T


def _moved(T: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Turned by a small rotation vector, shifted by the rest."""
    moved = np.eye(4)
    moved[:3, :3] = T[:3, :3] @ Rotation.from_rotvec(step[:3]).as_matrix()
    moved[:3, 3] = T[:3, 3] + step[3:]
    return moved


def _axis(axis: np.ndarray) -> str:
    axis = axis * np.sign(axis[int(np.abs(axis).argmax())])
    return "(" + ", ".join(f"{abs(x) if abs(x) < 0.05 else x:.1f}" for x in axis) + ")"
