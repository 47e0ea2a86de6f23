"""Judge a pointing model on fresh simulated tables, through the same code that answers on a robot.

    python -m molmo_ros.training.evaluate --scenes 300
    python -m molmo_ros.training.evaluate --scenes 1000 --quantization none int8 int4

Each scene is asked for two things that are there (the only ones of their words) and one that is not. A hit is
a point inside the thing's visible mask; an absent thing is right when the model says there are none.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
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
from molmo_ros.pointing.pointer import LocalPointer
from molmo_ros.pointing.protocol import Pointer
from molmo_ros.sim.colours import COLOUR_NAMES
from molmo_ros.sim.objects import KINDS
from molmo_ros.sim.tabletop import TabletopScene
from molmo_ros.sim.truth import ObjectTruth, scene_truth
from molmo_ros.training.confidence_figures import ConfidenceFigures, confidence_figures
from molmo_ros.training.confidence_plot import reliability_svg
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

#: Share of right answers that small weights may cost.
LOST_GOALS = {"int8": 0.01, "int4": 0.03}

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


def evaluate(
    pointers: Sequence[Pointer], seeds: range, render_size: tuple[int, int] = (640, 480)
) -> list[list[Asked]]:
    """Ask each pointer the same three questions about each scene of `seeds`, rendered as the demo renders them."""
    tabletop = TabletopScene(render_size, samples=ANTIALIASING)
    asked: list[list[Asked]] = [[] for _ in pointers]
    for seed in track(seeds, description="asking", transient=True):
        rng = np.random.default_rng((seed, 11))
        state = tabletop.reset(seed)
        view = tabletop.render(segmentation=True)
        assert view.ids is not None
        seen = scene_truth(state, view.ids, int(LEAST_VISIBLE_SHARE * view.ids.size))
        words = Counter(thing.label for thing in state.objects)
        unique = [truth for truth in seen if words[truth.label] == 1]
        chosen = [unique[index] for index in rng.permutation(len(unique))[:2]]
        things = [Thing(thing.colour, thing.kind, 0.0, 0.0) for thing in state.objects]
        absent = ask_absent(things, COLOUR_NAMES, KINDS, rng).label
        for answers, pointer in zip(asked, pointers, strict=True):
            answers += [ask(pointer, view.color, truth.label, truth, seed) for truth in chosen]
            answers.append(ask(pointer, view.color, absent, None, seed))
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


@dataclass(frozen=True)
class Row:
    """One line of the table; a figure that could not be measured does not meet its goal."""

    name: str
    weights: str
    value: float
    goal: float | None = None
    side: str = "at least"

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value >= self.goal if self.side == "at least" else self.value <= self.goal


def rows_of(weights: str, first: list[Asked], asked: list[Asked]) -> list[Row]:
    """The figures of one pointer, and what it loses against the first on the very same questions."""
    rows = [Row(name, weights, value, *GOALS.get(name, (None,))) for name, value in summary(asked).items()]
    if asked is not first:
        lost = _share(a.right for a in first) - _share(a.right for a in asked)
        rows.append(
            Row(f"right answers lost, of {len(asked)}", weights, lost, LOST_GOALS.get(weights), "at most")
        )
    return rows + [Row(f"hit, {kind}", weights, share) for kind, share in by_kind(asked).items()]


def _share(flags: object) -> float:
    values = list(flags)  # type: ignore[call-overload]
    return sum(values) / max(len(values), 1)


def by_kind(asked: list[Asked]) -> dict[str, float]:
    return {k: _share(a.right for a in asked if a.present and a.label.endswith(k)) for k in KINDS}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=bundled_model_folder(), help="checkpoint folder")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument(
        "--first-seed", type=int, default=TEST_SEEDS.start, help="scenes never seen in training"
    )
    parser.add_argument("--json", type=Path, help="write every question and the summary here")
    parser.add_argument(
        "--quantization", nargs="+", default=["none"], choices=QUANTIZATIONS, metavar="BITS",
        help=f"weights of the language model: {', '.join(QUANTIZATIONS)}; several are asked the same questions",
    )  # fmt: skip
    parser.add_argument("--plot", type=Path, metavar="SVG", help="draw how often confidences come true")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.scenes)
    if seeds.start < TEST_SEEDS.start or seeds.stop > TEST_SEEDS.stop:
        parser.error(
            f"test scenes have seeds {TEST_SEEDS.start} to {TEST_SEEDS.stop - 1}; others were trained on"
        )
    pointers = [LocalPointer.from_folder(arguments.model, quantization=q) for q in arguments.quantization]
    asked = dict(zip(arguments.quantization, evaluate(pointers, seeds), strict=True))
    rows = [row for name in asked for row in rows_of(name, asked[arguments.quantization[0]], asked[name])]
    table = Table(
        "figure", "weights", "measured", "goal", "met", title=f"{arguments.model.name}, {len(seeds)} scenes"
    )
    for row in rows:
        goal = "" if row.goal is None else f"{row.side} {row.goal:.2f}"
        table.add_row(
            row.name, row.weights, f"{row.value:.3f}", goal, {None: "", True: "yes", False: "NO"}[row.met]
        )
    Console().print(table)
    if arguments.json:
        written = {
            name: {"summary": summary(answers), "asked": [asdict(a) for a in answers]}
            for name, answers in asked.items()
        }
        arguments.json.write_text(json.dumps(written, indent=1))
    if arguments.plot:
        first = asked[arguments.quantization[0]]
        title = f"{arguments.model.name}: {len(first)} questions about unseen tables"
        arguments.plot.write_text(reliability_svg(figures_of_confidence(first).bins, title))
    return 1 if arguments.check and any(row.met is False for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
