"""Models are asked every question, judged, compared, and nothing broken is passed over in silence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_sets import SIZE, square, write_set

from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing.point import Point2D
from molmo_ros.pointing.protocol import ModelDurations, Pointing
from molmo_ros.training.dataset import Dataset, DatasetError, read_dataset
from molmo_ros.training.evaluate_data import (
    TABLETOP_GOALS,
    Answered,
    compared,
    confidence_of,
    evaluate_data,
    figures,
    goals_for,
    missed,
    table_of,
)

Answer = list[tuple[float, float]] | Code

MASKS = {"left.png": square(3, 10), "right.png": square(30, 10)}
ROWS = (
    {"target": "the mug", "points": [[15, 43]], "masks": ["masks/left.png"], "tag": "kind"},
    {"target": "the leftmost mug", "points": [[15, 43]], "masks": ["masks/left.png"], "tag": "leftmost"},
    {
        "target": "all the mugs",
        "points": [[15, 43], [82, 43]],
        "masks": ["masks/left.png", "masks/right.png"],
        "tag": "several",
    },
    {"target": "mugs to count", "points": [[15, 43], [82, 43]], "task": "count", "count": 2},
    {"target": "the cup", "points": []},
    {"target": "an empty spot", "masks": ["masks/right.png"]},
)


class Scripted:
    """Answers from a table of words; `confidence` of every answer."""

    def __init__(self, answers: dict[str, Answer], confidence: float = 0.9) -> None:
        self.answers, self.confidence, self.asked = answers, confidence, 0

    def point(
        self,
        image_HW3: np.ndarray,
        target: str,
        *,
        max_points: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Pointing:
        assert image_HW3.shape == (SIZE[1], SIZE[0], 3)
        self.asked += 1
        answer = self.answers[target]
        if isinstance(answer, Code):
            raise PointingError(answer, "scripted")
        points = tuple(Point2D(u, v, target, self.confidence, 1.0, n) for n, (u, v) in enumerate(answer))
        return Pointing(points, "", not points, ModelDurations(), self.confidence)


LEFT, RIGHT, WIDE = (6.0, 12.9), (32.8, 12.9), (20.0, 28.0)
PERFECT: dict[str, Answer] = {
    "the mug": [LEFT],
    "the leftmost mug": [LEFT],
    "all the mugs": [LEFT, RIGHT],
    "mugs to count": [LEFT, RIGHT],
    "the cup": [],
    "an empty spot": [RIGHT],
}


def data(tmp_path: Path) -> Dataset:
    return read_dataset(write_set(tmp_path / "set", *ROWS, masks=MASKS))


def found_by(answers: dict[str, Answer], tmp_path: Path) -> dict[str, float]:
    answered, skipped = evaluate_data({"it": Scripted(answers)}, data(tmp_path))
    assert not skipped
    return {name: value for name, (value, _) in figures(answered["it"]).items()}


def test_a_perfect_model_gets_full_marks(tmp_path: Path) -> None:
    found = found_by(PERFECT, tmp_path)
    full = (
        "one target, hit",
        "set, F1",
        "set, exactly right",
        "count, right",
        "count, F1",
        "absent, recognised",
    )
    assert all(
        found[name] == 1.0 for name in (*full, "region, all points inside", "hit, leftmost", "all, F1")
    )
    assert found["present, called absent"] == found["answers that could not be read"] == 0.0


def test_each_mistake_shows_in_its_own_figure(tmp_path: Path) -> None:
    wrong = PERFECT | {
        "the leftmost mug": [RIGHT],
        "all the mugs": [LEFT],
        "mugs to count": [LEFT],
        "the cup": [WIDE],
        "an empty spot": [RIGHT, WIDE],
    }
    found = found_by(wrong, tmp_path)
    assert found["one target, hit"] == 1.0 and found["hit, leftmost"] == 0.0
    assert (found["set, precision"], found["set, recall"], found["set, exactly right"]) == (1.0, 0.5, 0.0)
    assert (found["count, right"], found["count, at most one off"]) == (0.0, 1.0)
    assert found["absent, recognised"] == 0.0
    assert (found["region, all points inside"], found["region, share of points inside"]) == (0.0, 0.5)


def test_calling_what_is_there_absent_is_a_figure_of_its_own(tmp_path: Path) -> None:
    found = found_by(PERFECT | {"the mug": [], "an empty spot": []}, tmp_path)
    assert found["present, called absent"] == pytest.approx(2 / 5)


def test_an_unreadable_answer_is_wrong_and_counted_and_a_broken_machine_ends_it(tmp_path: Path) -> None:
    found = found_by(PERFECT | {"the mug": Code.UNPARSEABLE}, tmp_path)
    assert found["one target, hit"] == 0.0
    assert found["answers that could not be read"] == pytest.approx(1 / 6)
    with pytest.raises(PointingError, match="OUT_OF_MEMORY"):
        evaluate_data({"it": Scripted({"the mug": Code.OUT_OF_MEMORY})}, read_dataset(tmp_path / "set"))


def test_broken_files_are_named_or_left_out_and_listed(tmp_path: Path) -> None:
    dataset = data(tmp_path)
    (dataset.folder / "masks" / "right.png").write_bytes(b"broken")
    with pytest.raises(DatasetError, match=r"questions\.jsonl:3: masks/right\.png cannot be read"):
        evaluate_data({"it": Scripted(PERFECT)}, dataset)
    answers, skipped = evaluate_data({"it": Scripted(PERFECT)}, dataset, skip_bad=True)
    assert [error.line for error in skipped] == [3, 6]
    assert len(answers["it"]) == 4
    (dataset.folder / "images" / "a.png").write_bytes(b"broken")
    answers, skipped = evaluate_data({"it": Scripted(PERFECT)}, dataset, skip_bad=True)
    assert len(skipped) == 6 and not answers["it"]


def test_two_models_are_compared_on_the_same_questions(tmp_path: Path) -> None:
    worse = Scripted(PERFECT | {"the mug": [WIDE], "the cup": [WIDE]})
    other = Scripted(PERFECT | {"the mug": [WIDE], "all the mugs": [LEFT]})
    answers, _ = evaluate_data({"worse": worse, "other": other}, data(tmp_path))
    (pair,) = compared(answers)
    assert (pair.first, pair.second) == ("worse", "other")
    assert (pair.only_first, pair.only_second, pair.both, pair.neither) == (1, 1, 3, 1)
    assert worse.asked == other.asked == len(ROWS)
    table = table_of(answers, read_dataset(tmp_path / "set"))
    assert [column.header for column in table.columns] == ["figure", "questions", "worse", "other"]


def test_the_confidence_is_judged_by_what_it_claims(tmp_path: Path) -> None:
    answers, _ = evaluate_data(
        {"it": Scripted(PERFECT | {"the mug": [WIDE]}, confidence=0.5)}, data(tmp_path)
    )
    rated = confidence_of(answers["it"])
    assert rated is not None
    assert rated.calibration_error == pytest.approx(abs(0.5 - 5 / 6))
    silent, _ = evaluate_data({"it": Scripted(PERFECT, confidence=math.nan)}, read_dataset(tmp_path / "set"))
    assert confidence_of(silent["it"]) is None
    assert "calibration error" not in figures(silent["it"])


def test_answers_are_valid_json_without_nan(tmp_path: Path) -> None:
    answers, _ = evaluate_data({"it": Scripted(PERFECT, confidence=math.nan)}, data(tmp_path))
    written = json.dumps([a.as_json() for a in answers["it"]], allow_nan=False)
    first = json.loads(written)[0]
    assert (first["target"], first["right"], first["confidence"], first["f1"]) == ("the mug", True, None, 1.0)


def test_goals_are_those_of_our_own_tables_only(tmp_path: Path) -> None:
    dataset = data(tmp_path)
    assert goals_for(dataset) == {}
    (dataset.folder / "about.json").write_text('{"source": "molmo_ros.sim"}')
    assert goals_for(read_dataset(dataset.folder)) == TABLETOP_GOALS
    reached = {
        "one target, hit": (0.96, 100),
        "present, called absent": (0.05, 100),
        "set, F1": (math.nan, 3),
    }
    assert missed(reached, TABLETOP_GOALS) == ["present, called absent", "set, F1"]


def answered(tmp_path: Path) -> list[Answered]:
    """For other tests: one right answer, one wrong one, and one that was not read."""
    scripted = Scripted(PERFECT | {"the mug": [WIDE], "the cup": Code.UNPARSEABLE})
    answers, _ = evaluate_data({"it": scripted}, data(tmp_path))
    return answers["it"]
