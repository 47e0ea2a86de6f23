"""From what the tokens say to how often it is true.

A model's own probabilities order its answers well and are off in scale: it is surer than it should be. Two
logistic curves, fitted on scenes it was not trained on and stored beside the weights, put that right (Platt
1999). A model without them keeps its raw numbers.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

FILE_NAME = "confidence.json"

#: Probabilities are kept this far from 0 and 1, where the logarithm of the odds has no end.
_EDGE = 1e-6


@dataclass(frozen=True)
class Calibration:
    """Weights of the two curves, on log odds.

    `point`: constant, log odds of the raw confidence, log of `sigma_px` over the image's width.
    `absence`: constant, log odds of the probability of "There are none."
    """

    point: tuple[float, float, float] = (0.0, 1.0, 0.0)
    absence: tuple[float, float] = (0.0, 1.0)

    def of_point(self, raw: float, sigma_share: float) -> float:
        """Probability that the thing is there and the point on it or within 3 % of the image's width."""
        return _logistic(self.point, point_features(raw, sigma_share))

    def of_absence(self, raw: float) -> float:
        """Probability that the thing is not there."""
        return _logistic(self.absence, absence_features(raw))

    def save(self, folder: Path) -> None:
        (folder / FILE_NAME).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def from_folder(cls, folder: Path) -> Calibration:
        """The curves stored with a checkpoint; those that change nothing if it has none.

        Raises:
            ValueError: the file is there and is not what `save` writes.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            return cls()
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            found = cls(tuple(map(float, stored["point"])), tuple(map(float, stored["absence"])))  # type: ignore[arg-type]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a calibration: {error}; delete it or fit it again") from error
        if (len(found.point), len(found.absence)) != (3, 2) or not all(
            map(math.isfinite, (*found.point, *found.absence))
        ):
            raise ValueError(f"{path} needs three finite numbers for `point` and two for `absence`")
        return found


def point_features(raw: float, sigma_share: float) -> tuple[float, float, float]:
    """What the curve for points looks at; a spread that is not known counts as one hundredth of the width."""
    sigma = sigma_share if math.isfinite(sigma_share) and sigma_share > 0 else 0.01
    return 1.0, _log_odds(raw), math.log(min(max(sigma, 1e-4), 1.0))


def absence_features(raw: float) -> tuple[float, float]:
    return 1.0, _log_odds(raw)


def _log_odds(probability: float) -> float:
    inside = min(max(probability, _EDGE), 1 - _EDGE)
    return math.log(inside / (1 - inside))


def _logistic(weights: tuple[float, ...], features: tuple[float, ...]) -> float:
    return 1 / (1 + math.exp(-sum(w * x for w, x in zip(weights, features, strict=True))))
