"""A Molmo that is being fine-tuned, whole or by a LoRA: steps, validation, state for going on, and the result."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from molmo_ros.molmo import MolmoForConditionalGeneration, MolmoProcessor
from molmo_ros.molmo.adapters import BASE, fingerprint, is_adapter
from molmo_ros.molmo.loading import load_checkpoint
from molmo_ros.training.atomic_saving import replaced_file, replaced_folder, restore
from molmo_ros.training.tuning_batches import IGNORED, TuningBatch
from molmo_ros.training.tuning_settings import Settings, SettingsError

STATE, RESULT = "state.pt", "checkpoint"

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def part_of(name: str) -> str:
    """Which part of the model a parameter belongs to: a field of `Rates`."""
    if "vision_backbone.image_vit" in name:
        return "vision"
    return "connector" if "vision_backbone" in name else "language"


class Tuner:
    """`base` is the folder that `model` was loaded from, by `load_for`; it stays as it is."""

    def __init__(
        self,
        settings: Settings,
        model: MolmoForConditionalGeneration,
        processor: MolmoProcessor,
        base: Path,
        run: Path,
    ) -> None:
        """Raises SettingsError: nothing would learn with these settings, or this machine cannot do them."""
        self.settings, self.processor, self.base, self.run = settings, processor, base.resolve(), run
        self.step, self.best = 0, float("inf")
        self.device = model.device
        self._precision = _DTYPES[settings.precision]
        if settings.precision == "float16" and self.device.type == "cpu":
            raise SettingsError("precision float16 needs a GPU; a CPU takes bfloat16 or float32")
        torch.manual_seed(settings.seed)
        self.model = model
        self._adapter: Any = None
        if settings.method == "lora":
            self._adapter = self._with_lora(model)
        for name, parameter in model.named_parameters():
            learns = settings.method == "full" or "lora_" in name
            parameter.requires_grad_(learns and getattr(settings.learning_rates, part_of(name)) > 0)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise SettingsError(
                "nothing would learn: every layer of lora.layers lies in a part whose learning rate is 0"
            )
        model.train()
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.optimiser = torch.optim.AdamW(self._groups(), betas=(0.9, 0.98))
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "float16")

    def _with_lora(self, model: MolmoForConditionalGeneration) -> Any:
        from peft import LoraConfig, get_peft_model

        lora = self.settings.lora
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(lora.layers),
            task_type="CAUSAL_LM",
        )
        try:
            # PEFT puts its layers into the model itself; what it gives back is a wrapping that can save them.
            return get_peft_model(model, config)
        except ValueError as error:
            raise SettingsError(f"lora.layers: {' '.join(str(error).split())[:300]}") from error

    def learning(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The parameters that learn."""
        return ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    def _groups(self) -> list[dict[str, Any]]:
        groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in self.learning():
            groups.setdefault((part_of(name), parameter.ndim > 1), []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": getattr(self.settings.learning_rates, part),
                "peak": getattr(self.settings.learning_rates, part),
                "weight_decay": self.settings.weight_decay if is_matrix else 0.0,
            }
            for (part, is_matrix), parameters in groups.items()
        ]

    # ------------------------------------------------------------------ learning

    def losses(self, batch: TuningBatch) -> tuple[Tensor, Tensor]:
        """The weighted sum of the cross-entropies of all answer tokens, and the sum of the weights."""
        core = self.model.model
        batch = batch.to(self.device)
        with torch.autocast(
            self.device.type, dtype=self._precision, enabled=self._precision is not torch.float32
        ):
            tokens = core.vision_backbone(batch.images, batch.image_masks)
            embeds = core.embed(batch.input_ids, tokens[batch.picture], batch.image_input_idx[batch.picture])
            hidden = core(
                inputs_embeds=embeds, attention_mask=batch.attention_mask, use_cache=False
            ).last_hidden_state
            answered = batch.labels != IGNORED
            logits = self.model.lm_head(hidden[answered])
        each = F.cross_entropy(logits.float(), batch.labels[answered], reduction="none")
        weights = batch.weights[answered]
        return (each * weights).sum(), weights.sum()

    def take_step(self, batches: Sequence[TuningBatch]) -> float:
        """Learn from all batches as if they were one; the mean loss."""
        share = self.settings.learning_share(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * share
        total = sum(float(batch.weights.sum()) for batch in batches)
        summed = 0.0
        self.optimiser.zero_grad(set_to_none=True)
        for batch in batches:
            loss, _ = self.losses(batch)
            self._scaler.scale(loss / total).backward()
            summed += loss.item()
        self._scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_([p for _, p in self.learning()], self.settings.gradient_clip)
        self._scaler.step(self.optimiser)
        self._scaler.update()
        self.step += 1
        return summed / total

    def validate(self, batches: Sequence[TuningBatch]) -> float:
        """The mean loss on these batches; the model goes on learning as before."""
        self.model.eval()
        with torch.no_grad():
            sums = [tuple(value.item() for value in self.losses(batch)) for batch in batches]
        self.model.train()
        return sum(loss for loss, _ in sums) / sum(weight for _, weight in sums)

    # ------------------------------------------------------------------ keeping

    def save_state(self) -> None:
        """What is needed to go on. Raises SavingError; the state before stays."""
        state = {
            "settings": json.dumps(self.settings.what_matters()),
            "base": fingerprint(self.base),
            "step": self.step,
            "best": self.best,
            "weights": {name: parameter.detach() for name, parameter in self.learning()},
            "optimiser": self.optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "random": torch.get_rng_state(),
        }
        self.run.mkdir(parents=True, exist_ok=True)
        with replaced_file(self.run / STATE) as part:
            torch.save(state, part)

    def resume(self) -> bool:
        """Go on where the run was cut; False if there is nothing to go on with.

        Raises:
            SettingsError: the run was begun with other settings or on another model.
        """
        restore(self.run / RESULT)
        if not (self.run / STATE).exists():
            return False
        state = torch.load(self.run / STATE, weights_only=True, map_location="cpu")
        before, now = json.loads(state["settings"]), json.loads(json.dumps(self.settings.what_matters()))
        other = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if other:
            raise SettingsError(
                f"{self.run} was begun with another {', '.join(other)}; choose another --run, or delete it"
            )
        if state["base"] != fingerprint(self.base):
            raise SettingsError(
                f"{self.run} was begun on another model than {self.base}; choose another --run"
            )
        with torch.no_grad():
            for name, parameter in self.learning():
                parameter.copy_(state["weights"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        self.step, self.best = state["step"], state["best"]
        return True

    def save_result(self) -> Path:
        """The model as it is now, as a folder that the node loads. Raises SavingError; the one before stays."""
        folder = self.run / RESULT
        self.run.mkdir(parents=True, exist_ok=True)
        with replaced_folder(folder) as part:
            if self.settings.save_as == "adapter":
                self._adapter.save_pretrained(part, save_embedding_layers=False)
                _name_base(part, self.base, os.path.relpath(self.base, folder.resolve()))
            else:
                write_whole(self.model, stored_dtype(self.base), part)
                self.processor.save_pretrained(part)
        return folder


def load_for(settings: Settings, base: Path) -> tuple[MolmoForConditionalGeneration, MolmoProcessor]:
    """A checkpoint in the precision that it is tuned in: what learns in float32, what is frozen in no more bits than
    it is computed with.

    Raises:
        SettingsError: it is an adapter.
        CheckpointError: it is no usable checkpoint.
    """
    if is_adapter(base):
        raise SettingsError(f"{base} is an adapter; begin with its base, or with a checkpoint saved merged")
    dtype = settings.precision if settings.method == "lora" else "float32"
    return load_checkpoint(base, settings.device, dtype)


def stored_dtype(base: Path) -> torch.dtype:
    """Of the weights in its files, as its config.json says; bfloat16 if that does not."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return _DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), torch.bfloat16)


def write_whole(model: MolmoForConditionalGeneration, dtype: torch.dtype, folder: Path) -> None:
    """The model in the released layout, changes of a LoRA added to its weights."""
    weights = {name: value.to("cpu", dtype) for name, value in whole_weights(model).items()}
    with torch.device("meta"):
        bare = MolmoForConditionalGeneration(model.config)
    bare.to(dtype).save_pretrained(folder, state_dict=weights)


def whole_weights(model: MolmoForConditionalGeneration) -> dict[str, Tensor]:
    """Its tensors under their own names, LoRA layers as plain ones with their change added."""
    from peft.tuners.lora import LoraLayer

    weights = {}
    for name, value in model.state_dict().items():
        if "lora_" not in name:
            weights[name.replace(".base_layer.", ".")] = value.detach()
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            with torch.no_grad():
                change = sum(module.get_delta_weight(adapter).float() for adapter in module.active_adapters)
            weights[f"{name}.weight"] = weights[f"{name}.weight"].float() + change
    return weights


def _name_base(adapter: Path, base: Path, relative: str) -> None:
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = relative
    path.write_text(json.dumps(config, indent=1) + "\n")
    (adapter / BASE).write_text(json.dumps({"fingerprint": fingerprint(base)}, indent=1) + "\n")
