"""Settings are read whole, or the first thing that is wrong with them is named."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from molmo_ros.training.tuning_settings import Settings, SettingsError, Source, read_settings, settings_from

CONFIGS = Path(__file__).parents[2] / "config" / "training"
LEAST: dict[str, Any] = {"data": [{"folder": "sets/mine", "pictures_per_step": 4}]}


@pytest.mark.parametrize("name", ["finetune.yaml", "stapler.yaml"])
def test_the_configurations_that_come_along_are_good(name: str) -> None:
    assert read_settings(CONFIGS / name).steps > 0


def test_what_is_left_out_has_its_default() -> None:
    settings = settings_from(LEAST)
    assert settings == Settings((Source("sets/mine", 4),))
    assert settings.pictures_per_step == 4


def test_numbers_and_parts_are_read() -> None:
    settings = settings_from(
        LEAST
        | {"method": "full", "steps": 7, "learning_rates": {"language": 1, "vision": 2.0e-5}, "mirror": False}
    )
    assert (settings.steps, settings.learning_rates.vision, settings.mirror) == (7, 2e-5, False)
    assert isinstance(settings.learning_rates.language, float)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": []}, "at least one data set"),
        ({"data": [{"folder": "x"}]}, "missing in data"),
        ({"data": [{"folder": "x", "pictures_per_step": 0}]}, "at least 1"),
        ({"data": [{"folder": "x", "pictures_per_step": "4"}]}, "pictures_per_step in data must be int"),
        ({"metod": "full"}, "unknown metod"),
        ({"method": "qlora"}, "not one of lora, full"),
        ({"method": "full", "save_as": "adapter"}, "needs method 'lora'"),
        ({"precision": "int8"}, "not one of float32"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": True}, "steps must be int"),
        ({"steps": 1.5}, "steps must be int"),
        ({"mirror": 1}, "mirror must be bool"),
        ({"light": -0.1}, "must not be negative"),
        ({"light": float("nan")}, "light must be float"),
        ({"learning_rates": {"language": 0.0}}, "one above it"),
        ({"learning_rates": {"language": -1.0}}, "learning rates"),
        ({"learning_rates": 1.0}, "must be a mapping"),
        ({"lora": {"layers": "q_proj"}}, "layers in lora must be"),
        ({"lora": {"layers": []}}, "names no layer"),
        ({"lora": {"rank": 0}}, "rank"),
        ({"validation": 3}, "validation must be"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        settings_from(LEAST | change)


@pytest.mark.parametrize(
    ("text", "says"), [("a: [", "not readable YAML"), ("- 1", "mapping"), ("", "mapping")]
)
def test_a_file_that_holds_no_settings_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=says) as error:
        read_settings(path)
    assert str(path) in str(error.value)


def test_rates_rise_and_fall() -> None:
    settings = settings_from(LEAST | {"steps": 100, "warmup_steps": 10})
    shares = [settings.learning_share(step) for step in range(100)]
    assert shares[0] == pytest.approx(0.1) and max(shares) == pytest.approx(0.91)
    assert shares[-1] == pytest.approx(0.01)
    assert all(a > b for a, b in pairwise(shares[9:]))


def test_what_may_change_in_a_run_is_not_what_matters() -> None:
    here, there = settings_from(LEAST), settings_from(LEAST | {"save_every_minutes": 1.0, "workers": 0})
    assert here.what_matters() == there.what_matters()
    assert here.what_matters() != settings_from(LEAST | {"seed": 1}).what_matters()
    assert yaml.safe_dump(here.what_matters()["steps"])
