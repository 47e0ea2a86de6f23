"""Judge pointing models on fresh simulated tables or on a data set, through the code that answers on a robot.

    python -m molmo_ros.training.evaluate --scenes 300
    python -m molmo_ros.training.evaluate --scenes 1000 --quantization none int8 int4
    python -m molmo_ros.training.evaluate --data sets/tabletop --model tabletop runs/mine/checkpoint --worst worst.png

Each simulated scene is asked for two things that are there (the only ones of their words) and one that is not. A
hit is a point inside the thing's visible mask; an absent thing is right when the model says there are none. What
is asked of a data set, and how it is judged: docs/datasets.md.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from molmo_ros.molmo.loading import CheckpointError
from molmo_ros.molmo.quantization import QUANTIZATIONS
from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing import bundled_model_folder
from molmo_ros.pointing.confidence import NEAR_PERCENT
from molmo_ros.pointing.formats import AUTO
from molmo_ros.pointing.loading import load_pointer
from molmo_ros.pointing.protocol import Pointer
from molmo_ros.sim.tabletop import TabletopScene
from molmo_ros.sim.truth import ObjectTruth, scene_truth
from molmo_ros.sim.worlds import DEFAULT_WORLD
from molmo_ros.training.confidence_figures import ConfidenceFigures, confidence_figures
from molmo_ros.training.confidence_plot import reliability_svg
from molmo_ros.training.dataset import DatasetError, read_dataset
from molmo_ros.training.evaluate_data import (
    compared,
    confidence_of,
    evaluate_data,
    figures,
    goals_for,
    missed,
    table_of,
)
from molmo_ros.training.questions import Thing, ask_absent
from molmo_ros.training.scenes import LEAST_VISIBLE_SHARE, TEST_SEEDS
from molmo_ros.training.worst_cases import contact_sheet

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
        named = state.named
        words = Counter(thing.label for thing in named)
        unique = [truth for truth in seen if words[truth.label] == 1]
        chosen = [unique[index] for index in rng.permutation(len(unique))[:2]]
        things = [Thing(thing.colour, thing.kind, 0.0, 0.0) for thing in named]
        absent = ask_absent(things, DEFAULT_WORLD.colours, DEFAULT_WORLD.kinds, rng).label
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
            Row(
                f"right answers lost, of {len(asked)}",
                weights,
                lost,
                LOST_GOALS.get(weights.split()[-1]),
                "at most",
            )
        )
    return rows + [Row(f"hit, {kind}", weights, share) for kind, share in by_kind(asked).items()]


def _share(flags: object) -> float:
    values = list(flags)  # type: ignore[call-overload]
    return sum(values) / max(len(values), 1)


def by_kind(asked: list[Asked]) -> dict[str, float]:
    return {
        k: _share(a.right for a in asked if a.present and a.label.endswith(k)) for k in DEFAULT_WORLD.kinds
    }


def parser() -> argparse.ArgumentParser:
    """Options of both kinds of evaluation."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--model", type=model_folder, nargs="+", default=[bundled_model_folder()], metavar="DIR|NAME",
        help="checkpoint folders, or names of bundled ones; several are asked the same questions",
    )  # fmt: skip
    options.add_argument("--data", type=Path, metavar="SET", help="a data set instead of simulated tables")
    options.add_argument(
        "--skip-bad", action="store_true", help="leave out and count bad lines of the data set"
    )
    options.add_argument(
        "--worst", type=Path, metavar="PNG", help="with --data: draw the surest wrong answers"
    )
    options.add_argument("--scenes", type=int, default=300)
    options.add_argument(
        "--first-seed", type=int, default=TEST_SEEDS.start, help="scenes never seen in training"
    )
    options.add_argument("--json", type=Path, help="write every question and the summary here")
    options.add_argument(
        "--quantization", nargs="+", default=["none"], choices=QUANTIZATIONS, metavar="BITS",
        help=f"weights of the language model: {', '.join(QUANTIZATIONS)}; several are asked the same questions",
    )  # fmt: skip
    options.add_argument(
        "--point-format", nargs="+", default=[AUTO], metavar="NAME",
        help="how the models point (docs/models.md): one for all or one for each (default: auto, for Molmo, Molmo2)",
    )  # fmt: skip
    options.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    options.add_argument(
        "--plot", type=Path, metavar="SVG",
        help="draw how often confidences come true; of several models on a data set in SVG files of their own",
    )  # fmt: skip
    options.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    return options


def model_folder(name: str) -> Path:
    """A checkpoint folder as it is given, or that of the bundled model of this name."""
    bundled = bundled_model_folder().parent / name
    return bundled if bundled.is_dir() and not Path(name).is_dir() else Path(name)


def pointers_of(
    models: Sequence[Path],
    quantizations: Sequence[str],
    formats: Sequence[str] = (AUTO,),
    device: str = "auto",
) -> dict[str, Pointer]:
    """Every model with every size of weights, by what tells them apart: the weights, the model, or both.

    Raises:
        CheckpointError: a model that cannot be loaded, or not one format for all or for each.
    """
    if len(formats) not in (1, len(models)):
        raise CheckpointError(
            f"{len(formats)} point formats for {len(models)} models; give one for all or one for each"
        )
    pointers: dict[str, Pointer] = {}
    for number, folder in enumerate(models, 1):
        spoken = formats[0] if len(formats) == 1 else formats[number - 1]
        for weights in quantizations:
            name = (
                weights
                if len(models) == 1
                else folder.name
                if len(quantizations) == 1
                else f"{folder.name} {weights}"
            )
            pointers[name if name not in pointers else f"{number}: {name}"] = load_pointer(
                folder, device, quantization=weights, format_name=spoken
            )
    return pointers


def main() -> int:
    options = parser()
    chosen = options.parse_args()
    try:
        return on_data(chosen) if chosen.data else on_tables(chosen, options)
    except CheckpointError as error:
        Console(stderr=True).print(str(error), markup=False)
        return 1


def on_tables(chosen: argparse.Namespace, options: argparse.ArgumentParser) -> int:
    """The models on fresh simulated tables."""
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.scenes)
    if seeds.start < TEST_SEEDS.start or seeds.stop > TEST_SEEDS.stop:
        options.error(
            f"test scenes have seeds {TEST_SEEDS.start} to {TEST_SEEDS.stop - 1}; others were trained on"
        )
    pointers = pointers_of(chosen.model, chosen.quantization, chosen.point_format, chosen.device)
    asked = dict(zip(pointers, evaluate(list(pointers.values()), seeds), strict=True))
    first = next(iter(asked.values()))
    rows = [row for name in asked for row in rows_of(name, first, asked[name])]
    models = ", ".join(folder.name for folder in chosen.model)
    table = Table("figure", "weights", "measured", "goal", "met", title=f"{models}, {len(seeds)} scenes")
    for row in rows:
        goal = "" if row.goal is None else f"{row.side} {row.goal:.2f}"
        table.add_row(
            row.name, row.weights, f"{row.value:.3f}", goal, {None: "", True: "yes", False: "NO"}[row.met]
        )
    Console().print(table)
    if chosen.json:
        written = {
            name: {"summary": summary(answers), "asked": [asdict(a) for a in answers]}
            for name, answers in asked.items()
        }
        chosen.json.write_text(json.dumps(written, indent=1))
    if chosen.plot:
        title = f"{chosen.model[0].name}: {len(first)} questions about unseen tables"
        chosen.plot.write_text(reliability_svg(figures_of_confidence(first).bins, title))
    return 1 if chosen.check and any(row.met is False for row in rows) else 0


def plot_of(path: Path, model: str) -> Path:
    """`plot.svg` of the model "2: mine" is `plot.2_mine.svg`."""
    words = re.sub(r"[^\w.-]+", "_", model)
    return path.with_name(f"{path.stem}.{words}{path.suffix}")


def on_data(chosen: argparse.Namespace) -> int:
    """The models on a data set; exit code 1 for a bad line without `--skip-bad`, too."""
    console = Console()
    try:
        dataset = read_dataset(chosen.data, skip_bad=chosen.skip_bad)
        answers, unreadable = evaluate_data(
            pointers_of(chosen.model, chosen.quantization, chosen.point_format, chosen.device),
            dataset,
            skip_bad=chosen.skip_bad,
        )
    except DatasetError as error:
        console.print(f"{error}\n--skip-bad leaves such lines out and counts them", markup=False)
        return 1
    skipped = [*dataset.skipped, *unreadable]
    for left_out in skipped:
        console.print(f"left out: {left_out}", markup=False)
    console.print(table_of(answers, dataset))
    pairs = compared(answers)
    for pair in pairs:
        console.print(
            f"right: both {pair.both}, only {pair.first} {pair.only_first}, only {pair.second} "
            f"{pair.only_second}, neither {pair.neither}", markup=False
        )  # fmt: skip
    if skipped:
        console.print(f"{len(skipped)} questions left out")
    found = {name: figures(of_model) for name, of_model in answers.items()}
    if chosen.json:
        written = {
            name: {
                "figures": {figure: value for figure, (value, _) in found[name].items()},
                "questions": {figure: count for figure, (_, count) in found[name].items()},
                "asked": [answered.as_json() for answered in of_model],
            }
            for name, of_model in answers.items()
        }
        about = {
            "data": dataset.name,
            "left_out": [str(line) for line in skipped],
            "compared": [asdict(pair) for pair in pairs],
        }
        chosen.json.write_text(json.dumps(about | {"models": written}, indent=1))
    if chosen.plot:
        for name, of_model in answers.items():
            rated = confidence_of(of_model)
            path = chosen.plot if len(answers) == 1 else plot_of(chosen.plot, name)
            if rated:
                path.write_text(reliability_svg(rated.bins, f"{name}: {dataset.name}"))
            else:
                console.print(f"no answer of {name} has a confidence: {path} is not written", markup=False)
    if chosen.worst:
        sheet = contact_sheet(answers)
        if sheet is not None:
            Image.fromarray(sheet).save(chosen.worst)
        else:
            console.print(f"every answer is right: {chosen.worst} is not written", markup=False)
    goals = goals_for(dataset)
    return 1 if chosen.check and any(missed(of_model, goals) for of_model in found.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
