"""Batches for fine-tuning hold each picture once, and what the model is to say, one step ahead."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from data_sets import SIZE, picture, write_set
from PIL import Image

from molmo_ros.molmo import MolmoProcessor
from molmo_ros.molmo.processing import format_prompt
from molmo_ros.training.dataset import read_dataset
from molmo_ros.training.exercises import Exercise, exercises_of
from molmo_ros.training.tuning_batches import IGNORED, Reader, TuningBatch, TuningSteps, fixed_batches
from molmo_ros.training.tuning_settings import Settings, Source, Weights

GOLDENS = Path(__file__).parents[1] / "data" / "goldens"
ANSWER = ' <point x="12.5" y="7.0" alt="mug">mug</point>'
WEIGHTS = Weights(first=5.0, digit=3.0, decimal=0.25)


@cache
def processor() -> MolmoProcessor:
    return MolmoProcessor.from_pretrained(GOLDENS / "D" / "checkpoint")


def ids(text: str) -> list[int]:
    return list(processor().tokenizer.encode(text, add_special_tokens=False))


def test_a_row_is_what_the_processor_makes_and_the_answer_behind_it() -> None:
    batch = Reader(processor(), WEIGHTS).batch([picture()], [[("Where is it?", ANSWER), ("Mug?", " No.")]])
    alone = processor()(images=picture(), text="Where is it?")
    prompt, answer = alone["input_ids"][0], [*ids(ANSWER), processor().eos_token_id]
    assert batch.input_ids[0, : len(prompt)].equal(prompt)
    assert batch.input_ids[0, len(prompt) :].tolist()[: len(answer)] == answer
    assert batch.images.equal(alone["images"]) and batch.image_input_idx.equal(alone["image_input_idx"])
    assert batch.picture.tolist() == [0, 0]
    start = len(prompt) - 1
    assert batch.labels[0, start : start + len(answer)].tolist() == answer
    assert (batch.labels[0, :start] == IGNORED).all()
    short = len(processor()(images=picture(), text="Mug?")["input_ids"][0]) + len(ids(" No.")) + 1
    assert batch.attention_mask[1].sum() == short and (batch.labels[1, short:] == IGNORED).all()


def test_weights_go_to_the_first_token_digits_and_decimals() -> None:
    batch = Reader(processor(), WEIGHTS).batch([picture()], [[("Mug?", ANSWER)]])
    tokens = [processor().tokenizer.decode([t]) for t in batch.labels[0][batch.labels[0] != IGNORED].tolist()]
    weights = batch.weights[0][batch.labels[0] != IGNORED].tolist()
    assert weights[0] == 5.0 and sum(weights) == batch.weights.sum()
    spoken = [(t.strip(), w) for t, w in zip(tokens, weights, strict=True)][1:]
    assert [w for t, w in spoken if t.isdecimal()] == [3.0, 3.0, 0.25, 3.0, 0.25]
    assert all(w == 1.0 for t, w in spoken if not t.isdecimal())


def test_pictures_with_other_numbers_of_crops_share_a_batch() -> None:
    wide = np.array(Image.open(GOLDENS / "images" / "wide.png").convert("RGB"))
    reader = Reader(processor(), WEIGHTS)
    both = reader.batch([picture(), wide], [[("Mug?", ANSWER)], [("Cup?", ANSWER)]])
    for index, image in enumerate((picture(), wide)):
        alone = reader.batch([image], [[("Cup?" if index else "Mug?", ANSWER)]])
        crops = alone.images.shape[1]
        assert both.images[index, :crops].equal(alone.images[0])
        assert (both.images[index, crops:] == -1).all() and (both.image_input_idx[index, crops:] < 0).all()


def exercises(tmp_path: Path, pictures: int, name: str = "set") -> list[Exercise]:
    rows = [
        {"image": f"images/{n}.png", "target": f"thing {n} {q}", "points": [[10 * q + 5, n]]}
        for n in range(pictures)
        for q in range(3)
    ]
    folder = write_set(tmp_path / name)
    for n in range(pictures):
        Image.fromarray(np.full((SIZE[1], SIZE[0], 3), 10 * n + 20, np.uint8)).save(
            folder / "images" / f"{n}.png"
        )
    import json

    (folder / "questions.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return exercises_of(read_dataset(folder))[0]


def targets(batch: TuningBatch) -> list[str]:
    return [
        processor().tokenizer.decode(row[labels != IGNORED].tolist()[:-1])
        for row, labels in zip(batch.labels, batch.labels, strict=True)
    ]


def steps_of(tmp_path: Path, **changes: object) -> TuningSteps:
    settings = Settings(
        (Source("a", 2), Source("b", 1)), light=0.0, mirror=False, questions_per_picture=2, pictures_at_once=8
    )
    settings = Settings(**(vars(settings) | changes))
    sources = [exercises(tmp_path, 4, "a"), exercises(tmp_path, 3, "b")]
    return TuningSteps(sources, Reader(processor(), WEIGHTS), settings)


def test_a_step_depends_on_its_number_alone(tmp_path: Path) -> None:
    steps = steps_of(tmp_path)
    (first,), (again,), (other,) = steps[5], steps[5], steps[6]
    assert first.input_ids.equal(again.input_ids) and first.images.equal(again.images)
    assert first.images.shape != other.images.shape or not first.images.equal(other.images)


def test_every_set_goes_round_and_round_at_its_own_rate(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, pictures_at_once=8)
    seen: list[list[str]] = [[], []]
    for step in range(6):
        (batch,) = steps[step]
        assert len(batch.images) == 3 and batch.picture.tolist() == [0, 0, 1, 1, 2, 2]
        answers = targets(batch)
        for index in range(0, 6, 2):
            seen[index >= 4].append(answers[index].split("thing ")[1].split()[0])
    assert [sorted(seen[0][i : i + 4]) for i in (0, 4, 8)] == [["0", "1", "2", "3"]] * 3
    assert [sorted(seen[1][i : i + 3]) for i in (0, 3)] == [["0", "1", "2"]] * 2


def test_a_step_is_split_into_parts_of_so_many_pictures(tmp_path: Path) -> None:
    assert [len(batch.images) for batch in steps_of(tmp_path, pictures_at_once=2)[0]] == [2, 1]


def test_a_mirrored_picture_has_mirrored_answers(tmp_path: Path) -> None:
    sources = [exercises(tmp_path, 1)]
    image = sources[0][0].sample.folder / "images" / "0.png"
    half = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    half[:, : SIZE[0] // 2] = 255
    Image.fromarray(half).save(image)
    settings = Settings((Source("a", 1),), light=0.0, questions_per_picture=1)
    steps = TuningSteps(sources, Reader(processor(), WEIGHTS), settings)
    plain = processor()(images=half, text="", formatted=True)["images"]
    mirrored = processor()(images=half[:, ::-1], text="", formatted=True)["images"]
    kinds = set()
    for step in range(12):
        (batch,) = steps[step]
        is_mirrored = batch.images.equal(mirrored)
        assert is_mirrored or batch.images.equal(plain)
        x = float(targets(batch)[0].split('x="')[1].split('"')[0])
        assert (x > 50) == is_mirrored
        kinds.add(is_mirrored)
    assert kinds == {True, False}


def test_light_changes_pictures_a_little(tmp_path: Path) -> None:
    (plain,), (lit,) = steps_of(tmp_path / "a")[0], steps_of(tmp_path / "b", light=0.1)[0]
    difference = (plain.images - lit.images).abs()
    assert 0 < difference.max() < 2.5


def test_validation_is_always_the_same_and_not_larger_than_asked(tmp_path: Path) -> None:
    settings = Settings((Source("a", 1),), questions_per_picture=2, validation_questions=5)
    reader, given = Reader(processor(), WEIGHTS), exercises(tmp_path, 4)
    first, again = (fixed_batches(given, reader, settings) for _ in range(2))
    assert [len(batch.labels) for batch in first] == [2, 2, 2]
    assert all(a.input_ids.equal(b.input_ids) for a, b in zip(first, again, strict=True))


def test_the_prompt_has_the_released_format() -> None:
    batch = Reader(processor(), WEIGHTS).batch([picture()], [[("Mug?", ANSWER)]])
    text = processor().tokenizer.decode(batch.input_ids[0])
    assert f"{format_prompt('Mug?')}{ANSWER}" in text


@pytest.mark.parametrize("device", ["cpu"])
def test_a_batch_moves_as_a_whole(device: str) -> None:
    batch = Reader(processor(), WEIGHTS).batch([picture()], [[("Mug?", ANSWER)]]).to(device)
    assert all(isinstance(value, torch.Tensor) for value in vars(batch).values())
