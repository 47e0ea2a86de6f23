"""Keys and values of the language model: the engine's memory of what it has read.

The native layers ask one thing of their cache, `update(keys, values, layer)`, which stores what is new and gives
back everything to attend to. The classes here are three answers to that, and share one layout: in every row the
token at position p lies in slot p. So rows of different length need no padding, a token that was written and
then thought better of is overwritten by the next one at its place, and all that a query must not see is what
lies behind its own position.

Shapes in names: B rows, H key/value heads, S slots, L new tokens, E size of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class KeyValueStore(Protocol):
    """What a native layer takes as `past_key_values`."""

    def update(self, keys_BHLE: Tensor, values_BHLE: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Store the new tokens of one layer; all keys and values its queries may see, or more with a mask."""
        ...


class EnoughRead(Exception):
    """Raised by `PrefixWriter` in the last layer: the rest of it would compute what nobody looks at."""


class PrefixWriter:
    """Keeps what each layer makes of a prefix that nothing stands before."""

    def __init__(self, num_layers: int) -> None:
        self.num_layers = num_layers
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def update(self, keys_BHLE: Tensor, values_BHLE: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        self.keys.append(keys_BHLE)
        self.values.append(values_BHLE)
        if layer == self.num_layers - 1:
            raise EnoughRead
        return keys_BHLE, values_BHLE


class Slots:
    """Memory for the keys and values of B rows with S slots each, laid out once and used again.

    A layer's part is made on that layer's own device when the layer first stores something. `for_graphs` tells
    torch.compile that it never moves, without which CUDA graphs would not take it.
    """

    def __init__(self, rows: int, slots: int, *, for_graphs: bool = False) -> None:
        self.rows, self.slots, self.for_graphs = rows, slots, for_graphs
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def of_layer(self, layer: int, like_BHLE: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's whole memory [B, H, S, E] for keys and for values."""
        if layer not in self.keys:
            _, heads, _, size = like_BHLE.shape
            # Zeros, since a masked NaN is still a NaN.
            for part in (self.keys, self.values):
                part[layer] = like_BHLE.new_zeros(self.rows, heads, self.slots, size)
                if self.for_graphs:
                    torch._dynamo.mark_static_address(part[layer])
        return self.keys[layer], self.values[layer]

    def load(self, row: int, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Copy a prefix, one [1, H, P, E] for each layer, to the beginning of a row."""
        for layer, (key, value) in enumerate(zip(keys, values, strict=True)):
            key_slots, value_slots = self.of_layer(layer, key)
            key_slots[row, :, : key.shape[2]] = key[0]
            value_slots[row, :, : value.shape[2]] = value[0]

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for part in (self.keys, self.values) for t in part.values())


class SpanWriter:
    """Stores new tokens of all rows from slot `start` on; the queries see the slots up to the last new one."""

    def __init__(self, slots: Slots, start: int) -> None:
        self.slots, self.start = slots, start

    def update(self, keys_BHLE: Tensor, values_BHLE: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        keys, values = self.slots.of_layer(layer, keys_BHLE)
        end = self.start + keys_BHLE.shape[2]
        keys[:, :, self.start : end] = keys_BHLE
        values[:, :, self.start : end] = values_BHLE
        return keys[:, :, :end], values[:, :, :end]


class PlaceWriter:
    """Stores each new token at its own place of its row; the queries see the first `seen` slots of every row."""

    def __init__(self, slots: Slots, places_BL: Tensor, seen: int) -> None:
        self.slots, self.places_BL, self.seen = slots, places_BL, seen
        self.rows_B1 = torch.arange(slots.rows, device=places_BL.device)[:, None]

    def update(self, keys_BHLE: Tensor, values_BHLE: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        keys, values = self.slots.of_layer(layer, keys_BHLE)
        rows, places = self.rows_B1.to(keys.device), self.places_BL.to(keys.device)
        keys[rows, :, places] = keys_BHLE.transpose(1, 2)
        values[rows, :, places] = values_BHLE.transpose(1, 2)
        return keys[:, :, : self.seen], values[:, :, : self.seen]
