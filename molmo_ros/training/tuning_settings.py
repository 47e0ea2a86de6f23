"""What a fine-tuning is told: a YAML file, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

METHODS = ("lora", "full")
PRECISIONS = ("float32", "bfloat16", "float16")
SAVED_AS = ("adapter", "merged")

#: Names of the layers that a LoRA goes on by default: all of the language model's in the released families.
LANGUAGE_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class SettingsError(ValueError):
    """What is wrong with the settings, and what would be right."""


@dataclass(frozen=True)
class Source:
    """A data set and how many of its pictures each step shows, each with some of its questions."""

    folder: str
    pictures_per_step: int

    def __post_init__(self) -> None:
        _require(self.pictures_per_step > 0, "pictures_per_step of a data set must be at least 1")


@dataclass(frozen=True)
class Rates:
    """Peak learning rates of the parts; a part with 0 stays as it is."""

    language: float = 1e-4
    connector: float = 0.0
    vision: float = 0.0

    def __post_init__(self) -> None:
        values = (self.language, self.connector, self.vision)
        _require(
            all(value >= 0 for value in values) and any(values), "learning rates: from 0 on, one above it"
        )


@dataclass(frozen=True)
class Lora:
    """A low-rank adapter (Hu et al. 2021, arXiv:2106.09685). `layers`: the last parts of the names it goes on."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    layers: tuple[str, ...] = LANGUAGE_LAYERS

    def __post_init__(self) -> None:
        _require(self.rank > 0, "lora.rank must be at least 1")
        _require(0 <= self.dropout < 1, "lora.dropout must lie in 0 to 1")
        _require(bool(self.layers), "lora.layers names no layer")


@dataclass(frozen=True)
class Weights:
    """How much tokens of an answer count: its first, which says whether the thing is there; digits; the digit
    behind a decimal point, which is mostly chance; all others count 1."""

    first: float = 1.0
    digit: float = 1.0
    decimal: float = 1.0

    def __post_init__(self) -> None:
        _require(min(self.first, self.digit, self.decimal) >= 0, "loss_weights must not be negative")


@dataclass(frozen=True)
class Settings:
    """See config/training/finetune.yaml, which explains each."""

    data: tuple[Source, ...]
    method: str = "lora"
    steps: int = 1000
    validation: str | None = None
    validation_questions: int = 256
    validate_every_steps: int = 100
    pictures_at_once: int = 1
    questions_per_picture: int = 4
    learning_rates: Rates = field(default_factory=Rates)
    warmup_steps: int = 50
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    lora: Lora = field(default_factory=Lora)
    loss_weights: Weights = field(default_factory=Weights)
    mirror: bool = True
    light: float = 0.06
    precision: str = "bfloat16"
    gradient_checkpointing: bool = False
    device: str = "auto"
    threads: int = 0
    workers: int = 1
    seed: int = 0
    save_every_minutes: float = 10.0
    save_as: str = "merged"

    def __post_init__(self) -> None:
        _require(bool(self.data), "data names no data set")
        for name, known in (("method", METHODS), ("precision", PRECISIONS), ("save_as", SAVED_AS)):
            value = getattr(self, name)
            _require(value in known, f"{name} {value!r} is not one of {', '.join(known)}")
        counts = (
            "steps",
            "pictures_at_once",
            "questions_per_picture",
            "validate_every_steps",
            "warmup_steps",
        )
        for name in counts:
            _require(getattr(self, name) >= 1, f"{name} must be at least 1")
        for name in ("workers", "threads", "light", "weight_decay", "save_every_minutes"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative")
        _require(self.gradient_clip > 0, "gradient_clip must be above 0")
        _require(
            self.method == "lora" or self.save_as == "merged",
            "save_as 'adapter' needs method 'lora': a full fine-tuning changes the weights themselves",
        )

    @property
    def pictures_per_step(self) -> int:
        return sum(source.pictures_per_step for source in self.data)

    def learning_share(self, step: int) -> float:
        """Of the peak rates: rises over `warmup_steps`, then falls linearly towards zero."""
        return min((step + 1) / self.warmup_steps, (self.steps - step) / self.steps, 1.0)

    def what_matters(self) -> dict[str, Any]:
        """What must not change between the parts of a run that was interrupted."""
        free = {"save_every_minutes", "save_as", "workers", "threads", "device", "validate_every_steps"}
        return {name: value for name, value in asdict(self).items() if name not in free}


def read_settings(path: Path) -> Settings:
    """Settings from a YAML file; folders in it are relative to where the program runs. Raises SettingsError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} is not readable YAML: {error}") from error
    try:
        return settings_from(content)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def settings_from(content: Any) -> Settings:
    """Settings from the mapping that a YAML file holds. Raises SettingsError."""
    _require(isinstance(content, dict), "settings must be a mapping of names to values")
    given = dict(content)
    sources = given.pop("data", None)
    _require(isinstance(sources, list) and bool(sources), "data must list at least one data set")
    parts: dict[str, Any] = {"data": tuple(_made(Source, source, "data") for source in sources)}
    for name, part in (("learning_rates", Rates), ("lora", Lora), ("loss_weights", Weights)):
        if name in given:
            parts[name] = _made(part, given.pop(name), name)
    return _made(Settings, given | parts, "")


def _made(kind: type[Any], given: Any, name: str) -> Any:
    """A dataclass from a mapping with its fields, each of the type of its default."""
    within = f" in {name}" if name else ""
    _require(isinstance(given, dict), f"{name} must be a mapping")
    known = {f.name: str(f.type) for f in fields(kind)}
    unknown = sorted(set(map(str, given)) - set(known))
    _require(not unknown, f"unknown {', '.join(unknown)}{within}; there are {', '.join(known)}")
    values = {}
    for key, value in given.items():
        wanted = known[key]
        if wanted.startswith("tuple[str"):
            good = isinstance(value, list) and all(isinstance(item, str) for item in value)
            values[key] = tuple(value) if good else value
        else:
            good = _fits(value, wanted)
            values[key] = float(value) if good and wanted == "float" else value
        _require(good, f"{key}{within} must be {wanted}, not {value!r}")
    try:
        return kind(**values)
    except TypeError as error:
        raise SettingsError(f"missing{within}: {error}") from error


def _fits(value: Any, wanted: str) -> bool:
    if wanted == "bool":
        return isinstance(value, bool)
    if wanted == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted == "float":
        return isinstance(value, int | float) and not isinstance(value, bool) and value == value
    if wanted == "str":
        return isinstance(value, str)
    return value is None or isinstance(value, str) if wanted == "str | None" else True


def _require(good: bool, otherwise: str) -> None:
    if not good:
        raise SettingsError(otherwise)
