"""Words and a picture to model inputs, in Molmo's own prompt format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerFast
from transformers.processing_utils import ProcessorMixin

from .image_processing import ImageMarks, MolmoImageProcessor

#: The token that opens a prompt and ends an answer in every release.
END_OF_TEXT = "<|endoftext|>"


def format_prompt(question: str) -> str:
    """The released single-turn format, leading space included; there is no system prompt."""
    return f" User: {question} Assistant:"


class MolmoProcessor(ProcessorMixin):
    """Image processor and tokenizer together.

    `processor(images=picture, text="Point to the red mug.")` gives tensors with a batch dimension:
    `input_ids` [1, S], `attention_mask` [1, S] and, with a picture, `images` [1, C, P, X],
    `image_masks` [1, C, P] and `image_input_idx` [1, C, T].
    """

    image_processor: MolmoImageProcessor
    tokenizer: PreTrainedTokenizerFast

    def __init__(
        self, image_processor: MolmoImageProcessor, tokenizer: PreTrainedTokenizerFast, **_: Any
    ) -> None:
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.chat_template = None
        self.bos_token_id = self._id_of(END_OF_TEXT)
        self.eos_token_id = self.bos_token_id
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
        images: Image.Image | np.ndarray | None = None,
        text: str = "",
        *,
        formatted: bool = False,
        **_: Any,
    ) -> BatchFeature:
        """Inputs of one question about at most one picture.

        Args:
            images: PIL image or HxWx3 uint8 RGB; None for a question without a picture.
            text: the bare question; the prompt format is put around it here.
            formatted: the text already has the prompt format.
        """
        prompt = text if formatted else format_prompt(text)
        words = np.asarray(self.tokenizer.encode(prompt, add_special_tokens=False), np.int64)
        parts = [np.asarray([self.bos_token_id], np.int64)]
        inputs: dict[str, torch.Tensor] = {}
        if images is not None:
            picture = self.image_processor.process(images, self.marks)
            shifted = np.where(
                picture.image_input_idx >= 0, picture.image_input_idx + 1, picture.image_input_idx
            )
            parts.append(picture.tokens)
            inputs["images"] = torch.from_numpy(picture.images)[None]
            inputs["image_masks"] = torch.from_numpy(picture.image_masks)[None]
            inputs["image_input_idx"] = torch.from_numpy(shifted)[None]
        input_ids = torch.from_numpy(np.concatenate([*parts, words]))[None]
        return BatchFeature({"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), **inputs})

    def decode(self, token_ids: Any, **kwargs: Any) -> str:
        """Text of generated ids, without the end mark."""
        kwargs.setdefault("skip_special_tokens", True)
        return str(self.tokenizer.decode(token_ids, **kwargs))
