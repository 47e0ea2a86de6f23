"""Fit the confidence of a model on scenes that it was not trained on, and store it beside the weights.

    python -m molmo_ros.training.calibrate_confidence --model molmo_ros/models/tabletop --scenes 1000

Asks the same kinds of questions as `evaluate`, on validation scenes, and fits the two logistic curves of
`pointing.calibration` to what came true (Platt 1999).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from molmo_ros.pointing import bundled_model_folder
from molmo_ros.pointing.calibration import Calibration, absence_features, point_features
from molmo_ros.pointing.pointer import LocalPointer
from molmo_ros.training.evaluate import Asked, evaluate, figures_of_confidence
from molmo_ros.training.scenes import VALIDATION_SEEDS

#: Validation scenes below this one steer the training.
FIRST_SEED = VALIDATION_SEEDS.start + 100_000

#: Holds the curves near the raw numbers where there are few answers.
_PENALTY = 1e-3


def fit(asked: Sequence[Asked]) -> Calibration:
    """The curves that make the raw confidences of these answers come true most nearly."""
    points = [a for a in asked if not a.said_absent and a.confidence == a.confidence]
    absences = [a for a in asked if a.said_absent]
    same = Calibration()
    of_points = _logistic_fit(
        [point_features(a.confidence, a.sigma_share) for a in points],
        [a.came_true for a in points],
        same.point,
    )
    of_absences = _logistic_fit(
        [absence_features(a.confidence) for a in absences], [a.came_true for a in absences], same.absence
    )
    return Calibration(of_points, of_absences)  # type: ignore[arg-type]


def _logistic_fit(
    features: Sequence[tuple[float, ...]], came_true: Sequence[bool], start: tuple[float, ...]
) -> tuple[float, ...]:
    """Weights of least cross-entropy, drawn slightly towards `start`."""
    if not features:
        return start
    x, y = torch.tensor(features, dtype=torch.double), torch.tensor(came_true, dtype=torch.double)
    home = torch.tensor(start, dtype=torch.double)
    weights = home.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = (
            F.binary_cross_entropy_with_logits(x @ weights, y) + _PENALTY * (weights - home).square().sum()
        )
        value.backward()
        return value

    optimiser.step(loss)
    return tuple(weights.tolist())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, default=bundled_model_folder(), help="checkpoint folder, written to"
    )
    parser.add_argument("--scenes", type=int, default=1000)
    arguments = parser.parse_args()
    loaded = LocalPointer.from_folder(arguments.model)
    raw = LocalPointer(loaded.model, loaded.processor)
    (asked,) = evaluate([raw], range(FIRST_SEED, FIRST_SEED + arguments.scenes))
    calibration = fit(asked)
    calibration.save(arguments.model)
    before = figures_of_confidence(asked)
    print(
        f"{len(asked)} answers, raw: calibration error {before.calibration_error:.3f}, AUROC {before.auroc:.3f}"
    )
    print(f"stored in {arguments.model}: {calibration}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
