"""The memory table is computed from shapes and agrees with what really is held."""

from __future__ import annotations

from pathlib import Path

import pytest

from molmo_ros.molmo import MolmoForConditionalGeneration
from molmo_ros.molmo.quantization import quantize, weight_bytes
from molmo_ros.molmo.releases import FORMATS, Format, memory_table, weight_bytes_of

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "tests" / "data" / "goldens"


@pytest.mark.parametrize("held_as", FORMATS)
@pytest.mark.parametrize("family", ["D", "O", "E", "72B"])
def test_computed_bytes_are_the_bytes_that_a_model_of_these_shapes_holds(
    family: str, held_as: Format
) -> None:
    dtype = "bfloat16" if held_as == "bfloat16" else "float32"
    model = MolmoForConditionalGeneration.from_pretrained(GOLDENS / family / "checkpoint", dtype=dtype)
    computed = weight_bytes_of(model.config, held_as)
    if held_as in ("int8", "int4"):
        quantize(model, held_as)
    # The rotary tables are computed and not weights.
    rotary = sum(b.numel() * b.element_size() for name, b in model.named_buffers() if "inv_freq" in name)
    assert computed == weight_bytes(model) - rotary


def test_the_page_holds_the_current_table() -> None:
    assert memory_table() in (ROOT / "docs" / "models.md").read_text(), (
        "run: tools/run python -m molmo_ros.molmo.releases"
    )
