"""Tiny random checkpoints of other families, laid out as their releases are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Florence2Config,
    Florence2ForConditionalGeneration,
    Molmo2Config,
    Molmo2ForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}PLACE{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 4096, "bos_token_id": None,
}  # fmt: skip
#: A repository's own code, which must not run.
BOMB = "raise SystemExit('code of the checkpoint ran')\n"


def byte_tokenizer(special: list[str], **named: Any) -> PreTrainedTokenizerFast:
    """Every byte is a token, so every digit is one too."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: n for n, sign in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def write(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    pictures: dict[str, Any],
    processor: dict[str, Any],
) -> Path:
    """The files of a release, its own code included."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    (folder / "processor_config.json").write_text(
        json.dumps({"auto_map": {"AutoProcessor": "bomb.Processor"}} | processor)
    )
    (folder / "bomb.py").write_text(BOMB)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "bomb.Config", "AutoModelForImageTextToText": "bomb.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def molmo2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    marks = [
        "<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<low_res_im_start>", "<frame_start>", "<frame_end>",
        "<im_low>", "<|image|>", "<|video|>",
    ]  # fmt: skip
    tokenizer = byte_tokenizer([*CHAT_TOKENS, *marks], eos_token="<|im_end|>", pad_token="<|endoftext|>")
    place = tokenizer.convert_tokens_to_ids
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64}
    torch.manual_seed(0)
    config = Molmo2Config(
        text_config=TEXT | {
            "vocab_size": len(tokenizer), "additional_vocab_size": 8,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
        vision_config=heads | {"hidden_size": 32, "num_hidden_layers": 2, "image_size": [56, 56], "patch_size": 14},
        adapter_config=heads | {"hidden_size": 32, "text_hidden_size": 32, "vision_feature_layer": [1, 0]},
        image_start_token_id=place("<im_start>"), low_res_image_start_token_id=place("<low_res_im_start>"),
        image_end_token_id=place("<im_end>"), image_patch_id=place("<im_patch>"),
        frame_start_token_id=place("<frame_start>"), frame_end_token_id=place("<frame_end>"),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("molmo2")
    (folder / "chat_template.jinja").write_text(CHAT.replace("PLACE", "<|image|>"))
    return write(
        folder,
        Molmo2ForConditionalGeneration(config),
        tokenizer,
        {
            "image_processor_type": "Molmo2ImageProcessor",
            "auto_map": {"AutoImageProcessor": "bomb.ImageProcessor"},
            "size": {"height": 56, "width": 56},
            "max_crops": 4,
            "overlap_margins": [1, 1],
        },
        {"processor_class": "Molmo2Processor", "image_use_col_tokens": True},
    )


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    marks = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    return byte_tokenizer([*CHAT_TOKENS, *marks], eos_token="<|im_end|>", pad_token="<|endoftext|>")


def qwen_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        name: tokenizer.convert_tokens_to_ids(token)
        for name, token in {
            "image_token_id": "<|image_pad|>",
            "video_token_id": "<|video_pad|>",
            "vision_start_token_id": "<|vision_start|>",
            "vision_end_token_id": "<|vision_end|>",
        }.items()
    }


def write_qwen(folder: Path, model: PreTrainedModel, patch_size: int) -> Path:
    template = CHAT.replace("PLACE", "<|vision_start|><|image_pad|><|vision_end|>")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    # What the releases ask for; neither may bend coordinates.
    model.generation_config.update(do_sample=True, repetition_penalty=1.5, temperature=0.7)
    pictures = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": patch_size,
        "max_pixels": 20_000,
    }
    return write(folder, model, qwen_tokenizer(), pictures, {})


@pytest.fixture(scope="session")
def qwen2_5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = qwen_tokenizer()
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config=TEXT | {"vocab_size": len(tokenizer), "rope_parameters": rope, "eos_token_id": None},
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
            "fullatt_block_indexes": [1], "window_size": 56,
        },
        **qwen_ids(tokenizer),
    )  # fmt: skip
    return write_qwen(tmp_path_factory.mktemp("qwen2_5"), Qwen2_5_VLForConditionalGeneration(config), 14)


@pytest.fixture(scope="session")
def qwen3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = qwen_tokenizer()
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    torch.manual_seed(0)
    config = Qwen3VLConfig(
        text_config=TEXT | {"vocab_size": len(tokenizer), "rope_parameters": rope, "eos_token_id": None},
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
            "patch_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
        },
        **qwen_ids(tokenizer),
    )  # fmt: skip
    return write_qwen(tmp_path_factory.mktemp("qwen3"), Qwen3VLForConditionalGeneration(config), 16)


@pytest.fixture(scope="session")
def florence2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    places = [f"<loc_{n}>" for n in range(1000)]
    tokenizer = byte_tokenizer(
        ["<s>", "<pad>", "</s>", "<image>", *places], bos_token="<s>", pad_token="<pad>", eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in {
        "bos": "<s>", "pad": "<pad>", "eos": "</s>", "image": "<image>", "decoder_start": "</s>",
    }.items()}  # fmt: skip
    text = {name: value for name, value in ids.items() if name != "image_token_id"}
    layers = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in {
        "layers": 1, "ffn_dim": 64, "attention_heads": 2,
    }.items()}  # fmt: skip
    torch.manual_seed(0)
    config = Florence2Config(
        text_config={
            "model_type": "bart", "vocab_size": len(tokenizer), "d_model": 32, "max_position_embeddings": 512,
            **layers, **text,
        },
        vision_config={
            "depths": [1, 1], "embed_dim": [16, 32], "num_heads": [2, 2], "num_groups": [2, 2],
            "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1], "patch_prenorm": [False, True],
            "window_size": 4, "projection_dim": 32, "max_position_embeddings": 20, "drop_path_rate": 0.0,
        },
        **ids,
    )  # fmt: skip
    model = Florence2ForConditionalGeneration(config)
    return write(
        tmp_path_factory.mktemp("florence2"),
        model,
        tokenizer,
        {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"height": 32, "width": 32},
            "do_center_crop": False,
            "image_seq_length": 17,
        },
        {"processor_class": "Florence2Processor"},
    )


Script = Callable[..., None]


@pytest.fixture
def script() -> Script:
    """Puts words into a model's mouth: `script(pointer, answer, doubts={4: {"7": 0.3}})`.

    The logits of its forward passes are replaced, token by token; at the places in `doubts` (in tokens) other
    tokens have these probabilities. What was put there before is forgotten.
    """
    handles: list[Any] = []

    def put(pointer: Any, answer: str, doubts: dict[int, dict[str, float]] | None = None) -> None:
        tokenizer = pointer.processor.tokenizer
        said = [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]
        passes = iter(range(len(said)))

        def speak(_model: Any, _inputs: Any, output: Any) -> Any:
            place = next(passes)
            others = {tokenizer.convert_tokens_to_ids(t): p for t, p in (doubts or {}).get(place, {}).items()}
            row = torch.full_like(output.logits[0, -1], -1e9)
            for token, probability in ({said[place]: 1 - sum(others.values())} | others).items():
                row[token] = torch.tensor(probability).log()
            output.logits[0, -1] = row
            return output

        while handles:
            handles.pop().remove()
        handles.append(pointer.model.register_forward_hook(speak))

    return put
