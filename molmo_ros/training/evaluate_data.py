"""Ask models every question of a data set, and sum up what came of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.progress import track
from rich.table import Table

from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing.pointer import LocalPointer
from molmo_ros.pointing.protocol import Pointer, Pointing
from molmo_ros.training.confidence_figures import ConfidenceFigures, confidence_figures
from molmo_ros.training.dataset import Dataset, DatasetError, Sample
from molmo_ros.training.metrics import Score, score
from molmo_ros.training.relations import RELATIONS

#: Goals for the bundled model on 1000 tables of its own world, and whether to reach or not to pass them.
TABLETOP_GOALS: dict[str, tuple[float, str]] = {
    "one target, hit": (0.95, "at least"),
    "absent, recognised": (0.95, "at least"),
    "present, called absent": (0.03, "at most"),
    "set, F1": (0.90, "at least"),
    "set, exactly right": (0.70, "at least"),
    "region, all points inside": (0.90, "at least"),
    "one target, median miss in % of the width": (1.2, "at most"),
    **{f"hit, {relation}": (0.70, "at least") for relation in RELATIONS},
    "calibration error": (0.05, "at most"),
    "AUROC of the confidence": (0.80, "at least"),
}

#: Failures that belong to an answer; others end the evaluation.
_OF_THE_ANSWER = (Code.UNPARSEABLE, Code.TARGET_TOO_LONG, Code.EMPTY_TARGET)


@dataclass(frozen=True)
class Answered:
    """One question and what a model answered: `points_uv` in pixels, its `score`, the confidence of the first
    point or of the absence (NaN where there is none), the first point's spread over the picture's width, `outcome`
    of an answer that could not be read, else ""."""

    sample: Sample
    points_uv: tuple[tuple[float, float], ...]
    absent: bool
    confidence: float
    score: Score
    outcome: str = ""
    sigma_share: float = float("nan")

    def as_json(self) -> dict[str, Any]:
        """For a file: with None for what is no number."""
        sample = self.sample
        row = {"line": sample.line, "image": sample.image, "target": sample.target, "task": sample.task}
        scored = asdict(self.score) | {"f1": self.score.f1}
        row |= {
            "tag": sample.tag,
            "points_uv": self.points_uv,
            "absent": self.absent,
            "outcome": self.outcome,
        }
        numbers = {"confidence": self.confidence, **scored}
        return row | {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in numbers.items()
        }


def evaluate_data(
    pointers: Mapping[str, Pointer], dataset: Dataset, *, skip_bad: bool = False
) -> tuple[dict[str, list[Answered]], list[DatasetError]]:
    """Ask each pointer every question; with `skip_bad`, questions whose files are broken are left out and listed.

    Raises:
        DatasetError: a picture or mask that cannot be read (without `skip_bad`).
        PointingError: a failure of the machine, such as OUT_OF_MEMORY.
    """
    answers: dict[str, list[Answered]] = {name: [] for name in pointers}
    skipped: list[DatasetError] = []
    for samples in _by_image(track(dataset.samples, description="asking", transient=True)):
        try:
            image = samples[0].read_image()
        except DatasetError as error:
            if not skip_bad:
                raise
            skipped += [sample.error(error.message) for sample in samples]
            continue
        size = (image.shape[1], image.shape[0])
        usable = []
        for sample in samples:
            try:
                usable.append((sample, sample.read_masks(size)))
            except DatasetError as error:
                if not skip_bad:
                    raise
                skipped.append(error)
        for name, pointer in pointers.items():
            asker = Asker(pointer, image)
            answers[name] += [answer(asker, sample, masks, size) for sample, masks in usable]
    return answers, skipped


def _by_image(samples: Any) -> Iterator[list[Sample]]:
    """Questions about the same picture that follow each other, so that it is read and seen once."""
    group: list[Sample] = []
    for sample in samples:
        if group and sample.image != group[0].image:
            yield group
            group = []
        group.append(sample)
    if group:
        yield group


class Asker:
    """Asks about one picture; a model that can look once and answer often looks once."""

    def __init__(self, pointer: Pointer, image_HW3: np.ndarray) -> None:
        self._pointer, self._image = pointer, image_HW3
        self._look = pointer.look(image_HW3) if isinstance(pointer, LocalPointer) else None

    def point(self, target: str) -> Pointing:
        """See `Pointer.point`."""
        if self._look is not None and isinstance(self._pointer, LocalPointer):
            return self._pointer.point_in(self._look, target)
        return self._pointer.point(self._image, target)


def answer(asker: Asker, sample: Sample, masks: Sequence[np.ndarray], size: tuple[int, int]) -> Answered:
    """One question."""
    try:
        pointing = asker.point(sample.target)
    except PointingError as error:
        if error.outcome.code not in _OF_THE_ANSWER:
            raise
        nothing = Score(False, 0.0, 0.0, False)
        return Answered(sample, (), False, float("nan"), nothing, error.outcome.code.name)
    points = tuple((point.u, point.v) for point in pointing.points)
    confidence = pointing.absence if pointing.absent else pointing.points[0].confidence
    sigma_share = float("nan") if pointing.absent else pointing.points[0].sigma_px / size[0]
    scored = score(sample, points, masks, size)
    return Answered(sample, points, pointing.absent, confidence, scored, sigma_share=sigma_share)


def figures(answers: Sequence[Answered]) -> dict[str, tuple[float, int]]:
    """Named figures with the number of questions behind each; those without a question are left out."""

    def of(*tasks: str) -> list[Answered]:
        return [a for a in answers if a.sample.task in tasks]

    single, sets, counts, absent, region = (of(t) for t in ("point", "set", "count", "absent", "region"))
    present = of("point", "set", "count", "region")
    plain = [a for a in single if a.sample.tag not in RELATIONS]
    counted = [a for a in counts if not math.isnan(a.score.precision)]
    misses = [a.score.miss_share for a in plain if not math.isnan(a.score.miss_share)]
    found: dict[str, tuple[float, int]] = {
        "one target, hit": _mean([a.score.right for a in plain]),
        "one target, median miss in % of the width": (_median(misses) * 100, len(misses)),
        "set, precision": _mean([a.score.precision for a in sets]),
        "set, recall": _mean([a.score.recall for a in sets]),
        "set, F1": _mean([a.score.f1 for a in sets]),
        "set, exactly right": _mean([a.score.right for a in sets]),
        "count, right": _mean([a.score.right for a in counts]),
        "count, at most one off": _mean([abs(len(a.points_uv) - _true_count(a.sample)) <= 1 for a in counts]),
        "count, F1": _mean([a.score.f1 for a in counted]),
        "absent, recognised": _mean([a.score.right for a in absent]),
        "present, called absent": _mean([a.absent for a in present]),
        "region, all points inside": _mean([a.score.right for a in region]),
        "region, share of points inside": _mean([a.score.precision for a in region]),
        "all, F1": _mean([a.score.f1 for a in answers if not math.isnan(a.score.precision)]),
        "answers that could not be read": _mean([bool(a.outcome) for a in answers]),
    }
    tags = sorted({a.sample.tag for a in (*single, *sets) if a.sample.tag})
    for tag in tags:
        found[f"hit, {tag}"] = _mean([a.score.right for a in (*single, *sets) if a.sample.tag == tag])
    rated = confidence_of(answers)
    if rated is not None:
        count = sum(b.count for b in rated.bins)
        found["calibration error"] = (rated.calibration_error, count)
        found["AUROC of the confidence"] = (rated.auroc, count)
    return {name: figure for name, figure in found.items() if figure[1]}


def confidence_of(answers: Sequence[Answered]) -> ConfidenceFigures | None:
    """Over all answers that have a confidence; None if none has."""
    rated = [a for a in answers if not math.isnan(a.confidence)]
    if not rated:
        return None
    return confidence_figures(
        np.asarray([a.confidence for a in rated]), np.asarray([a.score.came_true for a in rated], bool)
    )


def _true_count(sample: Sample) -> int:
    return sample.count if sample.count is not None else len(sample.points or sample.masks)


def _mean(values: Sequence[float]) -> tuple[float, int]:
    return (float(np.mean(values)), len(values)) if values else (float("nan"), 0)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else float("nan")


@dataclass(frozen=True)
class Comparison:
    """Two models on the same questions: how many only the first and only the second answered rightly."""

    first: str
    second: str
    only_first: int
    only_second: int
    both: int
    neither: int


def compared(answers: Mapping[str, Sequence[Answered]]) -> list[Comparison]:
    """The first model with each other one."""
    (first, ours), *others = answers.items()
    result = []
    for name, theirs in others:
        pairs = [(a.score.right, b.score.right) for a, b in zip(ours, theirs, strict=True)]
        split = [pairs.count(pair) for pair in ((True, False), (False, True), (True, True), (False, False))]
        result.append(Comparison(first, name, *split))
    return result


def goals_for(dataset: Dataset) -> Mapping[str, tuple[float, str]]:
    """What the bundled model is to reach; other people's sets have no goals here."""
    return TABLETOP_GOALS if dataset.about.get("source") == "molmo_ros.sim" else {}


def missed(found: Mapping[str, tuple[float, int]], goals: Mapping[str, tuple[float, str]]) -> list[str]:
    """Names of the goals that are not met; what could not be measured is none of them."""
    return [name for name, goal in goals.items() if name in found and not _met(found[name][0], goal)]


def _met(value: float, goal: tuple[float, str]) -> bool:
    return value >= goal[0] if goal[1] == "at least" else value <= goal[0]


def table_of(answers: Mapping[str, Sequence[Answered]], dataset: Dataset) -> Table:
    """One row a figure, one column a model."""
    goals = goals_for(dataset)
    of_models = {name: figures(of_model) for name, of_model in answers.items()}
    table = Table("figure", "questions", *answers, *(["goal"] if goals else []), title=dataset.name)
    for name, (_, count) in next(iter(of_models.values())).items():
        cells = []
        for found in of_models.values():
            value = found.get(name, (float("nan"), 0))[0]
            flag = " NO" if name in goals and not _met(value, goals[name]) else ""
            cells.append(f"{value:.3f}{flag}")
        goal = [f"{goals[name][1]} {goals[name][0]:g}" if name in goals else ""] if goals else []
        table.add_row(name, str(count), *cells, *goal)
    return table
