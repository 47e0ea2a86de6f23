"""Prompts, batches and conversations."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from molmo_ros.molmo import MolmoForConditionalGeneration, MolmoProcessor

GOLDENS = Path(__file__).parent.parent / "data" / "goldens"
FAMILIES = ("D", "O", "E", "72B")
QUESTIONS = ["Point to the red mug.", "Where is it?", "Describe this image in a few words, please."]

every_family = pytest.mark.parametrize("family", FAMILIES)


@cache
def processor(family: str = "D") -> MolmoProcessor:
    return MolmoProcessor.from_pretrained(GOLDENS / family / "checkpoint")


@cache
def model(family: str) -> MolmoForConditionalGeneration:
    return MolmoForConditionalGeneration.from_pretrained(GOLDENS / family / "checkpoint").eval()


@cache
def pictures() -> list[Image.Image | None]:
    return [Image.open(GOLDENS / "images" / "wide.png"), None, Image.open(GOLDENS / "images" / "tall.png")]


@every_family
def test_each_row_of_a_batch_has_the_logits_it_has_alone(family: str) -> None:
    net, together = model(family), processor(family)(pictures(), QUESTIONS)
    logits = net(**together).logits
    for row, (picture, question) in enumerate(zip(pictures(), QUESTIONS, strict=True)):
        alone = net(**processor(family)(picture, question)).logits[0]
        torch.testing.assert_close(logits[row, -len(alone) :], alone, atol=5e-5, rtol=1e-4)


@every_family
def test_each_row_of_a_batch_is_answered_as_alone(family: str) -> None:
    net, together = model(family), processor(family)(pictures(), QUESTIONS)
    length = together["input_ids"].shape[1]
    answers = net.generate(**together, max_new_tokens=8, min_new_tokens=8, do_sample=False)[:, length:]
    for row, (picture, question) in enumerate(zip(pictures(), QUESTIONS, strict=True)):
        single = processor(family)(picture, question)
        alone = net.generate(**single, max_new_tokens=8, min_new_tokens=8, do_sample=False)
        assert answers[row].tolist() == alone[0, single["input_ids"].shape[1] :].tolist()


def test_prompts_are_padded_on_the_left_and_the_image_tokens_move_with_them() -> None:
    batch = processor()(pictures(), QUESTIONS)
    for ids, mask, places in zip(
        batch["input_ids"], batch["attention_mask"], batch["image_input_idx"], strict=True
    ):
        assert mask.tolist() == sorted(mask.tolist())
        image_tokens = set(torch.nonzero(ids == processor().marks.patch).flatten().tolist())
        assert set(places[places >= 0].tolist()) == image_tokens
    assert (batch["images"][1] == -1).all() and (batch["image_input_idx"][1] < 0).all()


def test_questions_without_a_picture_make_no_image_arrays() -> None:
    assert set(processor()(None, QUESTIONS)) == {"input_ids", "attention_mask"}


def test_another_number_of_pictures_than_questions_is_refused() -> None:
    with pytest.raises(ValueError, match="2 pictures for 3 questions"):
        processor()(pictures()[:2], QUESTIONS)


@every_family
def test_a_conversation_of_one_turn_is_the_prompt_of_the_question(family: str) -> None:
    talk = [
        {
            "role": "user",
            "content": [{"type": "image", "image": pictures()[0]}, {"type": "text", "text": "Hi?"}],
        }
    ]
    assert processor(family).apply_chat_template(talk) == " User: Hi? Assistant:"
    ours = processor(family).apply_chat_template(talk, tokenize=True)
    theirs = processor(family)(pictures()[0], "Hi?")
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name])


def test_every_later_message_begins_with_a_space_and_answers_end_with_the_end_mark() -> None:
    talk = [
        {"role": "user", "content": "Where is it?"},
        {"role": "assistant", "content": "On the table."},
        {"role": "user", "content": "And the cup?"},
    ]
    expected = " User: Where is it? Assistant: On the table.<|endoftext|> User: And the cup? Assistant:"
    assert processor().apply_chat_template(talk) == expected
    assert (
        processor().tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        == expected
    )
    assert processor().apply_chat_template([talk, talk[:1]]) == [expected, " User: Where is it? Assistant:"]


def test_a_conversation_with_a_system_message_or_two_pictures_is_refused() -> None:
    with pytest.raises(Exception, match="roles user and assistant"):
        processor().apply_chat_template([{"role": "system", "content": "Be brief."}])
    part = {"type": "image", "image": pictures()[0]}
    with pytest.raises(ValueError, match="2 pictures"):
        processor().apply_chat_template([{"role": "user", "content": [part, part]}], tokenize=True)


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P", "CMYK", "1"])
def test_pictures_of_other_modes_are_seen_as_rgb(mode: str) -> None:
    picture = Image.open(GOLDENS / "images" / "wide.png").convert(mode)
    ours = processor()(picture, "x")["images"]
    torch.testing.assert_close(ours, processor()(picture.convert("RGB"), "x")["images"])


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    ours = processor()(Image.fromarray(ramp), "x")["images"]
    theirs = processor()(Image.fromarray((ramp >> 8).astype(np.uint8)), "x")["images"]
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("size", [(1, 1), (2000, 1), (20000, 10), (10, 20000)])
def test_tiny_and_very_long_pictures_run_through_the_model(size: tuple[int, int]) -> None:
    logits = model("D")(**processor()(Image.new("RGB", size, (200, 30, 30)), "Point to it.")).logits
    assert torch.isfinite(logits).all()


def test_exif_rotation_is_left_alone_so_points_fit_the_stored_pixels(tmp_path: Path) -> None:
    picture = Image.open(GOLDENS / "images" / "wide.png").convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        torch.testing.assert_close(processor()(turned, "x")["images"], processor()(picture, "x")["images"])
