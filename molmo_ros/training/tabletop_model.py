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
from molmo_ros.molmo.modeling import MolmoQwen2Model
from molmo_ros.molmo.vision import VisionTransformer

#: Bins per axis and image token for the offset of a thing's point.
OFFSET_BINS = 8

#: The language model's layer in which one head learns to look at the thing asked about.
GAZE_LAYER = 2


def build_model(sizes: dict[str, Any]) -> MolmoForConditionalGeneration:
    """A fresh model from the `model` section of a training configuration."""
    text = Qwen2Config(
        vocab_size=sizes["embedding_size"],
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=False,
        **sizes["text"],
    )
    vision = MolmoVisionConfig(image_size=sizes["crop_size"], **sizes["vision"])
    config = MolmoConfig(text_config=text, vision_config=vision, embedding_size=sizes["embedding_size"])
    model = MolmoForConditionalGeneration(config)
    vit = model.model.vision_backbone.image_vit
    with torch.no_grad():
        grid = model.model.vision_backbone.grid
        vit.positional_embedding[1:].copy_(sine_cosine_positions(grid[0], grid[1], vision.hidden_size))
    return model


def build_image_processor(sizes: dict[str, Any]) -> MolmoImageProcessor:
    """Preprocessing settings that go with `build_model`: the whole picture in one crop, no tiling."""
    vision = sizes["vision"]
    rows, cols = (
        side // (vision["patch_size"] * pool)
        for side, pool in zip(sizes["crop_size"], vision["pooling_size"], strict=True)
    )
    return MolmoImageProcessor(
        base_image_input_size=sizes["crop_size"],
        image_patch_size=vision["patch_size"],
        image_token_length_h=rows,
        image_token_length_w=cols,
        max_crops=1,
        overlap_margins=[0, 0],
    )


def whiten_patches(vit: VisionTransformer, patches_NX: Tensor) -> None:
    """Start the patch embedding with the principal components of these patches, scaled to equal variance.

    Most of a patch's variance is its mean colour; the fine differences that make shapes are tiny, and from a
    random start they are learnt last. Scaled to the same size, shapes are learnt several times sooner.
    """
    size = len(vit.patch_embedding.weight)
    patches = patches_NX.double()
    mean = patches.mean(dim=0)
    variances, directions = torch.linalg.eigh(torch.cov((patches - mean).T))
    variances, directions = variances.flip(0)[:size], directions.flip(1)[:, :size]
    # Without a floor the last components would be mostly noise.
    floor = variances[min(60, len(variances) - 1)]
    weight = (directions / (variances + floor).sqrt()).T.float()
    with torch.no_grad():
        vit.patch_embedding.weight[: len(weight)].copy_(weight)
        vit.positional_embedding[1:, : len(weight)] -= weight @ mean.float()


def attend_in_bfloat16(q_NHQE: Tensor, k_NHKE: Tensor, v_NHKE: Tensor) -> Tensor:
    """The ViT's attention for training on CPUs with bfloat16 products, several times sooner than in float32."""
    q, k, v = (x.to(torch.bfloat16) for x in (q_NHQE * q_NHQE.shape[-1] ** -0.5, k_NHKE, v_NHKE))
    return torch.matmul(torch.matmul(q, k.transpose(-1, -2)).softmax(dim=-1), v).to(v_NHKE.dtype)


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
        self.asked_head = nn.Linear(text_size, sum(self.patch_sizes))

    def forward(self, features_BPF: Tensor, tokens_BTD: Tensor, truth: DenseTruth) -> tuple[Tensor, Tensor]:
        """Mean cross-entropies of the patches and of the image tokens."""
        patch_loss = self.patches(features_BPF, truth.patch_kind, truth.patch_colour)
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

    def patches(self, features_NPF: Tensor, kind_NP: Tensor, colour_NP: Tensor) -> Tensor:
        """Mean cross-entropy of telling what covers each patch."""
        kind, colour = self.patch_head(features_NPF).split(self.patch_sizes, dim=-1)
        return _rare_cross_entropy(kind, kind_NP) + _rare_cross_entropy(colour, colour_NP)

    def asked(self, hidden_RD: Tensor, kind_R: Tensor, colour_R: Tensor) -> Tensor:
        """Mean cross-entropy of telling, before the answer begins, which kind and colour the words name."""
        kind, colour = self.asked_head(hidden_RD).split(self.patch_sizes, dim=-1)
        return F.cross_entropy(kind, kind_R) + F.cross_entropy(colour, colour_R)


def gaze_loss(
    language_model: MolmoQwen2Model,
    layer_input_BSD: Tensor,
    layer_input_RLD: Tensor,
    image_input_idx_BCT: Tensor,
    look_at_RL: Tensor,
    weights_RL: Tensor,
) -> Tensor:
    """How little the first head of layer `GAZE_LAYER` looks at the thing that is being spoken of.

    Copying a coordinate is easy once some head looks at the right image token, but finding that out from the
    spoken digits alone takes very long. So one head is told where to look.

    Args:
        language_model: whose attention it is.
        layer_input_BSD, layer_input_RLD: what went into that layer for the pictures and for the questions.
        image_input_idx_BCT: places of the image tokens in the pictures' part of the prompt.
        look_at_RL: number of the image token (0..T-1) to look at; -2 = a thing that is not in the picture,
            for which the head is to look at the very first token; -1 = it does not matter.
        weights_RL: how much each position counts.

    Returns:
        Weighted mean negative log share of the attention on that token, in whichever crop.
    """
    layer = language_model.layers[GAZE_LAYER]
    size = layer.self_attn.head_dim
    prefix, own = layer.input_layernorm(layer_input_BSD), layer.input_layernorm(layer_input_RLD)
    questions = len(own) // len(prefix)
    first = prefix.shape[1]

    def head(projection: nn.Linear, x: Tensor, start: int) -> Tensor:
        projected = F.linear(x, projection.weight[:size], projection.bias[:size])
        positions = torch.arange(start, start + x.shape[1])[None]
        cos, sin = language_model.rotary_emb(projected, positions)
        left, right = projected.chunk(2, dim=-1)
        return projected * cos + torch.cat([-right, left], dim=-1) * sin

    attention = layer.self_attn
    row, place = torch.nonzero(look_at_RL != -1, as_tuple=True)
    query_NH = head(attention.q_proj, own, first)[row, place] * size**-0.5
    picture = row // questions
    to_prefix = torch.einsum("nh,nsh->ns", query_NH, head(attention.k_proj, prefix, 0)[picture])
    to_own = torch.einsum("nh,nlh->nl", query_NH, head(attention.k_proj, own, first)[row])
    later = torch.arange(own.shape[1])[None] > place[:, None]
    share = torch.cat([to_prefix, to_own.masked_fill(later, -torch.inf)], dim=1).log_softmax(dim=1)
    token = look_at_RL[row, place]
    targets_NC = image_input_idx_BCT[picture, :, token.clamp(min=0)]
    on_thing = share.gather(1, targets_NC).logsumexp(dim=1)
    weight = weights_RL[row, place]
    return -(torch.where(token < 0, share[:, 0], on_thing) * weight).sum() / weight.sum()


def _rare_cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy in which background, being most of the picture, weighs a fifth."""
    weight = logits.new_ones(logits.shape[-1])
    weight[0] = 0.2
    return F.cross_entropy(logits.flatten(0, -2), classes.flatten(), weight=weight)


def count_parameters(module: nn.Module) -> int:
    return sum(math.prod(parameter.shape) for parameter in module.parameters())
