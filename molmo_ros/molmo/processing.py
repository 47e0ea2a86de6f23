"""Words and a picture to model inputs, in Molmo's own prompt format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerFast
from transformers.processing_utils import ProcessorMixin

from .image_processing import UNUSED, ImageMarks, MolmoImageProcessor, ProcessedImage
from .vision import PADDING_CROP_VALUE

#: The token that opens a prompt and ends an answer in every release.
END_OF_TEXT = "<|endoftext|>"


#: Turns as in training: every message begins with a space, and an answer ends with the end mark.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- set text -%}
{%- if message.content is string -%}{{ message.content }}
{%- else -%}{%- for part in message.content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}
{%- endif -%}
{%- endset -%}
{%- if message.role == 'user' -%}{{ ' User: ' + text }}
{%- elif message.role == 'assistant' -%}{{ ' Assistant: ' + text + '<|endoftext|>' }}
{%- else -%}{{ raise_exception("Molmo knows the roles user and assistant, not " + message.role) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ ' Assistant:' }}{%- endif -%}"""

Picture = Image.Image | np.ndarray


def format_prompt(question: str) -> str:
    """The released single-turn format, leading space included; there is no system prompt."""
    return f" User: {question} Assistant:"


class MolmoProcessor(ProcessorMixin):
    """Image processor and tokenizer together.

    `processor(images=picture, text="Point to the red mug.")` gives the tensors that the model takes; lists of
    pictures and questions give a batch.
    """

    image_processor: MolmoImageProcessor
    tokenizer: PreTrainedTokenizerFast

    def __init__(
        self, image_processor: MolmoImageProcessor, tokenizer: PreTrainedTokenizerFast, **_: Any
    ) -> None:
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.chat_template = CHAT_TEMPLATE
        # Released tokenizers carry the template of the language model they began as.
        tokenizer.chat_template = CHAT_TEMPLATE
        tokenizer.padding_side = "left"
        self.bos_token_id = self._id_of(END_OF_TEXT)
        self.eos_token_id = self.bos_token_id
        pad = tokenizer.pad_token_id
        self.pad_token_id = self.eos_token_id if pad is None else int(pad)
        self.marks = ImageMarks(
            start=self._id_of("<im_start>"),
            end=self._id_of("<im_end>"),
            patch=self._id_of("<im_patch>"),
            col=self._id_of("<im_col>"),
        )

    def _id_of(self, token: str) -> int:
        """Ids come from tokenizer.json: the released side files disagree with it."""
        ids = self.tokenizer.encode(token, add_special_tokens=False)
        if len(ids) != 1:
            raise ValueError(
                f"the tokenizer has no token {token}; a Molmo checkpoint's tokenizer.json defines it"
            )
        return int(ids[0])

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> MolmoProcessor:
        """From a checkpoint folder (or hub id): `preprocessor_config.json` and `tokenizer.json`; runs no code of it."""
        kwargs.pop("trust_remote_code", None)
        name = str(pretrained_model_name_or_path)
        return cls(
            MolmoImageProcessor.from_pretrained(name, **kwargs),
            PreTrainedTokenizerFast.from_pretrained(name, **kwargs),
        )

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> list[str]:
        """Write both parts in the released layout."""
        self.tokenizer.save_pretrained(save_directory)
        return list(self.image_processor.save_pretrained(save_directory))

    def __call__(
        self,
        images: Picture | Sequence[Picture | None] | None = None,
        text: str | Sequence[str] = "",
        *,
        formatted: bool = False,
        **_: Any,
    ) -> BatchFeature:
        """Inputs of one question, or of a batch of questions, each about at most one picture.

        Args:
            images: PIL image or HxWx3 uint8 RGB; None for a question without a picture; a list of these for a
                list of questions.
            text: the bare question, around which the prompt format is put here; or a list of questions.
            formatted: the text already has the prompt format.

        Returns:
            `input_ids` and `attention_mask` [B, S], shorter prompts padded on the left; and, if any question has
            a picture, `images` [B, C, P, X], `image_masks` [B, C, P], `image_input_idx` [B, C, T], rows with
            fewer crops padded behind.

        Raises:
            ValueError: another number of pictures than of questions.
        """
        questions = [text] if isinstance(text, str) else list(text)
        pictures: list[Picture | None] = [None] * len(questions)
        if isinstance(images, (Image.Image, np.ndarray)):
            pictures = [images]
        elif images is not None:
            pictures = list(images)
        if len(pictures) != len(questions):
            raise ValueError(
                f"{len(pictures)} pictures for {len(questions)} questions; give one picture, or None, for each"
            )
        rows = [
            self._row(picture, question if formatted else format_prompt(question))
            for picture, question in zip(pictures, questions, strict=True)
        ]
        return BatchFeature(_left_padded(rows, self.pad_token_id))

    def _row(self, picture: Picture | None, prompt: str) -> _Row:
        words = np.asarray(self.tokenizer.encode(prompt, add_special_tokens=False), np.int64)
        start = np.asarray([self.bos_token_id], np.int64)
        if picture is None:
            return _Row(np.concatenate([start, words]), None)
        seen = self.image_processor.process(picture, self.marks)
        return _Row(np.concatenate([start, seen.tokens, words]), seen)

    def apply_chat_template(
        self,
        conversation: list[dict[str, Any]] | list[list[dict[str, Any]]],
        chat_template: str | None = None,
        *,
        tokenize: bool = False,
        add_generation_prompt: bool = True,
        **_: Any,
    ) -> Any:
        """Molmo's own format of one conversation or a list of them, whatever template the checkpoint carries.

        Args:
            conversation: messages with `role` ("user" or "assistant") and `content`, a text or a list of parts
                `{"type": "text", "text": ...}` and `{"type": "image", "image": PIL image, array or path}`.
            chat_template: a template to use instead of Molmo's.
            tokenize: give model inputs instead of text.
            add_generation_prompt: end with the words that ask for an answer.

        Raises:
            ValueError: more than one picture in a conversation; Molmo takes one, at the very start.
        """
        many = bool(conversation) and isinstance(conversation[0], list)
        talks: Any = conversation if many else [conversation]
        texts = [
            self.tokenizer.apply_chat_template(
                talk,
                chat_template=chat_template or CHAT_TEMPLATE,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
            for talk in talks
        ]
        if not tokenize:
            return texts if many else texts[0]
        return self([_picture_of(talk) for talk in talks], texts, formatted=True)

    def decode(self, token_ids: Any, **kwargs: Any) -> str:
        """Text of generated ids, without the end mark."""
        kwargs.setdefault("skip_special_tokens", True)
        return str(self.tokenizer.decode(token_ids, **kwargs))


@dataclass(frozen=True)
class _Row:
    """One prompt before padding, with what the image processor made of its picture."""

    input_ids: np.ndarray
    picture: ProcessedImage | None


def _left_padded(rows: list[_Row], pad_token_id: int) -> dict[str, torch.Tensor]:
    length = max(len(row.input_ids) for row in rows)
    input_ids = np.full((len(rows), length), pad_token_id, np.int64)
    attention_mask = np.zeros_like(input_ids)
    for index, row in enumerate(rows):
        input_ids[index, length - len(row.input_ids) :] = row.input_ids
        attention_mask[index, length - len(row.input_ids) :] = 1
    padded: dict[str, np.ndarray] = {"input_ids": input_ids, "attention_mask": attention_mask}
    seen = [row.picture for row in rows if row.picture is not None]
    if seen:
        crops = max(len(picture.images) for picture in seen)
        first = seen[0]
        images = np.full((len(rows), crops, *first.images.shape[1:]), PADDING_CROP_VALUE, np.float32)
        image_masks = np.zeros((len(rows), crops, first.image_masks.shape[1]), np.float32)
        places = np.full((len(rows), crops, first.image_input_idx.shape[1]), UNUSED, np.int64)
        for index, row in enumerate(rows):
            if row.picture is None:
                continue
            count = len(row.picture.images)
            images[index, :count] = row.picture.images
            image_masks[index, :count] = row.picture.image_masks
            # The picture's tokens come after the padding and the start token.
            shift = length - len(row.input_ids) + 1
            idx = row.picture.image_input_idx
            places[index, :count] = np.where(idx >= 0, idx + shift, idx)
        padded |= {"images": images, "image_masks": image_masks, "image_input_idx": places}
    return {name: torch.from_numpy(array) for name, array in padded.items()}


def _picture_of(talk: list[dict[str, Any]]) -> Picture | None:
    """The one picture of a conversation, if any."""
    parts = [
        part for message in talk if not isinstance(message["content"], str) for part in message["content"]
    ]
    pictures = [part for part in parts if part.get("type") == "image"]
    if len(pictures) > 1:
        raise ValueError(f"a conversation with {len(pictures)} pictures; Molmo takes one, at the very start")
    if not pictures:
        return None
    given = pictures[0].get("image", pictures[0].get("path"))
    if isinstance(given, (str, Path)):
        return Image.open(given)
    if not isinstance(given, (Image.Image, np.ndarray)):
        raise ValueError(
            f"an image part needs `image`, a PIL image, an array or a path, not {type(given).__name__}"
        )
    return given
