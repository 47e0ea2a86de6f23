"""Molmo for transformers 5: our image side in front of a native language model.

The language model is transformers' own class, fed through `inputs_embeds`; only its embedding table is
ours, since Molmo looks tokens up in two tables. Tensors keep their released names on disk: the renaming
and the splitting of fused rows is declared in `checkpoint.py` and run by transformers itself, so
`from_pretrained` and `save_pretrained` work as for any model.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    Cache,
    GenerationMixin,
    Olmo2Config,
    Olmo2Model,
    OlmoeConfig,
    OlmoeModel,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2Model,
)
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast

from .config import MolmoConfig, MolmoVisionConfig
from .placement import place_tensors
from .stored_tensors import stored_tensors, without_progress_bar, without_threads
from .vision import VisionBackbone, VisionTransformer


class TokenEmbedding(nn.Module):
    """Rows 0..embedding_size-1 in `embedding`, the ids above in `new_embedding`."""

    def __init__(self, num_rows: int, num_new_rows: int, size: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(num_rows, size))
        self.new_embedding = nn.Parameter(torch.empty(num_new_rows, size))

    @property
    def weight(self) -> Tensor:
        """The first table, which is the one whose rows the output head shares."""
        return self.embedding

    def forward(self, input_ids: Tensor) -> Tensor:
        num_rows = len(self.embedding)
        is_new = input_ids >= num_rows
        known = nn.functional.embedding(input_ids.masked_fill(is_new, 0), self.embedding)
        new = nn.functional.embedding((input_ids - num_rows).clamp(min=0), self.new_embedding)
        return torch.where(is_new[..., None], new, known)


class MolmoQwen2Model(Qwen2Model):
    """Qwen2's layers without an embedding table of their own; the families of Molmo-7B-D and Molmo-72B.

    A class of its own so that the conversion of its tensor names belongs to this family alone.
    """

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        del self.embed_tokens


class MolmoOlmo2Model(Olmo2Model):
    """Olmo2's layers without an embedding table of their own; the family of Molmo-7B-O."""

    def __init__(self, config: Olmo2Config) -> None:
        super().__init__(config)
        del self.embed_tokens


class MolmoOlmoeModel(OlmoeModel):
    """OLMoE's layers without an embedding table of their own; the family of MolmoE-1B."""

    def __init__(self, config: OlmoeConfig) -> None:
        super().__init__(config)
        del self.embed_tokens


_TEXT_MODELS: dict[type[PreTrainedConfig], type[PreTrainedModel]] = {
    Qwen2Config: MolmoQwen2Model,
    Olmo2Config: MolmoOlmo2Model,
    OlmoeConfig: MolmoOlmoeModel,
}


class MolmoPreTrainedModel(PreTrainedModel):
    config_class = MolmoConfig
    config: MolmoConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["Qwen2DecoderLayer", "Olmo2DecoderLayer", "OlmoeDecoderLayer", "VisionBlock"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @classmethod
    def get_init_context(cls, *args: Any, **kwargs: Any) -> list[Any]:
        """The step of `from_pretrained` that builds the model without memory: what has none gets no random numbers."""
        return [*super().get_init_context(*args, **kwargs), init.no_init_weights()]

    @staticmethod
    def _load_pretrained_model(
        model: PreTrainedModel,
        state_dict: dict[str, Any] | None,
        checkpoint_files: list[str] | None,
        load_config: Any,
        expected_keys: list[str] | None = None,
    ) -> Any:
        """The step of `from_pretrained` that reads the files; see `stored_tensors` and `place_tensors` for what is
        done differently."""
        special = load_config.dtype_plan or load_config.device_mesh is not None or load_config.disable_mmap
        files = checkpoint_files if state_dict is None and not load_config.is_quantized else None
        on_cpu = {str(device) for device in (load_config.device_map or {"": "cpu"}).values()} == {"cpu"}
        placed: set[str] = set()
        with stored_tensors(files, load_config.dtype) as (tensors, mapped), ExitStack() as stack:
            if tensors is not None and mapped and on_cpu and not special:
                placed, tensors = place_tensors(model, tensors, load_config.weight_mapping or [])
                stack.enter_context(without_threads())
                if not tensors:
                    stack.enter_context(without_progress_bar())
            if tensors is not None and (placed or not mapped):
                state_dict = tensors
            info, offloaded = PreTrainedModel._load_pretrained_model(
                model, state_dict, checkpoint_files, load_config, expected_keys
            )
            info.missing_keys.difference_update(placed)
            return info, offloaded

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, TokenEmbedding):
            init.normal_(module.embedding, mean=0.0, std=std)
            init.normal_(module.new_embedding, mean=0.0, std=std)
        elif isinstance(module, VisionTransformer):
            init.normal_(module.class_embedding, mean=0.0, std=std)
            init.normal_(module.positional_embedding, mean=0.0, std=std)
        elif isinstance(module, VisionBackbone):
            init.zeros_(module.pad_embed)


class MolmoModel(MolmoPreTrainedModel):
    """Image side and language model, up to the final norm."""

    def __init__(self, config: MolmoConfig) -> None:
        super().__init__(config)
        text, vision = config.text_config, config.vision_config
        assert isinstance(text, PreTrainedConfig) and isinstance(vision, MolmoVisionConfig)
        self.wte = TokenEmbedding(config.embedding_size, config.additional_vocab_size, text.hidden_size)
        self.vision_backbone = VisionBackbone(vision, text.hidden_size)
        self.language_model = _TEXT_MODELS[type(text)]._from_config(text)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.wte

    def embed(
        self,
        input_ids_BS: Tensor,
        image_tokens_BCTD: Tensor | None = None,
        image_input_idx_BCT: Tensor | None = None,
    ) -> Tensor:
        """Token embeddings [B, S, D] with each image token added at its position; negative positions are unused."""
        embeds = self.wte(input_ids_BS)
        if image_tokens_BCTD is None:
            return embeds
        if image_input_idx_BCT is None:
            raise ValueError("images need image_input_idx, the position of every image token in input_ids")
        used = image_input_idx_BCT >= 0
        row = torch.arange(len(embeds), device=embeds.device)[:, None, None].expand_as(image_input_idx_BCT)
        return embeds.index_put(
            (row[used], image_input_idx_BCT[used]), image_tokens_BCTD[used].to(embeds.dtype), accumulate=True
        )

    def forward(
        self,
        input_ids: Tensor | None = None,
        images: Tensor | None = None,
        image_masks: Tensor | None = None,
        image_input_idx: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """See `MolmoForConditionalGeneration.forward`; the output is the language model's."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if input_ids is not None:
            image_tokens = None
            if images is not None:
                if image_masks is None:
                    image_masks = images.new_ones(images.shape[:3])
                image_tokens = self.vision_backbone(images, image_masks)
            inputs_embeds = self.embed(input_ids, image_tokens, image_input_idx)
        assert inputs_embeds is not None
        starts_here = past_key_values is None or past_key_values.get_seq_length() == 0
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2 and starts_here:
            # Left padding does not count, so that a row of a batch sees the positions it has alone.
            position_ids = (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)[
                :, -inputs_embeds.shape[1] :
            ]
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )


@dataclass
class MolmoOutput(CausalLMOutputWithPast):
    """Loss (when labels were given), logits [B, S, embedding_size], cache, hidden states, attentions."""


class MolmoForConditionalGeneration(MolmoPreTrainedModel, GenerationMixin):
    """Molmo with its output head; `generate` feeds the images at the first step only."""

    def __new__(cls, config: MolmoConfig | None = None, *_: Any, **__: Any) -> MolmoForConditionalGeneration:
        """MolmoE-1B keeps its head under another name on disk, and names belong to classes."""
        # Copying and unpickling make the object without a configuration, and of the right class already.
        is_mixture = config is not None and isinstance(config.text_config, OlmoeConfig)
        if cls is MolmoForConditionalGeneration and is_mixture:
            return super().__new__(MolmoEForConditionalGeneration)
        return super().__new__(cls)

    def __init__(self, config: MolmoConfig) -> None:
        super().__init__(config)
        self.model = MolmoModel(config)
        assert isinstance(config.text_config, PreTrainedConfig)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.embedding_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(
        self,
        input_ids: Tensor | None = None,
        images: Tensor | None = None,
        image_masks: Tensor | None = None,
        image_input_idx: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> MolmoOutput:
        """One step of the whole model.

        Args:
            input_ids: [B, S] token ids, image marks included.
            images: [B, C, P, 3 * patch^2] normalised flattened patches; crop 0 is the whole image.
            image_masks: [B, C, P] share of real pixels in each patch, as the image processor gives it.
            image_input_idx: [B, C, T] position in `input_ids` of each image token, negative = unused.
            attention_mask, position_ids, past_key_values, inputs_embeds, use_cache: as in transformers.
            labels: [B, S] ids for the next-token loss; -100 and ids of image marks are not counted.
            logits_to_keep: compute logits for the last N positions only (0 = all), or for these indices.
        """
        outputs = self.model(
            input_ids=input_ids,
            images=images,
            image_masks=image_masks,
            image_input_idx=image_input_idx,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, keep])
        loss = None
        if labels is not None:
            # The head has no rows for the ids of the second table, the image marks of some releases.
            labels = labels.masked_fill(labels >= self.config.embedding_size, -100)
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.embedding_size, **kwargs
            )
        return MolmoOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        images: Tensor | None = None,
        image_masks: Tensor | None = None,
        image_input_idx: Tensor | None = None,
        is_first_iteration: bool = False,
        use_cache: bool | None = True,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The inputs of one `generate` step: image features enter once, then live in the cache."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, use_cache=use_cache, **kwargs
        )
        if is_first_iteration or not use_cache:
            inputs.update(images=images, image_masks=image_masks, image_input_idx=image_input_idx)
        return inputs


class MolmoEForConditionalGeneration(MolmoForConditionalGeneration):
    """What `MolmoForConditionalGeneration` becomes for a checkpoint of MolmoE-1B's family."""
