"""Questions of a data set as exercises: what to ask, and the answer in Molmo's words.

A question may come with its own wording and answer; besides, it is asked as the pointing node asks. Where only
masks are known, a point on each is made: where a person would point, or for a region its innermost place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from molmo_ros.outcome import PointingError
from molmo_ros.pointing.prompts import clean_target, label_of, pointing_prompt
from molmo_ros.training.dataset import Dataset, DatasetError, Sample, problems
from molmo_ros.training.questions import counting_answer, points_answer
from molmo_ros.training.scenes import aim_point

Points = Sequence[tuple[float, float]]
SayPoints = Callable[[Points, str], str]

#: How else a target is asked for; what the node says comes first and half the time.
WORDINGS = (
    "Point to {target}.",
    "Where is {target}?",
    "Find {target}.",
    "Show me {target}.",
    "pointing: {label}",
)

#: How often a question's own wording is used, where it has one.
OWN_SHARE = 0.5

_NUMBERS = re.compile(r"\d+(?:\.\d+)?")
_SIDES = re.compile(r"\b(left|right|clockwise|counterclockwise)", re.IGNORECASE)


@dataclass(frozen=True)
class Exercise:
    """One question of a picture. `points`: in percent, those of the answer. `own`: the question's own wording and
    answer; `say_own` puts points into that answer, None if it can only be said as it stands."""

    sample: Sample
    target: str
    label: str
    points: tuple[tuple[float, float], ...]
    own: tuple[str, str] | None = None
    say_own: SayPoints | None = None

    @property
    def can_be_mirrored(self) -> bool:
        """Whether it stays true in a mirror."""
        words = [self.target, self.label, *(self.own or ())]
        return not any(_SIDES.search(text) for text in words) and (
            self.own is None or self.say_own is not None
        )

    def worded(self, rng: np.random.Generator, mirrored: bool = False) -> tuple[str, str]:
        """A question and its answer, answer's leading space included."""
        points = [(100.0 - x, y) for x, y in self.points] if mirrored else list(self.points)
        if self.own is not None and rng.random() < OWN_SHARE:
            question, answer = self.own
            return question, self.say_own(points, self.label) if self.say_own else answer
        if rng.random() < 0.5:
            question = pointing_prompt(self.target)
        else:
            wording = WORDINGS[int(rng.integers(len(WORDINGS)))]
            question = wording.format(target=self.target, label=self.label)
        return question, points_answer(points, self.label)


def exercises_of(dataset: Dataset, *, skip_bad: bool = False) -> tuple[list[Exercise], list[DatasetError]]:
    """All questions that can be learnt from, and those that cannot, with the reason; every file is read once.

    Raises:
        DatasetError: a picture or mask that cannot be read, or a question that cannot be learnt from (without
            `skip_bad`); nothing is left.
    """
    bad: dict[int, DatasetError] = {}
    for error in problems(dataset):
        if not skip_bad:
            raise error
        bad.setdefault(error.line, error)
    broken = {sample.image for sample in dataset.samples if sample.line in bad and _is_unreadable(sample)}
    exercises = []
    for sample in dataset.samples:
        if sample.line in bad:
            continue
        try:
            if sample.image in broken:
                raise sample.error(f"{sample.image} cannot be read as a picture")
            exercises.append(exercise_of(sample))
        except DatasetError as error:
            if not skip_bad:
                raise
            bad[sample.line] = error
    if not exercises:
        raise DatasetError(dataset.folder, 0, f"holds nothing to learn from ({len(bad)} questions left out)")
    return exercises, [bad[line] for line in sorted(bad)]


def _is_unreadable(sample: Sample) -> bool:
    try:
        sample.read_image()
    except DatasetError:
        return True
    return False


def exercise_of(sample: Sample) -> Exercise:
    """Raises DatasetError: nothing says where the answer's points are, or the target has no words."""
    try:
        target = clean_target(sample.target)
    except PointingError as error:
        raise sample.error(error.outcome.message) from error
    label = sample.label or label_of(target)
    points = _points_of(sample)
    own = (sample.question, sample.answer) if sample.question and sample.answer else None
    return Exercise(
        sample, target, label, points, own, _way_of_saying(sample.answer, points, label) if own else None
    )


def _points_of(sample: Sample) -> tuple[tuple[float, float], ...]:
    if sample.task == "absent":
        return ()
    if sample.points is not None and (sample.task != "region" or sample.points):
        return sample.points
    if not sample.masks:
        raise sample.error("only the number of things is known, not where they are: nothing to learn from")
    if sample.task == "count" and sample.count not in (None, len(sample.masks)):
        raise sample.error("one mask for several things says not where each is: nothing to learn from")
    height, width = sample.read_image().shape[:2]
    masks = sample.read_masks((width, height))
    if not all(mask.any() for mask in masks):
        raise sample.error("a mask is empty: nothing to learn from")
    if sample.task == "region":
        masks = [np.any(masks, axis=0)]
    find = innermost if sample.task == "region" else aim_point
    return tuple((100 * u / width, 100 * v / height) for u, v in map(find, masks))


def innermost(mask_HW: np.ndarray) -> tuple[float, float]:
    """(u, v) of the pixel of a region that is farthest from its border."""
    padded = np.pad(mask_HW.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    v, u = np.unravel_index(int(distance.argmax()), distance.shape)
    return float(u), float(v)


def _way_of_saying(answer: str | None, points: Points, label: str) -> SayPoints | None:
    """How this answer was made from its points, if it is one of our own ways."""
    ways: Iterable[SayPoints] = (points_answer, counting_answer)
    for say in ways:
        # Points in a data set are rounded, so that the answer's last digits may differ.
        if answer is not None and _NUMBERS.sub("#", say(points, label)) == _NUMBERS.sub("#", answer):
            return say
    return None
