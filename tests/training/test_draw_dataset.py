"""Simulated data sets: every sort of question, true by their own masks, from seeds of their split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from molmo_ros.pointing.grammar import says_absent, spoken_points
from molmo_ros.pointing.prompts import clean_target, pointing_prompt
from molmo_ros.sim.worlds import TABLETOP, WORKSHOP
from molmo_ros.training.dataset import Dataset, problems, read_dataset
from molmo_ros.training.dataset_commands import run
from molmo_ros.training.draw_dataset import ASKED, SPLITS, draw_dataset, recipe_of, seeds_with
from molmo_ros.training.metrics import score
from molmo_ros.training.relations import RELATIONS

SIZE = (240, 180)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("sets") / "tabletop"
    counts = draw_dataset(folder, TABLETOP, range(40, 52), render_size=SIZE)
    dataset = read_dataset(folder)
    assert sum(counts.values()) == len(dataset.samples)
    return dataset


def test_a_drawn_set_is_whole_and_asks_all_sorts_of_questions(drawn: Dataset) -> None:
    assert list(problems(drawn)) == []
    assert (drawn.about["world"], drawn.about["seeds"]) == ("tabletop", [40, 52])
    assert {s.task for s in drawn.samples} == {"point", "set", "count", "absent", "region"}
    tags = {s.tag for s in drawn.samples}
    assert {"colour and kind", "kind", "several", "count", "free space", "absent"} <= tags
    assert len(tags & set(RELATIONS)) >= 4
    assert 12 * 6 < len(drawn.samples) <= 12 * (len(ASKED) + 2)


def test_the_true_points_are_full_marks_by_the_masks(drawn: Dataset) -> None:
    for sample in drawn.samples:
        masks = sample.read_masks(SIZE)
        true = [(x / 100 * SIZE[0], y / 100 * SIZE[1]) for x, y in sample.points or ()]
        assert score(sample, true, masks, SIZE).right, sample.target
        assert score(sample, true, masks, SIZE).f1 in (1.0, 0.0 if sample.task == "absent" and true else 1.0)


def test_words_for_training_and_for_asking_go_together(drawn: Dataset) -> None:
    for sample in drawn.samples:
        assert sample.question and sample.answer and sample.label
        assert pointing_prompt(clean_target(sample.target)).startswith("Point to ")
        assert sample.label in sample.question
        spoken = [(p.x, p.y) for p in spoken_points(sample.answer)]
        assert len(spoken) == len(sample.points or ())
        np.testing.assert_allclose(np.asarray(spoken), np.asarray(sample.points), atol=0.06)
        assert says_absent(sample.answer) == (sample.task == "absent")
        if sample.task == "set":
            assert sample.target.startswith("all the ") and sample.target.endswith("s")
        if sample.tag in ("colour and kind", "kind", *RELATIONS):
            assert sample.target == f"the {sample.label}"


def test_the_same_seeds_give_the_same_set(drawn: Dataset, tmp_path: Path) -> None:
    draw_dataset(tmp_path / "again", TABLETOP, range(40, 42), render_size=SIZE)
    again = read_dataset(tmp_path / "again").samples
    assert [(s.target, s.points) for s in again] == [
        (s.target, s.points) for s in drawn.samples[: len(again)]
    ]
    np.testing.assert_array_equal(again[0].read_image(), drawn.samples[0].read_image())


def test_the_command_line_draws_a_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--size", "120", "90"]
    whole = [
        "draw",
        "--world",
        "tabletop",
        "--scenes",
        "2",
        "--skip",
        "3",
        "--split",
        "validation",
        "--held-out",
    ]
    assert run([*whole, *size, "--out", str(tmp_path / "set")]) == 0
    assert "2 scenes" in capsys.readouterr().out
    about = read_dataset(tmp_path / "set").about
    first = SPLITS["validation"].start + 3
    assert about["seeds"] == [first, first + 2] and about["held_out"] is True
    assert run([*whole, *size, "--out", str(tmp_path / "set")]) == 1  # there is one already
    for wrong in (["--scenes", "0"], ["--scenes", "9000000"], ["--world", "first", "--held-out"]):
        with pytest.raises(SystemExit):
            run(["draw", "--out", str(tmp_path / "other"), *wrong])


def test_a_set_about_a_kind_shows_it_in_every_scene_and_asks_for_it(tmp_path: Path) -> None:
    command = ["draw", "--world", "workshop", "--showing", "stapler", "--split", "train", "--scenes", "4"]
    assert run([*command, "--size", "240", "180", "--out", str(tmp_path / "set")]) == 0
    samples = read_dataset(tmp_path / "set").samples
    seeds = seeds_with("stapler", recipe_of(WORKSHOP), SPLITS["train"], 4)
    assert {sample.image for sample in samples} == {f"images/{seed:07d}.jpg" for seed in seeds}
    about = [s for s in samples if "stapler" in s.target and s.task in ("point", "set")]
    shown = {sample.image for sample in about}
    assert len(shown) >= 3  # one may be hidden
    assert {"the stapler", "all the staplers"} & {sample.target for sample in about}
    with pytest.raises(SystemExit):
        run(["draw", "--world", "tabletop", "--showing", "stapler", "--out", str(tmp_path / "other")])


def test_old_pictures_can_be_asked_for_what_is_never_there(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "old", TABLETOP, range(40, 60), render_size=(120, 90), words=WORKSHOP)
    samples = read_dataset(tmp_path / "old").samples
    about = [s for s in samples if "stapler" in s.target]
    assert about and all(sample.task == "absent" for sample in about)
