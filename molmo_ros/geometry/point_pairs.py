"""Where a camera is, from spots whose places are known both to the camera and to the arm that pointed at them.

The rigid motion of least squares (Arun, Huang & Blostein 1987; Umeyama 1991), over the pairs that agree with each other
(RANSAC, Fischler & Bolles 1981): a click beside the spot, or depth from what lies behind it, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from molmo_ros.outcome import Code, PointingError

FEWEST_PAIRS = 4
#: Spots must reach this far to the side of the line that fits them best (root mean square).
LEAST_SPREAD_M = 0.03
MOST_OUTLIERS = 0.4
_MOST_TRIPLES = 600


@dataclass(frozen=True, eq=False)
class PairFit:
    """`T_base_camera` (4x4) with the distance that each pair is off (N,; metres), used or not.

    `left_out`: numbers of the pairs that do not agree with the others. `rms_m` is of those that were used. `sigma_m`,
    `sigma_rad`: standard deviation of the camera's place and turn in their worst direction, from that scatter.
    """

    T_base_camera: np.ndarray
    off_m: np.ndarray
    left_out: tuple[int, ...]
    rms_m: float
    sigma_m: float
    sigma_rad: float


def fit_point_pairs(
    points_cam_N3: npt.ArrayLike, points_base_N3: npt.ArrayLike, agree_m: float = 0.015
) -> PairFit:
    """The camera's pose from the same spots in the camera's frame and in the base's (metres).

    Pairs that are off by more than `agree_m` are left out. Raises PointingError: INVALID_REQUEST for too few pairs or
    numbers that are none, UNCERTAIN for spots in one line and for pairs of which too many disagree.
    """
    p, q = np.asarray(points_cam_N3, float), np.asarray(points_base_N3, float)
    if (
        p.shape != q.shape
        or p.ndim != 2
        or p.shape[1] != 3
        or not (np.isfinite(p).all() and np.isfinite(q).all())
    ):
        raise PointingError(
            Code.INVALID_REQUEST, "pairs are two times three finite numbers each, as many here as there"
        )
    if len(p) < FEWEST_PAIRS:
        raise PointingError(
            Code.INVALID_REQUEST, f"{len(p)} spots; at least {FEWEST_PAIRS} are needed, 40 are good"
        )
    _check_spread(q)
    used = _agreeing(p, q, agree_m)
    for _ in range(5):
        T = rigid_motion(p[used], q[used])
        again = _off(T, p, q) <= agree_m
        if (again == used).all() or again.sum() < FEWEST_PAIRS:
            break
        used = again
    if used.sum() < max(FEWEST_PAIRS, (1 - MOST_OUTLIERS) * len(p)):
        raise PointingError(
            Code.UNCERTAIN,
            f"only {int(used.sum())} of {len(p)} pairs agree within {1e3 * agree_m:g} mm; is the tip's frame the right "
            "one, and does each spot belong to the touch that followed it?",
        )
    _check_spread(q[used])
    T = rigid_motion(p[used], q[used])
    off_m = _off(T, p, q)
    sigma_m, sigma_rad = _sigmas(T, p[used], off_m[used])
    rms_m = float(np.sqrt(np.mean(off_m[used] ** 2)))
    return PairFit(T, off_m, tuple(int(i) for i in np.nonzero(~used)[0]), rms_m, sigma_m, sigma_rad)


def rigid_motion(points_from_N3: np.ndarray, points_to_N3: np.ndarray) -> np.ndarray:
    """T_to_from (4x4) of least squares."""
    middle_from, middle_to = points_from_N3.mean(axis=0), points_to_N3.mean(axis=0)
    U, _, Vt = np.linalg.svd((points_to_N3 - middle_to).T @ (points_from_N3 - middle_from))
    T = np.eye(4)
    T[:3, :3] = U @ np.diag([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))]) @ Vt
    T[:3, 3] = middle_to - T[:3, :3] @ middle_from
    return T


def _check_spread(points_N3: np.ndarray) -> None:
    _, spreads, axes = np.linalg.svd(points_N3 - points_N3.mean(axis=0))
    aside_m = float(spreads[1] / np.sqrt(len(points_N3)))
    if aside_m < LEAST_SPREAD_M:
        x, y, z = axes[0]
        raise PointingError(
            Code.UNCERTAIN,
            f"the spots lie in one line, along ({x:.1f}, {y:.1f}, {z:.1f}) of the base, to within {1e3 * aside_m:.0f} "
            "mm: the camera could be turned about it; add spots 20 cm and more to its side, and at other heights",
        )


def _agreeing(p: np.ndarray, q: np.ndarray, agree_m: float) -> np.ndarray:
    """The largest set of pairs that one motion explains; the same for the same pairs."""
    triples = list(combinations(range(len(p)), 3))
    if len(triples) > _MOST_TRIPLES:
        picks = np.random.default_rng(0).choice(len(triples), _MOST_TRIPLES, replace=False)
        triples = [triples[int(i)] for i in picks]
    best, best_score = np.zeros(len(p), bool), -1.0
    for triple in triples:
        three = list(triple)
        if np.linalg.norm(np.cross(q[three[1]] - q[three[0]], q[three[2]] - q[three[0]])) < LEAST_SPREAD_M**2:
            continue
        off = _off(rigid_motion(p[three], q[three]), p, q)
        # Three pairs carry their own noise: their motion is given twice the room of the final one.
        score = float(np.clip(1.0 - off / (2 * agree_m), 0.0, None).sum())
        if score > best_score:
            best, best_score = off <= 2 * agree_m, score
    return best


def _off(T: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(p @ T[:3, :3].T + T[:3, 3] - q, axis=1))


def _sigmas(T: np.ndarray, p: np.ndarray, off_m: np.ndarray) -> tuple[float, float]:
    # A small turn w about the camera moves a point p by w x p, a shift by itself.
    J = np.concatenate([np.hstack([-_cross(point), np.eye(3)]) for point in p @ T[:3, :3].T])
    variance = float((off_m**2).sum()) / max(3 * len(p) - 6, 1)
    covariance = variance * np.linalg.pinv(J.T @ J)
    turn, place = np.linalg.eigvalsh(covariance[:3, :3])[-1], np.linalg.eigvalsh(covariance[3:, 3:])[-1]
    return float(np.sqrt(place)), float(np.sqrt(turn))


def _cross(v: np.ndarray) -> np.ndarray:
    """The matrix of the cross product with v."""
    return np.array([[0.0, -v[2], v[1]], [v[2], 0.0, -v[0]], [-v[1], v[0], 0.0]])
