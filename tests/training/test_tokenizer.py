"""The bundled tokenizer has Molmo-7B-D's layout."""

from __future__ import annotations

from functools import cache

from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from molmo_ros.training.questions import every_wording
from molmo_ros.training.tokenizer import IMAGE_MARKS, train_tokenizer


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(every_wording(("red", "blue"), ("cube", "mug")), 400)


def test_image_marks_follow_the_first_embedding_table() -> None:
    assert tokenizer().convert_tokens_to_ids(list(IMAGE_MARKS)) == [400, 401, 402, 403, 404]


def test_digits_stay_single() -> None:
    texts = [tokenizer().decode([token]) for token in tokenizer().encode("63.5", add_special_tokens=False)]
    assert texts == ["6", "3", ".", "5"]


def test_words_of_the_world_are_single_tokens() -> None:
    assert len(tokenizer().encode(" red mug", add_special_tokens=False)) == 2


@given(st.text(st.characters(codec="utf-8"), max_size=50))
def test_any_text_survives(text: str) -> None:
    import unicodedata

    ids = tokenizer().encode(text, add_special_tokens=False)
    assert (
        tokenizer().decode(ids, clean_up_tokenization_spaces=False) == unicodedata.normalize("NFC", text)
        or "<" in text
    )
