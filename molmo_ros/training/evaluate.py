"""Judge a pointing model on fresh simulated tables, through the same code that answers on a robot.

    python -m molmo_ros.training.evaluate --scenes 300

Each scene is asked for two things that are there (the only ones of their words) and one that is not. A hit is
a point inside the thing's visible mask; an absent thing is right when the model says there are none.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from molmo_ros.molmo.quantization import QUANTIZATIONS
from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing import bundled_model_folder
from molmo_ros.pointing.confidence import NEAR_PERCENT
from molmo_ros.pointing.pointer import LocalPointer, Pointer
from molmo_ros.sim.colours import COLOUR_NAMES
from molmo_ros.sim.objects import KINDS
from molmo_ros.sim.tabletop import TabletopScene
from molmo_ros.sim.truth import ObjectTruth, scene_truth
from molmo_ros.training.confidence_figures import ConfidenceFigures, confidence_figures
from molmo_ros.training.questions import Thing, ask_absent
from molmo_ros.training.scenes import LEAST_VISIBLE_SHARE, TEST_SEEDS

#: Goals, and whether a figure is to reach or not to pass its own.
GOALS = {
    "present_hit": (0.80, "at least"),
    "absent_right": (0.90, "at least"),
    "calibration_error": (0.05, "at most"),
    "auroc": (0.80, "at least"),
    "misses_in_surer_half": (1 / 3, "at most"),
}

#: Samples a pixel, as the simulator node draws its pictures by default.
ANTIALIASING = 4


@dataclass(frozen=True)
class Asked:
    """One question and what came of it.

    `right`: exactly one point, inside the thing's visible mask; or "There are none" where there is none.
    `confidence`: of the first point, or of the absence; `came_true`: what it claims, that the thing is there and
    the point inside its mask or within 3 % of the image's width of its middle, or that it is not there.
    `sigma_share`: the point's spread over the image's width; `miss_px`: pixels from the point to the mask's
    middle. NaN where there is no point, or no answer that could be read.
    """

    seed: int
    label: str
    present: bool
    right: bool
    said_absent: bool
    confidence: float
    came_true: bool
    sigma_share: float
    miss_px: float


def evaluate(pointer: Pointer, seeds: range, render_size: tuple[int, int] = (640, 480)) -> list[Asked]:
    """Ask three questions about each scene of `seeds`, rendered as the demo renders them."""
    tabletop = TabletopScene(render_size, samples=ANTIALIASING)
    asked: list[Asked] = []
    for seed in track(seeds, description="asking", transient=True):
        rng = np.random.default_rng((seed, 11))
        state = tabletop.reset(seed)
        view = tabletop.render(segmentation=True)
        assert view.ids is not None
        seen = scene_truth(state, view.ids, int(LEAST_VISIBLE_SHARE * view.ids.size))
        words = Counter(thing.label for thing in state.objects)
        unique = [truth for truth in seen if words[truth.label] == 1]
        chosen = [unique[index] for index in rng.permutation(len(unique))[:2]]
        asked += [ask(pointer, view.color, truth.label, truth, seed) for truth in chosen]
        things = [Thing(thing.colour, thing.kind, 0.0, 0.0) for thing in state.objects]
        absent = ask_absent(things, COLOUR_NAMES, KINDS, rng).label
        asked.append(ask(pointer, view.color, absent, None, seed))
    tabletop.close()
    return asked


def ask(pointer: Pointer, image_HW3: np.ndarray, label: str, truth: ObjectTruth | None, seed: int) -> Asked:
    """One question; `truth` is None for what is not there."""
    present, nan = truth is not None, float("nan")
    try:
        pointing = pointer.point(image_HW3, f"the {label}")
    except PointingError as error:
        if error.outcome.code != Code.UNPARSEABLE:
            raise
        return Asked(seed, label, present, False, False, nan, False, nan, nan)
    if pointing.absent:
        return Asked(seed, label, present, not present, True, pointing.absence, not present, nan, nan)
    point, width = pointing.points[0], image_HW3.shape[1]
    sigma_share, miss_px, on_thing, near = point.sigma_px / width, nan, False, False
    if truth is not None:
        miss_px = float(np.hypot(point.u - truth.centroid_uv[0], point.v - truth.centroid_uv[1]))
        on_thing = bool(truth.mask_HW[round(point.v), round(point.u)])
        near = miss_px <= NEAR_PERCENT / 100 * width
    right = on_thing and len(pointing.points) == 1
    return Asked(seed, label, present, right, False, point.confidence, on_thing or near, sigma_share, miss_px)


def summary(asked: list[Asked]) -> dict[str, float]:
    """Shares and medians that the table prints."""
    present = [a for a in asked if a.present]
    absent = [a for a in asked if not a.present]
    misses = [a.miss_px for a in present if not np.isnan(a.miss_px)]
    confidence = figures_of_confidence(asked)
    return {
        "present_asked": len(present),
        "present_hit": _share(a.right for a in present),
        "present_called_absent": _share(a.said_absent for a in present),
        "absent_asked": len(absent),
        "absent_right": _share(a.right for a in absent),
        "median_miss_px": float(np.median(misses)) if misses else float("nan"),
        "calibration_error": confidence.calibration_error,
        "auroc": confidence.auroc,
        "misses_in_surer_half": confidence.misses_in_surer_half,
    }


def figures_of_confidence(asked: list[Asked]) -> ConfidenceFigures:
    """Over all answers that have a confidence."""
    rated = [a for a in asked if not np.isnan(a.confidence)]
    return confidence_figures(
        np.asarray([a.confidence for a in rated]), np.asarray([a.came_true for a in rated], bool)
    )


def meets(name: str, value: float) -> bool:
    """Whether a figure meets its goal; one that could not be measured does not."""
    goal, side = GOALS[name]
    return value >= goal if side == "at least" else value <= goal


def _share(flags: object) -> float:
    values = list(flags)  # type: ignore[call-overload]
    return sum(values) / max(len(values), 1)


def by_kind(asked: list[Asked]) -> dict[str, float]:
    return {k: _share(a.right for a in asked if a.present and a.label.endswith(k)) for k in KINDS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=bundled_model_folder(), help="checkpoint folder")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument(
        "--first-seed", type=int, default=TEST_SEEDS.start, help="scenes never seen in training"
    )
    parser.add_argument("--json", type=Path, help="write every question and the summary here")
    parser.add_argument(
        "--quantization", default="none", choices=QUANTIZATIONS, help="smaller weights of the language model"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.scenes)
    if seeds.start < TEST_SEEDS.start or seeds.stop > TEST_SEEDS.stop:
        parser.error(
            f"test scenes have seeds {TEST_SEEDS.start} to {TEST_SEEDS.stop - 1}; others were trained on"
        )
    asked = evaluate(LocalPointer.from_folder(arguments.model, quantization=arguments.quantization), seeds)
    figures = summary(asked)
    table = Table("figure", "measured", "goal", "met", title=f"{arguments.model.name}, {len(seeds)} scenes")
    for name, value in figures.items():
        shown = f"{value:.3f}" if isinstance(value, float) else str(value)
        if name in GOALS:
            goal, side = GOALS[name]
            table.add_row(name, shown, f"{side} {goal:.2f}", "yes" if meets(name, value) else "no")
        else:
            table.add_row(name, shown, "", "")
    for kind, share in by_kind(asked).items():
        table.add_row(f"hit, {kind}", f"{share:.3f}", "", "")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"summary": figures, "asked": [asdict(a) for a in asked]}, indent=1)
        )
    missed = [name for name in GOALS if not meets(name, figures[name])]
    return 1 if arguments.check and missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
