"""What users of transformers expect of any model in it."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    core_model_loading,
)

from molmo_ros.molmo import (
    MolmoConfig,
    MolmoForConditionalGeneration,
    MolmoImageProcessor,
    MolmoModel,
    MolmoProcessor,
)

GOLDENS = Path(__file__).parent.parent / "data" / "goldens"
FAMILIES = ("D", "O", "E", "72B")

every_family = pytest.mark.parametrize("family", FAMILIES)


def folder(family: str) -> Path:
    return GOLDENS / family / "checkpoint"


@cache
def model(family: str) -> MolmoForConditionalGeneration:
    return MolmoForConditionalGeneration.from_pretrained(folder(family)).eval()


@cache
def inputs(family: str) -> dict[str, torch.Tensor]:
    processor = MolmoProcessor.from_pretrained(folder(family))
    return dict(processor(Image.open(GOLDENS / "images" / "wide.png"), "Point to the red mug."))


BOMB = "raise SystemExit('code of the checkpoint folder ran')\n"


@pytest.mark.parametrize("trust", [None, False, True])
@every_family
def test_no_code_of_a_checkpoint_folder_runs(family: str, trust: bool | None, tmp_path: Path) -> None:
    """Every file the released `auto_map`s name is there and would end the test run."""
    bombed = Path(shutil.copytree(folder(family), tmp_path / "bombed"))
    for name in (
        "modeling_molmo", "config_molmo", "modeling_molmoe", "config_molmoe", "preprocessing_molmo",
        "image_preprocessing_molmo",
    ):  # fmt: skip
        (bombed / f"{name}.py").write_text(BOMB)
    assert "auto_map" in json.loads((bombed / "config.json").read_text())
    options = {} if trust is None else {"trust_remote_code": trust}
    assert isinstance(AutoConfig.from_pretrained(bombed, **options), MolmoConfig)
    assert isinstance(AutoModel.from_pretrained(bombed, **options), MolmoModel)
    for auto in (AutoModelForCausalLM, AutoModelForImageTextToText):
        assert isinstance(auto.from_pretrained(bombed, **options), MolmoForConditionalGeneration)
    assert isinstance(AutoProcessor.from_pretrained(bombed, **options), MolmoProcessor)
    assert isinstance(AutoImageProcessor.from_pretrained(bombed, **options), MolmoImageProcessor)
    assert isinstance(MolmoProcessor.from_pretrained(bombed, **options), MolmoProcessor)


@every_family
def test_the_base_model_gives_the_hidden_states_of_the_whole_model(family: str) -> None:
    base = AutoModel.from_pretrained(folder(family)).eval()
    hidden = model(family)(**inputs(family), output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(base(**inputs(family)).last_hidden_state, hidden)


@every_family
def test_a_static_cache_gives_the_tokens_of_a_dynamic_one(family: str) -> None:
    options = {"max_new_tokens": 8, "do_sample": False}
    dynamic = model(family).generate(**inputs(family), **options)
    static = model(family).generate(**inputs(family), **options, cache_implementation="static")
    assert static.tolist() == dynamic.tolist()


@every_family
def test_beam_search_finds_answers_at_least_as_likely_as_greedy_ones(family: str) -> None:
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    start = inputs(family)["input_ids"].shape[1]

    def likelihood(sequence: torch.Tensor) -> float:
        about = inputs(family) | {
            "input_ids": sequence[None],
            "attention_mask": torch.ones_like(sequence)[None],
        }
        scores = model(family)(**about).logits[0, start - 1 : -1].log_softmax(-1)
        return float(scores.gather(1, sequence[start:, None]).sum())

    greedy = model(family).generate(**inputs(family), **options)[0]
    beams = model(family).generate(**inputs(family), **options, num_beams=4, num_return_sequences=4)
    assert len({tuple(beam.tolist()) for beam in beams}) == 4
    assert max(likelihood(beam) for beam in beams) >= likelihood(greedy) - 1e-4


@every_family
def test_a_later_turn_goes_on_from_the_cache_without_the_picture(family: str) -> None:
    processor = MolmoProcessor.from_pretrained(folder(family))
    first = model(family).generate(
        **inputs(family), max_new_tokens=5, do_sample=False, return_dict_in_generate=True
    )
    words = processor.tokenizer.encode(" User: And the cup? Assistant:", add_special_tokens=False)
    ids = torch.cat([first.sequences, torch.tensor([words])], dim=1)
    whole = inputs(family) | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with_cache = model(family).generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        past_key_values=first.past_key_values,
        max_new_tokens=5,
        do_sample=False,
    )
    assert with_cache.tolist() == model(family).generate(**whole, max_new_tokens=5, do_sample=False).tolist()


@every_family
def test_input_embeddings_can_be_given_instead_of_ids(family: str) -> None:
    ids = inputs(family)["input_ids"]
    embeds = model(family).get_input_embeddings()(ids)
    torch.testing.assert_close(
        model(family)(inputs_embeds=embeds).logits, model(family)(input_ids=ids).logits
    )


@every_family
def test_gradients_are_the_same_with_gradient_checkpointing(family: str) -> None:
    net = MolmoForConditionalGeneration.from_pretrained(folder(family)).train()
    about = inputs(family)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            net.gradient_checkpointing_enable()
        net.zero_grad()
        net(**about, labels=about["input_ids"], use_cache=False).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None})
    assert net.is_gradient_checkpointing
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-4)


@every_family
def test_in_bfloat16_the_top_choice_is_mostly_that_of_float32(family: str) -> None:
    """Attention of the ViT and the router stay in float32; the agreement is printed (pytest -s)."""
    half = MolmoForConditionalGeneration.from_pretrained(folder(family), dtype=torch.bfloat16).eval()
    logits, exact = half(**inputs(family)).logits.float(), model(family)(**inputs(family)).logits
    agreement = (logits.argmax(-1) == exact.argmax(-1)).float().mean().item()
    print(f"{family}: top-1 agreement of bfloat16 with float32 {agreement:.3f}")
    assert half.dtype == torch.bfloat16 and agreement > 0.85


@every_family
def test_weights_can_lie_on_disk_or_in_memory_as_a_device_map_says(family: str, tmp_path: Path) -> None:
    """The only other device of a machine without a GPU is its disk."""
    layers = model(family).config.text_config.num_hidden_layers
    device_map = {
        "model.wte": "cpu",
        "model.vision_backbone": "cpu",
        "model.language_model.norm": "cpu",
        "model.language_model.rotary_emb": "cpu",
        "lm_head": "cpu",
    } | {f"model.language_model.layers.{i}": "disk" if i % 2 else "cpu" for i in range(layers)}
    spread = MolmoForConditionalGeneration.from_pretrained(
        folder(family), device_map=device_map, offload_folder=tmp_path
    ).eval()
    torch.testing.assert_close(spread(**inputs(family)).logits, model(family)(**inputs(family)).logits)
    automatic = MolmoForConditionalGeneration.from_pretrained(folder(family), device_map="auto").eval()
    torch.testing.assert_close(automatic(**inputs(family)).logits, model(family)(**inputs(family)).logits)


@every_family
def test_a_lora_attaches_and_learns_in_one_step(family: str) -> None:
    net = MolmoForConditionalGeneration.from_pretrained(folder(family))
    tuned = get_peft_model(net, LoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    about = inputs(family)
    optimiser = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=0.5)
    losses = []
    for _ in range(2):
        loss = tuned(**about, labels=about["input_ids"]).loss
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[1] < losses[0]
    assert all(".lora_" in name for name, p in tuned.named_parameters() if p.requires_grad)


def test_weights_that_stay_mapped_are_loaded_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a pool of threads was started")

    monkeypatch.setattr(core_model_loading, "ThreadPoolExecutor", started)
    loaded = MolmoForConditionalGeneration.from_pretrained(folder("D"))
    assert torch.equal(loaded.lm_head.weight, model("D").lm_head.weight)
    with pytest.raises(AssertionError, match="pool"):  # read, and turned into another type
        MolmoForConditionalGeneration.from_pretrained(folder("D"), dtype=torch.bfloat16)
