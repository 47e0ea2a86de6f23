"""What a Molmo checkpoint is made of: one configuration for the released spellings.

`config.json` of Molmo-7B-D, 7B-O and 72B is flat and has no vision section (the vision part is the same
ViT-L/14 at 336 px in every release); MolmoE-1B's keeps the spelling of its training code. `MolmoConfig`
reads both, keeps them as a text and a vision configuration in the terms of transformers, and writes the
released spelling back (`text_config.py`). Checkpoints of other sizes may carry a `vision_backbone` dict and
`vit_layers`, spelled as in MolmoE-1B's file.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig, Qwen2Config

from .text_config import released_spelling, text_config_of

#: Rows of the second embedding table, the same in every release; ids from `embedding_size` on look there.
ADDITIONAL_VOCAB_SIZE = 128


class MolmoVisionConfig(PreTrainedConfig):
    """The image side: a CLIP-style ViT, 2x2 attention pooling and a gated projector.

    The defaults are those of every released checkpoint (OpenAI's ViT-L/14 at 336 px less its last block).

    Args:
        image_size: pixels (height, width) of one crop.
        patch_size: side of a patch in pixels.
        hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, head_dim: the ViT.
        hidden_act, layer_norm_eps: its activation and LayerNorm epsilon.
        feature_layers: blocks whose outputs are concatenated, in this order; negative counts from the end.
        pooling_size: patches (height, width) pooled into one image token.
        projector_size: inner width of the projector; None takes the language model's feed-forward width.
    """

    model_type = "molmo_vision"
    base_config_key = "vision_config"

    image_size: list[int] | None = None
    patch_size: int = 14
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 23
    num_attention_heads: int = 16
    head_dim: int = 64
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    feature_layers: list[int] | None = None
    pooling_size: list[int] | None = None
    projector_size: int | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        self.image_size = list(self.image_size or (336, 336))
        self.feature_layers = list(self.feature_layers or (-2, -9))
        self.pooling_size = list(self.pooling_size or (2, 2))
        super().__post_init__(**kwargs)

    @property
    def num_positions(self) -> int:
        """Patches of a crop plus the class token."""
        rows, cols = (side // self.patch_size for side in self.image_size or (0, 0))
        return int(rows * cols + 1)

    @classmethod
    def from_released(cls, vision_backbone: dict[str, Any] | None, **extra: Any) -> MolmoVisionConfig:
        """From the `vision_backbone` dict of a released file, or the releases' fixed values where there is none."""
        spelled = vision_backbone or {}
        renamed = {ours: spelled[theirs] for theirs, ours in _VISION_SPELLING.items() if theirs in spelled}
        return cls(**renamed, **extra)

    def to_released(self) -> dict[str, Any]:
        """The `vision_backbone` dict in the released spelling."""
        spelled = {theirs: getattr(self, ours) for theirs, ours in _VISION_SPELLING.items()}
        return spelled | {"image_model_type": "openai", "image_num_pos": self.num_positions}


_VISION_SPELLING = {
    "image_default_input_size": "image_size",
    "image_patch_size": "patch_size",
    "image_emb_dim": "hidden_size",
    "image_mlp_dim": "intermediate_size",
    "image_num_layers": "num_hidden_layers",
    "image_num_heads": "num_attention_heads",
    "image_head_dim": "head_dim",
    "image_mlp_activations": "hidden_act",
    "image_norm_eps": "layer_norm_eps",
}


class MolmoConfig(PreTrainedConfig):
    """A whole Molmo: `text_config` (a transformers language model), `vision_config`, and the two embedding tables.

    Reads the spellings of all four releases and writes the same spelling back on saving. The class of
    `text_config` is the family: Qwen2 (Molmo-7B-D, Molmo-72B), Olmo2 (Molmo-7B-O), OLMoE (MolmoE-1B).

    Args:
        text_config: the language model in transformers' terms.
        vision_config: the image side.
        embedding_size: rows of the first embedding table and of the output head.
        additional_vocab_size: rows of the second embedding table (image marks of D and 72B live there).

    Raises:
        ValueError: a configuration that fits none of the released families.
    """

    model_type = "molmo"
    sub_configs_defaults = {"text_config": Qwen2Config, "vision_config": MolmoVisionConfig}

    text_config: Any = None
    vision_config: Any = None
    embedding_size: int = 152064
    additional_vocab_size: int = ADDITIONAL_VOCAB_SIZE
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        if self.text_config is None:
            self.text_config, kwargs = text_config_of(kwargs)
        if self.vision_config is None:
            self.vision_config = MolmoVisionConfig.from_released(
                kwargs.pop("vision_backbone", None),
                feature_layers=kwargs.pop("vit_layers", None),
                pooling_size=[kwargs.pop("image_pooling_h", 2), kwargs.pop("image_pooling_w", 2)],
            )
        if kwargs.get("weight_tying") or self.tie_word_embeddings:
            raise ValueError("no Molmo shares its output head with its embeddings; set weight_tying to false")
        super().__post_init__(**kwargs)
        if self.vision_config.projector_size is None:
            self.vision_config.projector_size = self.text_config.intermediate_size

    def to_dict(self) -> dict[str, Any]:
        """The released spelling of the family, with the vision section spelled out."""
        output: dict[str, Any] = super().to_dict()
        text, vision = self.text_config, self.vision_config
        assert isinstance(text, PreTrainedConfig) and isinstance(vision, MolmoVisionConfig)
        assert vision.pooling_size is not None
        output.pop("text_config"), output.pop("vision_config")
        output.setdefault("architectures", None)
        output.update(
            released_spelling(text),
            weight_tying=False,
            vision_backbone=vision.to_released(),
            vit_layers=vision.feature_layers,
            image_pooling_h=vision.pooling_size[0],
            image_pooling_w=vision.pooling_size[1],
        )
        return output

    def to_diff_dict(self) -> dict[str, Any]:
        """What `save_pretrained` writes: the whole released spelling, nothing left to defaults."""
        output = self.to_dict()
        output.pop("_name_or_path", None)
        self.dict_dtype_to_str(output)
        return output
