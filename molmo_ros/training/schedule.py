"""What a training does, step by step: the lessons of a configuration and how each goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from molmo_ros.training.batches import SHORT_SHARE

LESSONS = ("close_ups", "pictures", "words")

#: Of matrix products while learning; weights and everything else are float32.
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Lesson:
    """One part of the training: what is taught, for how long, and how the learning rate goes.

    `name`: "close_ups" (windows around single things, for the ViT), "pictures" (the whole image side), or
    "words" (everything, questions and answers included). The ViT, most of the work, learns in every
    `vit_every`-th step. `absent_share`: questions for things that are not there. `seed`: of the pictures' order
    and the questions. `short_share`: batches whose answers end after the first point.
    `close_ups_beside`: pictures whose things are shown as close-ups in each step with words, too.
    """

    name: str
    steps: int
    pictures_per_step: int
    peak_learning_rate: float
    warmup_steps: int
    decay_steps: int
    vit_every: int = 1
    absent_share: float = 0.25
    seed: int = 0
    short_share: float = SHORT_SHARE
    close_ups_beside: int = 0

    def __post_init__(self) -> None:
        if self.name not in LESSONS:
            raise ValueError(f"no lesson is called {self.name!r}; there are {', '.join(LESSONS)}")

    def learning_rate(self, step: int) -> float:
        """Warm up, hold, then fall linearly to a fiftieth in the last `decay_steps`."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        fall = min(1.0, max(0.02, (self.steps - step) / self.decay_steps))
        return self.peak_learning_rate * warm * fall


@dataclass(frozen=True)
class Schedule:
    """Everything about the steps; see config/training/first.yaml for the meaning of each."""

    seed: int
    lessons: tuple[Lesson, ...]
    questions_per_picture: int
    weight_decay: float
    gradient_clip: float
    average_decay: float
    patch_loss_weight: float
    token_loss_weight: float
    asked_loss_weight: float
    gaze_loss_weight: float
    save_every_steps: int
    validate_every_steps: int
    threads: int
    precision: str = "float32"
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} is not one of {', '.join(PRECISIONS)}")

    @property
    def steps(self) -> int:
        return sum(lesson.steps for lesson in self.lessons)

    def lesson_at(self, step: int) -> tuple[Lesson, int]:
        """The lesson of a step of the whole training, and the step's number in it."""
        for lesson in self.lessons:
            if step < lesson.steps:
                return lesson, step
            step -= lesson.steps
        raise ValueError(f"the training has {self.steps} steps")


def read_config(path: Path) -> tuple[dict[str, Any], Schedule]:
    config = yaml.safe_load(path.read_text())
    settings = dict(config["training"])
    lessons = tuple(Lesson(**lesson) for lesson in settings.pop("lessons"))
    return config, Schedule(lessons=lessons, **settings)
