"""Lessons follow each other; the rate warms up, holds and falls; what is unknown is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from molmo_ros.training.schedule import Lesson, read_config

CONFIG = Path(__file__).parents[2] / "config" / "training" / "tabletop.yaml"


def test_a_step_of_the_training_is_a_step_of_one_lesson() -> None:
    _, schedule = read_config(CONFIG)
    first, second, *_ = schedule.lessons
    assert schedule.lesson_at(0) == (first, 0)
    assert schedule.lesson_at(first.steps - 1) == (first, first.steps - 1)
    assert schedule.lesson_at(first.steps) == (second, 0)
    with pytest.raises(ValueError, match=f"has {schedule.steps} steps"):
        schedule.lesson_at(schedule.steps)


def test_the_rate_warms_up_holds_and_falls_to_a_fiftieth() -> None:
    lesson = Lesson("words", 100, 8, peak_learning_rate=1.0, warmup_steps=10, decay_steps=50)
    assert [lesson.learning_rate(step) for step in (0, 9, 30, 75, 99)] == pytest.approx(
        [0.1, 1, 1, 0.5, 0.02]
    )


def test_unknown_lessons_and_precisions_are_refused_with_the_ones_there_are() -> None:
    _, schedule = read_config(CONFIG)
    with pytest.raises(ValueError, match="close_ups, pictures, words"):
        replace(schedule.lessons[0], name="poems")
    with pytest.raises(ValueError, match="float32, bfloat16"):
        replace(schedule, precision="float8")
