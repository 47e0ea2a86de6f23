"""Questions of a data set become exercises with true answers, or are refused by their line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import SIZE, square, write_set

from molmo_ros.training.dataset import DatasetError, read_dataset
from molmo_ros.training.exercises import Exercise, exercise_of, exercises_of, innermost

MUG: dict[str, Any] = {"target": "the red mug", "points": [[30, 40]]}


def made(tmp_path: Path, row: dict[str, Any], masks: dict[str, np.ndarray] | None = None) -> Exercise:
    (exercise,) = exercises_of(read_dataset(write_set(tmp_path / "set", row, masks=masks)))[0]
    return exercise


def wordings(exercise: Exercise, mirrored: bool = False) -> set[tuple[str, str]]:
    return {exercise.worded(np.random.default_rng(seed), mirrored) for seed in range(60)}


def test_a_question_is_asked_as_the_node_asks_and_in_other_ways(tmp_path: Path) -> None:
    said = wordings(made(tmp_path, MUG))
    assert "Point to the red mug." in {question for question, _ in said} and len(said) > 3
    assert {answer for _, answer in said} == {' <point x="30.0" y="40.0" alt="red mug">red mug</point>'}


def test_its_own_words_are_used_too(tmp_path: Path) -> None:
    exercise = made(tmp_path, MUG | {"question": "Mug?", "answer": " There it is."})
    said = wordings(exercise)
    assert ("Mug?", " There it is.") in said and len(said) > 3
    assert not exercise.can_be_mirrored  # nobody knows how that answer reads in a mirror


@pytest.mark.parametrize(
    ("points", "answer"),
    [
        ([], " There are none."),
        ([[70, 5.04], [20, 60]], ' <points x1="20.0" y1="60.0" x2="70.0" y2="5.0" alt="mugs">mugs</points>'),
    ],
)
def test_absences_and_sets_are_answered_in_molmo_s_words(
    tmp_path: Path, points: list[list[float]], answer: str
) -> None:
    exercise = made(tmp_path, {"target": "all the mugs", "points": points})
    assert {given for _, given in wordings(exercise)} == {answer}


def test_a_mirror_turns_points_and_leaves_out_words_of_sides(tmp_path: Path) -> None:
    exercise = made(tmp_path / "a", MUG)
    assert exercise.can_be_mirrored
    assert {answer for _, answer in wordings(exercise, mirrored=True)} == {
        ' <point x="70.0" y="40.0" alt="red mug">red mug</point>'
    }
    for n, words in enumerate(("the leftmost mug", "the mug right of the box")):
        assert not made(tmp_path / str(n), MUG | {"target": words}).can_be_mirrored
    assert made(tmp_path / "bright", MUG | {"target": "the bright mug"}).can_be_mirrored


def test_an_answer_of_our_own_kind_is_said_with_mirrored_points(tmp_path: Path) -> None:
    counting = ' Counting the <point x="30.0" y="40.0" alt="mugs">mugs</point> shows a total of 1.'
    row = MUG | {
        "target": "all the mugs",
        "label": "mugs",
        "question": "How many mugs are there?",
        "answer": counting,
    }
    said = wordings(made(tmp_path, row), mirrored=True)
    assert ("How many mugs are there?", counting.replace("30.0", "70.0")) in said


def test_points_are_made_of_masks(tmp_path: Path) -> None:
    masks = {"a.png": square(3, 4), "b.png": square(30, 20)}
    names = ["masks/a.png", "masks/b.png"]
    exercise = made(tmp_path, {"target": "mugs", "task": "set", "masks": names}, masks)
    width, height = SIZE
    expected = [(100 * 5.5 / width, 100 * 6.5 / height), (100 * 32.5 / width, 100 * 22.5 / height)]
    np.testing.assert_allclose(exercise.points, expected)


def test_a_region_s_point_is_its_innermost(tmp_path: Path) -> None:
    region = np.zeros((SIZE[1], SIZE[0]), bool)
    region[:3] = True
    region[10:25, 5:22] = True
    exercise = made(tmp_path, {"target": "an empty spot", "masks": ["masks/r.png"]}, {"r.png": region})
    ((x, y),) = exercise.points
    assert (x / 100 * SIZE[0], y / 100 * SIZE[1]) == pytest.approx((13, 17), abs=1)


@pytest.mark.parametrize("mask", [np.ones((5, 7), bool), np.eye(9, dtype=bool)])
def test_the_innermost_place_is_in_the_region(mask: np.ndarray) -> None:
    u, v = innermost(mask)
    assert mask[round(v), round(u)]
    assert mask.all() <= (0 < u < 6 and 0 < v < 4)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"target": "mugs", "count": 3}, "only the number"),
        ({"target": "mugs", "count": 3, "masks": ["masks/a.png"], "task": "count"}, "one mask for several"),
        ({"target": "the mug", "masks": ["masks/none.png"]}, "mask is empty"),
        ({"target": "...", "points": [[1, 2]]}, "target is empty"),
        ({"target": "the mug", "masks": ["masks/broken.png"]}, "cannot be read as a picture"),
        ({"target": "the mug", "masks": ["masks/small.png"]}, "its picture"),
    ],
)
def test_what_teaches_nothing_is_named_or_left_out(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    masks = {"a.png": square(3, 4), "none.png": square(0, 0, 0), "small.png": square(3, 4)[:9]}
    folder = write_set(tmp_path / "set", MUG, row, masks=masks | {"broken.png": square(1, 1)})
    (folder / "masks" / "broken.png").write_bytes(b"broken")
    with pytest.raises(DatasetError, match=r"questions\.jsonl:2: .*" + says):
        exercises_of(read_dataset(folder))
    exercises, left_out = exercises_of(read_dataset(folder), skip_bad=True)
    assert [e.sample.line for e in exercises] == [1] and [e.line for e in left_out] == [2]


def test_every_question_of_a_broken_picture_is_left_out_and_bad_lines_count(tmp_path: Path) -> None:
    folder = write_set(
        tmp_path / "set", MUG, MUG | {"target": "the cup"}, "{", MUG | {"image": "images/b.png"}
    )
    (folder / "images" / "b.png").write_bytes((folder / "images" / "a.png").read_bytes())
    (folder / "images" / "a.png").write_bytes(b"broken")
    exercises, left_out = exercises_of(read_dataset(folder, skip_bad=True), skip_bad=True)
    assert [e.sample.line for e in exercises] == [4]
    assert [error.line for error in left_out] == [1, 2, 3]
    (folder / "images" / "b.png").write_bytes(b"broken")
    with pytest.raises(DatasetError, match="nothing to learn from"):
        exercises_of(read_dataset(folder, skip_bad=True), skip_bad=True)


def test_a_label_without_one_is_the_target_without_articles(tmp_path: Path) -> None:
    dataset = read_dataset(write_set(tmp_path / "set", MUG, MUG | {"label": "cup"}))
    assert [exercise_of(sample).label for sample in dataset.samples] == ["red mug", "cup"]
