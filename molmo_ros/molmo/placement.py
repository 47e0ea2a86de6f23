"""Stored tensors straight into a model on the CPU, as views of the files' mapped pages.

What most tensors of a checkpoint need is another name, or to be cut into rows; transformers does this for them with all
that other checkpoints may need besides, which takes longer than to read them. Names and cuts are those that
`checkpoint.py` declares, and are worked out by transformers' own rules. What is left over (experts to be stacked,
tensors of another type or shape, names that nothing in the model bears) is transformers' business, errors included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import Split, WeightConverter, WeightRenaming, rename_source_key

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def place_tensors(
    model: PreTrainedModel, stored: Mapping[str, Any], mapping: Sequence[WeightRenaming | WeightConverter]
) -> tuple[set[str], dict[str, Any]]:
    """Put into the model what fits as it is, and return the names of the parameters that have come, and what is left.

    `model` stands on the meta device; `stored` has what gives a tensor for `[...]`, by its name in the files.
    """
    modules = dict(model.named_modules())
    wanted = dict(model.named_parameters(remove_duplicate=False))
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]

    @cache
    def rename(name: str) -> tuple[str, str | None]:
        return rename_source_key(name, renamings, converters, model.base_model_prefix, wanted)

    placed: set[str] = set()
    left: dict[str, Any] = {}
    for name, part in stored.items():
        layer = _NUMBER.findall(name)
        if len(layer) == 1:  # every layer is named like the first
            renamed, pattern = rename(_NUMBER.sub("0", name))
            renamed = _NUMBER.sub(layer[0], renamed)
        else:
            renamed, pattern = rename(name)
        targets = [renamed] if pattern is None else _targets_of_cut(renamed, pattern, converters)
        pieces = _pieces(part, [wanted[target] for target in targets if target in wanted])
        if len(pieces) != len(targets) or not targets:
            left[name] = part
            continue
        for target, piece in zip(targets, pieces, strict=True):
            path, _, leaf = target.rpartition(".")
            parameter = nn.Parameter(piece, requires_grad=piece.is_floating_point())
            parameter._is_hf_initialized = True  # type: ignore[attr-defined]  # else it gets random numbers
            modules[path].register_parameter(leaf, parameter)
            placed.add(target)
    return placed, left


def _targets_of_cut(renamed: str, pattern: str, converters: Sequence[WeightConverter]) -> list[str]:
    """Names of the parameters that a tensor is cut into; none if more than cutting is to be done."""
    converter = next(each for each in converters if pattern in each.source_patterns)
    operation, *more = converter.operations
    if more or not isinstance(operation, Split) or operation.dim != 0:
        return []
    first = converter.target_patterns[0]
    return [renamed.replace(first, target) for target in converter.target_patterns]


def _pieces(part: Any, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The tensor, cut along its first dimension into pieces like these parameters; none if they do not add up to it."""
    tensor: Tensor = part[...]
    if not parameters or tensor.dim() == 0 or sum(len(each) for each in parameters) != len(tensor):
        return []
    pieces = torch.split(tensor, [len(each) for each in parameters]) if len(parameters) > 1 else [tensor]
    fits = all(
        piece.shape == each.shape and piece.dtype == each.dtype
        for piece, each in zip(pieces, parameters, strict=True)
    )
    return list(pieces) if fits else []
