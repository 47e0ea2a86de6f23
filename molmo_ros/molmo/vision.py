"""From crops to image tokens: CLIP-style ViT, padding embeddings, 2x2 attention pooling, gated projector.

Module names follow the released checkpoints, so the tensors load under their own names. Shapes in names:
B images of the batch, C crops, P patches of a crop, T pooled tokens of a crop, E width of the ViT,
F = E x number of feature layers, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .config import MolmoVisionConfig

#: Value that fills a crop which only pads the batch; its features are zero.
PADDING_CROP_VALUE = -1.0


def _nothing() -> None:
    pass


def attend_in_float32(q_NHQE: Tensor, k_NHKE: Tensor, v_NHKE: Tensor) -> Tensor:
    """Attention in float32 whatever the weights are and under autocast too, as the released code does."""
    with torch.autocast(q_NHQE.device.type, enabled=False):
        attended = F.scaled_dot_product_attention(q_NHQE.float(), k_NHKE.float(), v_NHKE.float())
    return attended.to(v_NHKE.dtype)


class VisionAttention(nn.Module):
    """Multi-head attention with biases; `attend` may be replaced while training."""

    def __init__(self, input_size: int, config: MolmoVisionConfig) -> None:
        super().__init__()
        self.attend: Callable[[Tensor, Tensor, Tensor], Tensor] = attend_in_float32
        inner = config.num_attention_heads * config.head_dim
        self.num_heads = config.num_attention_heads
        self.wq = nn.Linear(input_size, inner)
        self.wk = nn.Linear(input_size, inner)
        self.wv = nn.Linear(input_size, inner)
        self.wo = nn.Linear(inner, config.hidden_size)

    def forward(self, query_NQE: Tensor, memory_NKE: Tensor) -> Tensor:
        q, k, v = (
            rearrange(x, "n s (h d) -> n h s d", h=self.num_heads)
            for x in (self.wq(query_NQE), self.wk(memory_NKE), self.wv(memory_NKE))
        )
        out: Tensor = self.wo(rearrange(self.attend(q, k, v), "n h s d -> n s (h d)"))
        return out


class VisionFeedForward(nn.Module):
    def __init__(self, config: MolmoVisionConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act = ACT2FN[config.hidden_act]
        self.w2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_NPE: Tensor) -> Tensor:
        """On a CPU one crop after the other: what lies between the two products is four times as wide as a crop, and
        of one it stays in the cache."""
        if x_NPE.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._of(x_NPE)
        return torch.stack([self._of(x_PE) for x_PE in x_NPE])

    def _of(self, x: Tensor) -> Tensor:
        out: Tensor = self.w2(self.act(self.w1(x)))
        return out


class VisionBlock(GradientCheckpointingLayer):
    def __init__(self, config: MolmoVisionConfig) -> None:
        super().__init__()
        self.attention = VisionAttention(config.hidden_size, config)
        self.feed_forward = VisionFeedForward(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.ffn_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed)
        out: Tensor = x + self.feed_forward(self.ffn_norm(x))
        return out


class VisionBlocks(nn.Module):
    def __init__(self, config: MolmoVisionConfig) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(VisionBlock(config) for _ in range(config.num_hidden_layers))


class VisionTransformer(nn.Module):
    """The ViT up to the last block that features are taken from (Radford et al. 2021, CLIP)."""

    def __init__(self, config: MolmoVisionConfig) -> None:
        super().__init__()
        self.feature_layers = [layer % config.num_hidden_layers for layer in config.feature_layers or ()]
        self.class_embedding = nn.Parameter(torch.empty(config.hidden_size))
        self.positional_embedding = nn.Parameter(torch.empty(config.num_positions, config.hidden_size))
        self.patch_embedding = nn.Linear(3 * config.patch_size**2, config.hidden_size, bias=False)
        self.pre_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.transformer = VisionBlocks(config)

    def forward(self, crops_NPX: Tensor, before_layer: Callable[[], None] = _nothing) -> Tensor:
        """Flattened patches [N, P, 3 * patch^2] to features [N, P, F], class token dropped.

        `before_layer` is called before every block; what it raises ends the work.
        """
        x = self.patch_embedding(crops_NPX)
        x = torch.cat([self.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        x = self.pre_ln(x + self.positional_embedding.to(x.dtype))
        taken: dict[int, Tensor] = {}
        for index, block in enumerate(self.transformer.resblocks[: max(self.feature_layers) + 1]):
            before_layer()
            x = block(x)
            if index in self.feature_layers:
                taken[index] = x[:, 1:]
        return torch.cat([taken[layer] for layer in self.feature_layers], dim=-1)


class ImageProjector(nn.Module):
    """w2(silu(w1 x) * w3 x): `w1` is the gate here, unlike in the language model's fused feed-forward."""

    def __init__(self, config: MolmoVisionConfig, text_size: int) -> None:
        super().__init__()
        assert config.projector_size is not None
        self.w1 = nn.Linear(config.hidden_size, config.projector_size, bias=False)
        self.w2 = nn.Linear(config.projector_size, text_size, bias=False)
        self.w3 = nn.Linear(config.hidden_size, config.projector_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return out


class VisionBackbone(nn.Module):
    """Crops and their padding masks to image tokens in the language model's width."""

    def __init__(self, config: MolmoVisionConfig, text_size: int) -> None:
        super().__init__()
        assert config.image_size is not None and config.pooling_size is not None
        self.grid = [side // config.patch_size for side in config.image_size]
        self.pooling = config.pooling_size
        feature_size = config.hidden_size * len(config.feature_layers or ())
        self.image_vit = VisionTransformer(config)
        self.pad_embed = nn.Parameter(torch.empty(2, feature_size))
        self.image_pooling_2d = VisionAttention(feature_size, config)
        self.image_projector = ImageProjector(config, text_size)

    def features(self, images_BCPX: Tensor, before_layer: Callable[[], None] = _nothing) -> Tensor:
        """ViT features [B, C, P, F] of normalised, flattened patches; zero for crops that pad the batch."""
        if images_BCPX.shape[1] == 2 and torch.equal(images_BCPX[:, 0], images_BCPX[:, 1]):
            # A picture that fits into one crop is that crop: looked at once, it serves for both.
            return self.features(images_BCPX[:, :1], before_layer).expand(-1, 2, -1, -1)
        crops = rearrange(images_BCPX, "b c p x -> (b c) p x")
        is_real = ~(crops == PADDING_CROP_VALUE).all(dim=-1).all(dim=-1)
        crops = crops.to(self.pad_embed.dtype)
        if is_real.all():
            features = self.image_vit(crops, before_layer)
        else:
            seen = self.image_vit(crops[is_real], before_layer)
            features = seen.new_zeros(len(crops), *seen.shape[1:]).index_put((is_real,), seen)
        return rearrange(features, "(b c) p f -> b c p f", b=len(images_BCPX))

    def forward(
        self, images_BCPX: Tensor, image_masks_BCP: Tensor, before_layer: Callable[[], None] = _nothing
    ) -> Tensor:
        """Image tokens [B, C, T, D]. `before_layer`: see `VisionTransformer.forward`."""
        return self.pool(self.features(images_BCPX, before_layer), image_masks_BCP)

    def pool(self, features_BCPF: Tensor, image_masks_BCP: Tensor) -> Tensor:
        """Features with padding embeddings, pooled and projected: [B, C, T, D].

        A mask of 0 is pure padding. Anything below 1 counts as partly padded, -1 included: the released
        weights were trained on masks one row off, whose last row is -1.
        """
        masks = image_masks_BCP.to(features_BCPF.dtype)[..., None]
        is_padding = masks == 0
        is_partial = (masks < 1) & ~is_padding
        x = features_BCPF + is_padding * self.pad_embed[0] + is_partial * self.pad_embed[1]
        batch = len(x)
        x = rearrange(x, "b c (h w) f -> (b c) h w f", h=self.grid[0])
        rows, cols = self.pooling
        if self.grid[0] % rows or self.grid[1] % cols:
            x = F.pad(x, (0, 0, 0, -self.grid[1] % cols, 0, -self.grid[0] % rows))
        tokens = x.shape[1] // rows * (x.shape[2] // cols)
        windows = rearrange(x, "n (h p) (w q) f -> (n h w) (p q) f", p=rows, q=cols)
        pooled = self.image_pooling_2d(windows.mean(dim=1, keepdim=True), windows)
        pooled = rearrange(pooled, "(b c t) 1 e -> b c t e", b=batch, t=tokens)
        projected: Tensor = self.image_projector(pooled)
        return projected
