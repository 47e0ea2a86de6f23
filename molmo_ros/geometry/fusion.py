"""One target seen from several places: its observations joined into one, better than each.

Observations add up in information form: the inverse covariances add, and so do the positions weighted by
them, which is the least-squares estimate for independent errors (Maybeck, "Stochastic Models, Estimation and
Control", 1979). An observation that does not agree with the others within its own covariance is of something
else, or wrong; it is left out by a chi-squared gate on the squared Mahalanobis distance (Bar-Shalom &
Fortmann, "Tracking and Data Association", 1988).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from molmo_ros.outcome import Code, PointingError

# An agreeing observation is gated out once in a thousand times.
GATE_PROBABILITY = 0.999


@dataclass(frozen=True, eq=False)
class Observation:
    """Where one view says that the target is: `position_m` (3,) and `cov_m2` (3, 3), in a frame that does not
    move between the views.
    """

    position_m: np.ndarray
    cov_m2: np.ndarray

    def __post_init__(self) -> None:
        position = np.asarray(self.position_m, dtype=float)
        cov = np.asarray(self.cov_m2, dtype=float)
        if position.shape != (3,) or not np.isfinite(position).all():
            raise _bad(f"position_m is {position.tolist()}, must be three finite numbers in metres")
        _check_covariance("cov_m2", cov)
        if np.linalg.eigvalsh(cov)[0] <= 0:
            raise _bad("cov_m2 is singular: some direction would be known exactly")
        object.__setattr__(self, "position_m", position)
        object.__setattr__(self, "cov_m2", (cov + cov.T) / 2)


@dataclass(frozen=True, eq=False)
class Fused:
    """The joint estimate: `position_m` (3,), `cov_m2` (3, 3), and which observations it is made of (`used`).

    `disagreement`: mean squared Mahalanobis distance of those used from the estimate, per degree of freedom;
    about 1 when their covariances are honest, 0 for a single one.
    """

    position_m: np.ndarray
    cov_m2: np.ndarray
    used: tuple[bool, ...]
    disagreement: float


def fuse(
    observations: Sequence[Observation],
    *,
    gate_probability: float = GATE_PROBABILITY,
    shared_cov_m2: npt.ArrayLike | None = None,
) -> Fused:
    """The target that most of the observations agree on.

    `shared_cov_m2` (3, 3): error that all views have in common and that no number of views averages away, as
    of a base frame that is itself off; it must not be in the observations' own covariances and is added to the
    result.

    Raises PointingError: INVALID_REQUEST for no observations or a gate that is no probability, AMBIGUOUS_DEPTH
    when no more than half of the observations agree, so that nobody can tell which of them are right.
    """
    if not observations:
        raise _bad("no observations to fuse; give at least one")
    if not 0 < gate_probability < 1:
        raise _bad(f"gate_probability is {gate_probability}, must be between 0 and 1")
    from scipy.special import chdtri  # takes a second to import, and most processes never fuse

    gate = float(chdtri(3, 1.0 - gate_probability))
    positions = np.stack([each.position_m for each in observations])
    covs = np.stack([each.cov_m2 for each in observations])
    used = _largest_agreement(positions, covs, gate)
    if 2 * used.sum() <= len(used):
        raise PointingError(
            Code.AMBIGUOUS_DEPTH,
            f"only {used.sum()} of {len(used)} views agree on where the target is; they see different things "
            "or a transform is wrong; look again from one more place",
        )
    position, cov = _joined(positions[used], covs[used])
    degrees_of_freedom = 3 * int(used.sum()) - 3
    off2 = float(_distances2(positions[used], covs[used], position).sum())
    disagreement = off2 / degrees_of_freedom if degrees_of_freedom else 0.0
    if shared_cov_m2 is not None:
        shared = np.asarray(shared_cov_m2, dtype=float)
        _check_covariance("shared_cov_m2", shared)
        cov = cov + shared
    return Fused(position, cov, tuple(bool(each) for each in used), disagreement)


def _largest_agreement(positions_N3: np.ndarray, covs_N33: np.ndarray, gate: float) -> np.ndarray:
    """Mask (N,) of the largest set whose members each agree with the joint estimate of the others.

    Each observation proposes those that agree with it; of these the worst is dropped until all agree. Of
    equally large sets the surest is taken.
    """
    best: tuple[int, float] = (0, 0.0)
    chosen = np.zeros(len(positions_N3), bool)
    for position, cov in zip(positions_N3, covs_N33, strict=True):
        members = _distances2(positions_N3, covs_N33 + cov, position) < gate
        while members.any():
            off = _from_the_others(positions_N3, covs_N33, members)
            worst = int(np.where(members, off, -1.0).argmax())
            if off[worst] < gate:
                break
            members[worst] = False
        joining = _from_the_others(positions_N3, covs_N33, members) < gate
        members |= joining & (2 * members.sum() > len(members))
        _, joint_cov = _joined(positions_N3[members], covs_N33[members])
        rank = int(members.sum()), -float(np.trace(joint_cov))
        if not chosen.any() or rank > best:
            best, chosen = rank, members
    return chosen


def _from_the_others(positions_N3: np.ndarray, covs_N33: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distance (N,) of each observation from the joint estimate of the other members."""
    informations = np.linalg.inv(covs_N33)
    weighted = np.einsum("nij,nj->ni", informations, positions_N3)
    of_members = np.where(members[:, None, None], informations, 0.0)
    others = of_members.sum(axis=0) - of_members
    told = np.where(members[:, None], weighted, 0.0)
    told = told.sum(axis=0) - told
    alone = ~(members.sum() - members > 0)
    cov = np.linalg.inv(np.where(alone[:, None, None], np.eye(3), others))
    off = positions_N3 - np.einsum("nij,nj->ni", cov, told)
    distances = np.einsum("ni,ni->n", off, np.linalg.solve(covs_N33 + cov, off[..., None])[..., 0])
    return np.where(alone, 0.0, distances)


def _joined(positions_N3: np.ndarray, covs_N33: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    informations = np.linalg.inv(covs_N33)
    cov = np.linalg.inv(informations.sum(axis=0))
    position = cov @ np.einsum("nij,nj->i", informations, positions_N3)
    return position, (cov + cov.T) / 2


def _distances2(positions_N3: np.ndarray, covs_N33: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distances (N,)."""
    off = positions_N3 - position
    distances: np.ndarray = np.einsum("ni,ni->n", off, np.linalg.solve(covs_N33, off[..., None])[..., 0])
    return distances


def _check_covariance(name: str, cov: np.ndarray) -> None:
    if cov.shape != (3, 3) or not np.isfinite(cov).all():
        raise _bad(f"{name} is not a finite 3x3 matrix")
    scale = float(np.abs(cov).max())
    if np.abs(cov - cov.T).max() > 1e-6 * scale or np.linalg.eigvalsh(cov)[0] < -1e-9 * scale:
        raise _bad(f"{name} is not a covariance: it must be symmetric and have no negative eigenvalue")


def _bad(message: str) -> PointingError:
    return PointingError(Code.INVALID_REQUEST, f"observations: {message}")
