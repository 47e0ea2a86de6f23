"""Fit the confidence of a model on pictures that it was not trained on, and store it beside the weights.

    python -m molmo_ros.training.calibrate_confidence --model molmo_ros/models/tabletop --data sets/validation

Asks all questions of a data set (docs/datasets.md), which should be like those that will be asked, and fits the two
logistic curves of `pointing.calibration` to what came true (Platt 1999).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from molmo_ros.pointing import bundled_model_folder
from molmo_ros.pointing.calibration import Calibration, absence_features, point_features
from molmo_ros.pointing.pointer import LocalPointer
from molmo_ros.training.dataset import DatasetError, read_dataset
from molmo_ros.training.evaluate_data import Answered, confidence_of, evaluate_data

#: Holds the curves near the raw numbers where there are few answers.
_PENALTY = 1e-3


def fit(answers: Sequence[Answered]) -> Calibration:
    """The curves that make the raw confidences of these answers come true most nearly."""
    rated = [a for a in answers if not math.isnan(a.confidence)]
    points, absences = [a for a in rated if not a.absent], [a for a in rated if a.absent]
    same = Calibration()
    of_points = _logistic_fit(
        [point_features(a.confidence, a.sigma_share) for a in points],
        [a.score.came_true for a in points],
        same.point,
    )
    of_absences = _logistic_fit(
        [absence_features(a.confidence) for a in absences],
        [a.score.came_true for a in absences],
        same.absence,
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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, default=bundled_model_folder(), help="checkpoint folder, written to"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the questions")
    chosen = parser.parse_args(arguments)
    loaded = LocalPointer.from_folder(chosen.model)
    raw = LocalPointer(loaded.model, loaded.processor)
    try:
        answers = evaluate_data({"raw": raw}, read_dataset(chosen.data))[0]["raw"]
    except DatasetError as error:
        print(error)
        return 1
    before = confidence_of(answers)
    if before is None:
        print(f"none of the {len(answers)} answers has a confidence; nothing is stored")
        return 1
    calibration = fit(answers)
    calibration.save(chosen.model)
    print(
        f"{len(answers)} answers, raw: calibration error {before.calibration_error:.3f}, AUROC {before.auroc:.3f}"
    )
    print(f"stored in {chosen.model}: {calibration}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
