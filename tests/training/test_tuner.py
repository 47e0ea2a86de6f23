"""What is being fine-tuned learns as one batch would, goes on as if never cut, and is saved as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from data_sets import picture

from molmo_ros.molmo.adapters import is_adapter
from molmo_ros.molmo.loading import load_checkpoint
from molmo_ros.pointing.loading import load_pointer
from molmo_ros.training.tuner import Tuner, load_for, part_of, stored_dtype, whole_weights
from molmo_ros.training.tuning_batches import Reader, TuningBatch
from molmo_ros.training.tuning_settings import Lora, Rates, Settings, SettingsError, Source

GOLDENS = Path(__file__).parents[1] / "data" / "goldens"
FULL = Settings(
    (Source("a", 2),), method="full", steps=20, warmup_steps=1, learning_rates=Rates(3e-3, 3e-3, 3e-3),
    precision="float32", device="cpu",
)  # fmt: skip
LORA = replace(FULL, method="lora", lora=Lora(rank=4, alpha=8.0), learning_rates=Rates(1e-2))


def folder(family: str = "D") -> Path:
    return GOLDENS / family / "checkpoint"


def tuner(settings: Settings, run: Path, family: str = "D") -> Tuner:
    model, processor = load_for(settings, folder(family))
    return Tuner(settings, model, processor, folder(family), run)


def batches(of: Tuner) -> list[TuningBatch]:
    reader = Reader(of.processor, of.settings.loss_weights)
    rows = [
        ("Point to the mug.", ' <point x="12.5" y="7.0" alt="mug">mug</point>'),
        ("Cup?", " There are none."),
    ]
    return [reader.batch([picture()], [rows]), reader.batch([255 - picture()], [rows[:1]])]


def learning(of: Tuner) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in of.learning()}


@pytest.mark.parametrize("family", ["D", "O", "E", "72B"])
@pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "lora"])
def test_every_family_learns(settings: Settings, family: str, tmp_path: Path) -> None:
    if family == "E" and settings.method == "lora":
        settings = replace(settings, lora=Lora(rank=4, layers=("q_proj", "k_proj", "v_proj", "o_proj")))
    of = tuner(settings, tmp_path, family)
    given = batches(of)
    before = of.validate(given)
    losses = [of.take_step(given) for _ in range(6)]
    assert losses[-1] < losses[0] == pytest.approx(before, rel=1e-4)
    assert of.validate(given) < before


def test_a_lora_changes_nothing_else(tmp_path: Path) -> None:
    of = tuner(LORA, tmp_path)
    assert all("lora_" in name for name, _ in of.learning())
    frozen = {n: p.detach().clone() for n, p in of.model.named_parameters() if not p.requires_grad}
    of.take_step(batches(of))
    assert all(parameter.equal(frozen[n]) for n, parameter in of.model.named_parameters() if n in frozen)


def test_a_part_without_a_rate_stays_as_it_is(tmp_path: Path) -> None:
    of = tuner(replace(FULL, learning_rates=Rates(1e-3, 0.0, 1e-3)), tmp_path)
    parts = {part_of(name) for name, _ in of.learning()}
    assert parts == {"language", "vision"}
    names = [name for name, _ in of.model.named_parameters()]
    assert {part_of(name) for name in names} == {"language", "connector", "vision"}
    assert part_of("model.vision_backbone.image_projector.w1.weight") == "connector"


def test_parts_of_a_step_add_up_to_the_whole(tmp_path: Path) -> None:
    """Gradients of rows of other lengths, weighted as one batch weighs them."""
    apart, together = tuner(FULL, tmp_path), tuner(FULL, tmp_path)
    reader = Reader(apart.processor, FULL.loss_weights)
    rows = [("Mug?", ' <point x="12.5" y="7.0" alt="mug">mug</point>'), ("Cup?", " There are none.")]
    two = [reader.batch([picture()], [[row]]) for row in rows]
    one = [reader.batch([picture()], [rows])]
    assert apart.take_step(two) == pytest.approx(together.take_step(one), rel=1e-5)
    gradients = {n: p.grad for n, p in together.learning()}
    assert sum(gradient is not None for gradient in gradients.values()) > 0.9 * len(gradients)
    for name, parameter in apart.learning():
        if gradients[name] is not None:  # the ViT's last block feeds nothing in some families
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-6)


def test_checkpointing_computes_the_same(tmp_path: Path) -> None:
    plain, spared = tuner(FULL, tmp_path), tuner(replace(FULL, gradient_checkpointing=True), tmp_path)
    calls = []
    block: Any = spared.model.model.vision_backbone.image_vit.transformer.resblocks[0]
    layer = spared.model.model.language_model.layers[0]
    block.attention.register_forward_pre_hook(lambda *_: calls.append("vision"))
    layer.self_attn.register_forward_pre_hook(lambda *_: calls.append("language"))
    given = batches(plain)[:1]
    assert plain.take_step(given) == pytest.approx(spared.take_step(given), rel=1e-5)
    assert calls.count("vision") == calls.count("language") == 2  # once more on the way back
    gradients = {n: p.grad for n, p in plain.learning()}
    for name, parameter in spared.learning():
        if gradients[name] is not None:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-6)


def test_bfloat16_computes_in_less_and_learns_in_full(tmp_path: Path) -> None:
    lora = tuner(replace(LORA, precision="bfloat16"), tmp_path)
    assert lora.model.lm_head.weight.dtype == torch.bfloat16
    assert lora.model.model.language_model.rotary_emb.inv_freq.dtype == torch.float32
    full = tuner(replace(FULL, precision="bfloat16"), tmp_path)
    for of in (lora, full):
        assert {parameter.dtype for _, parameter in of.learning()} == {torch.float32}
        losses = [of.take_step(batches(of)) for _ in range(5)]
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("settings", [FULL, replace(LORA, lora=Lora(dropout=0.3))], ids=["full", "lora"])
def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(settings: Settings, tmp_path: Path) -> None:
    whole = tuner(settings, tmp_path / "whole")
    assert not whole.resume()
    given = batches(whole)
    for _ in range(4):
        whole.take_step(given)
    cut = tuner(settings, tmp_path / "cut")
    for _ in range(2):
        cut.take_step(given)
    cut.best = 1.5
    cut.save_state()
    cut.take_step(given)  # lost
    resumed = tuner(settings, tmp_path / "cut")
    assert resumed.resume() and (resumed.step, resumed.best) == (2, 1.5)
    for _ in range(2):
        resumed.take_step(given)
    assert all(value.equal(learning(whole)[name]) for name, value in learning(resumed).items())


@pytest.mark.parametrize(
    ("change", "family", "says"),
    [({"seed": 9}, "D", "another seed"), ({"steps": 30}, "D", "another steps"), ({}, "72B", "another model")],
)
def test_a_run_goes_on_with_what_it_was_begun_with(
    change: dict[str, Any], family: str, says: str, tmp_path: Path
) -> None:
    tuner(FULL, tmp_path).save_state()
    with pytest.raises(SettingsError, match=says):
        tuner(replace(FULL, **change), tmp_path, family).resume()


@pytest.mark.parametrize("family", ["D", "O", "E", "72B"])
@pytest.mark.parametrize(
    "settings", [FULL, LORA, replace(LORA, save_as="adapter")], ids=["full", "lora", "adapter"]
)
def test_the_result_loads_and_says_what_the_tuned_model_says(
    settings: Settings, family: str, tmp_path: Path
) -> None:
    if family == "E" and settings.method == "lora":
        settings = replace(settings, lora=Lora(rank=4, layers=("q_proj", "v_proj", "o_proj")))
    of = tuner(settings, tmp_path / "run", family)
    for _ in range(3):
        of.take_step(batches(of))
    result = of.save_result()
    assert is_adapter(result) == (settings.save_as == "adapter")
    loaded, processor = load_checkpoint(result, "cpu")
    inputs = processor(images=picture(), text="Point to the mug.")
    of.model.eval()
    with torch.no_grad():
        ours, theirs = of.model(**inputs).logits, loaded(**inputs).logits
    loose = 0.05 if stored_dtype(folder(family)) == torch.bfloat16 else 1e-4
    torch.testing.assert_close(theirs, ours, atol=loose, rtol=loose)
    assert load_pointer(result, "cpu")


def test_whole_weights_have_the_base_s_names(tmp_path: Path) -> None:
    of = tuner(LORA, tmp_path)
    of.take_step(batches(of))
    plain, _ = load_checkpoint(folder(), "cpu")
    weights = whole_weights(of.model)
    assert set(weights) == set(plain.state_dict())
    changed = {n for n, value in plain.state_dict().items() if not torch.equal(value, weights[n])}
    assert changed and all(name.split(".")[-2] in of.settings.lora.layers for name in changed)


def test_settings_that_cannot_work_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"lora\.layers"):
        tuner(replace(LORA, lora=Lora(layers=("no_such_layer",))), tmp_path)
    with pytest.raises(SettingsError, match="nothing would learn"):
        tuner(replace(LORA, learning_rates=Rates(0.0, 0.0, 1e-3)), tmp_path)
    with pytest.raises(SettingsError, match="needs a GPU"):
        tuner(replace(FULL, precision="float16"), tmp_path)
    adapter = tuner(replace(LORA, save_as="adapter"), tmp_path).save_result()
    with pytest.raises(SettingsError, match="begin with its base"):
        load_for(FULL, adapter)
