"""Vision-language models of other families that transformers knows by itself: their processors and their formats.

transformers' processors of these models come with a side for videos, and Molmo2's with a side for pictures, that
need torchvision. Only pictures are asked about here, and those two sides are replaced, so torchvision is not
needed: the rest (prompt layout, placeholders, sizes) is transformers' own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoTokenizer,
    BatchFeature,
    Florence2Processor,
    Molmo2Processor,
    Qwen2_5_VLProcessor,
    Qwen2VLProcessor,
    Qwen3VLProcessor,
)
from transformers.image_utils import SizeDict
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from molmo_ros.molmo import MolmoImageProcessor, MolmoProcessor
from molmo_ros.pointing.formats import PointFormat


class Molmo2Pictures(Molmo2ImageProcessor):
    """Molmo2's image processor with the two functions of torchvision that it calls written in torch."""

    def resize(self, image: Tensor, size: SizeDict, antialias: bool = True, **_: Any) -> Tensor:
        """[..., C, H, W] float, bilinear, as torchvision does it with tensors."""
        shape = [size.height, size.width]
        batch = image.reshape(-1, *image.shape[-3:])
        resized = F.interpolate(batch, shape, mode="bilinear", align_corners=False, antialias=antialias)
        return resized.reshape(*image.shape[:-2], *shape)

    def normalize(self, image: Tensor, mean: Iterable[float], std: Iterable[float], **_: Any) -> Tensor:
        """[..., C, H, W] float."""
        mean_C11, std_C11 = (torch.as_tensor(side, dtype=image.dtype)[:, None, None] for side in (mean, std))
        return (image - mean_C11) / std_C11


class _WithoutVideo:
    """Lets a processor of transformers be made with None for its video side."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        if argument is None:
            return None
        return super().check_argument_for_proper_class(argument_name, argument)  # type: ignore[misc]


class _Molmo2(_WithoutVideo, Molmo2Processor):
    pass


class _Qwen2VL(_WithoutVideo, Qwen2VLProcessor):
    pass


class _Qwen25VL(_WithoutVideo, Qwen2_5_VLProcessor):
    pass


class _Qwen3VL(_WithoutVideo, Qwen3VLProcessor):
    pass


@dataclass(frozen=True)
class Family:
    """A family as `model_type` of config.json names it.

    `formats`: the point formats that its released checkpoints were trained with, the best first. `sole_format`:
    whether the first of them is the only one, so that it need not be configured. `chats`: whether the question
    goes through the checkpoint's chat template. `says_input_size`: whether the size of the resized picture is
    known, which formats in pixels need.
    """

    processor: type[Any]
    image_processor: type[Any]
    formats: tuple[str, ...]
    sole_format: bool = False
    chats: bool = True
    says_input_size: bool = False

    def check(self, spoken: PointFormat) -> None:
        """ValueError for a format in pixels of the model's input, where these are not known."""
        if spoken.extent is None and not self.says_input_size:
            raise ValueError(
                f"point_format {spoken.name} is in pixels of the model's input, which are not known of this "
                f"family; its released checkpoints speak {' or '.join(self.formats)}"
            )

    def load_processor(self, folder: Path) -> Any:
        """From the files of a checkpoint folder, none of which is run; raises what transformers raises."""
        parts = {
            "image_processor": self.image_processor.from_pretrained(folder, local_files_only=True),
            "tokenizer": AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            ),
        }
        settings, _ = self.processor.get_processor_dict(str(folder), local_files_only=True)
        in_order = [parts.get(name) for name in self.processor.get_attributes()]
        processor = self.processor.from_args_and_dict(in_order, settings)
        if self.chats and not (processor.chat_template or processor.tokenizer.chat_template):
            raise ValueError("there is no chat template; copy chat_template.jinja from the release")
        return processor

    def inputs(self, processor: Any, picture: Image.Image, question: str) -> BatchFeature:
        """Model inputs of one question about one picture; ValueError for a picture of an impossible shape."""
        text = question
        if self.chats:
            content = [{"type": "image"}, {"type": "text", "text": question}]
            text = processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
        return processor(images=[picture], text=[text], return_tensors="pt")

    def input_size(self, processor: Any, inputs: BatchFeature) -> tuple[int, int] | None:
        """Width and height in pixels of the picture as the model sees it; None where that is not known."""
        if not self.says_input_size:
            return None
        _, rows, columns = inputs["image_grid_thw"][0].tolist()
        patch = processor.image_processor.patch_size
        return columns * patch, rows * patch


_QWEN = {"image_processor": Qwen2VLImageProcessorPil, "says_input_size": True}

#: By `model_type` of config.json. MolmoProcessor puts its own format around a question.
FAMILIES: dict[str, Family] = {
    "molmo": Family(
        MolmoProcessor, MolmoImageProcessor, ("molmo", "graspmolmo"), sole_format=True, chats=False
    ),
    "molmo2": Family(_Molmo2, Molmo2Pictures, ("molmo2",), sole_format=True),
    "qwen2_vl": Family(_Qwen2VL, formats=("qwen2_vl",), **_QWEN),
    "qwen2_5_vl": Family(_Qwen25VL, formats=("qwen2_5_vl", "qwen2_5_vl_xml"), **_QWEN),
    "qwen3_vl": Family(_Qwen3VL, formats=("qwen3_vl",), **_QWEN),
    "qwen3_vl_moe": Family(_Qwen3VL, formats=("qwen3_vl",), **_QWEN),
    "florence2": Family(
        Florence2Processor, CLIPImageProcessorPil, ("florence2_boxes", "florence2_outlines"), chats=False
    ),
}
