"""The bundled model before it has learnt anything: Molmo-7B-D's structure in small.

Next to the model stand the dense lessons (`DenseLessons`), heads that exist in training only. Coordinates as
text alone teach a small network nothing about where things are; saying what lies in each patch, and for the
thing in each image token where in the token its point is and which digits its coordinates have, makes
localisation learn steadily.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2Config

from molmo_ros.molmo import MolmoConfig, MolmoForConditionalGeneration, MolmoImageProcessor, MolmoVisionConfig

#: Bins per axis and image token for the offset of a thing's point.
OFFSET_BINS = 8


def build_model(sizes: dict[str, Any]) -> MolmoForConditionalGeneration:
    """A fresh model from the `model` section of a training configuration."""
    text = Qwen2Config(
        vocab_size=sizes["embedding_size"],
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=False,
        **sizes["text"],
    )
    vision = MolmoVisionConfig(image_size=[sizes["crop_size"]] * 2, **sizes["vision"])
    config = MolmoConfig(text_config=text, vision_config=vision, embedding_size=sizes["embedding_size"])
    model = MolmoForConditionalGeneration(config)
    vit = model.model.vision_backbone.image_vit
    with torch.no_grad():
        grid = model.model.vision_backbone.grid
        vit.positional_embedding[1:].copy_(sine_cosine_positions(grid[0], grid[1], vision.hidden_size))
    return model


def build_image_processor(sizes: dict[str, Any]) -> MolmoImageProcessor:
    """Preprocessing settings that go with `build_model`: the whole picture in one crop, no tiling."""
    patches = sizes["crop_size"] // 14
    return MolmoImageProcessor(
        base_image_input_size=[sizes["crop_size"]] * 2,
        image_token_length_h=patches // 2,
        image_token_length_w=patches // 2,
        max_crops=1,
        overlap_margins=[2, 2],
    )


def sine_cosine_positions(rows: int, cols: int, size: int) -> Tensor:
    """[rows * cols, size] two-dimensional sine and cosine code of the grid (Vaswani et al. 2017, in 2D)."""
    frequencies = 1.0 / 100.0 ** (torch.arange(size // 4) / (size // 4))
    y, x = torch.meshgrid(
        torch.arange(rows, dtype=torch.float), torch.arange(cols, dtype=torch.float), indexing="ij"
    )
    angles = [axis.flatten()[:, None] * frequencies for axis in (x, y)]
    return 0.5 * torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)


@dataclass(frozen=True)
class DenseTruth:
    """What is where in a batch of pictures, on the grids the model sees.

    `patch_kind`, `patch_colour` [B, P]: what covers each patch, 0 = none of the things. `token_kind`,
    `token_colour` [B, T]: the thing whose point lies in each image token, 0 = none. `token_offset` [B, T, 2]:
    place of that point in the token, 0..1 right and down. `token_percent` [B, T, 2]: that point in percent of
    the picture's width and height.
    """

    patch_kind: Tensor
    patch_colour: Tensor
    token_kind: Tensor
    token_colour: Tensor
    token_offset: Tensor
    token_percent: Tensor


class DenseLessons(nn.Module):
    """Heads that say what each patch and each image token shows; dropped after training."""

    def __init__(self, feature_size: int, text_size: int, num_kinds: int, num_colours: int) -> None:
        super().__init__()
        self.patch_sizes = [num_kinds + 1, num_colours + 1]
        self.token_sizes = [num_kinds + 1, num_colours + 1, OFFSET_BINS, OFFSET_BINS, 10, 10, 10, 10]
        self.patch_head = nn.Linear(feature_size, sum(self.patch_sizes))
        self.token_head = nn.Linear(text_size, sum(self.token_sizes))

    def forward(self, features_BPF: Tensor, tokens_BTD: Tensor, truth: DenseTruth) -> tuple[Tensor, Tensor]:
        """Mean cross-entropies of the patches and of the image tokens."""
        kind, colour = self.patch_head(features_BPF).split(self.patch_sizes, dim=-1)
        patch_loss = _rare_cross_entropy(kind, truth.patch_kind) + _rare_cross_entropy(
            colour, truth.patch_colour
        )
        kind, colour, *places = self.token_head(tokens_BTD).split(self.token_sizes, dim=-1)
        token_loss = _rare_cross_entropy(kind, truth.token_kind) + _rare_cross_entropy(
            colour, truth.token_colour
        )
        there = truth.token_kind > 0
        bins = (truth.token_offset[there] * OFFSET_BINS).long().clamp(0, OFFSET_BINS - 1)
        percent = truth.token_percent[there].clamp(0, 99.9)
        answers = [*bins.T, *(percent / 10).long().T, *(percent % 10).long().T]
        for logits, answer in zip(places, answers, strict=True):
            token_loss = token_loss + 0.5 * F.cross_entropy(logits[there], answer)
        return patch_loss, token_loss


def _rare_cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy in which background, being most of the picture, weighs a fifth."""
    weight = logits.new_ones(logits.shape[-1])
    weight[0] = 0.2
    return F.cross_entropy(logits.flatten(0, -2), classes.flatten(), weight=weight)


def count_parameters(module: nn.Module) -> int:
    return sum(math.prod(parameter.shape) for parameter in module.parameters())
