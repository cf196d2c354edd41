"""Keys and values of many tokens in one place, each token in a place of its own.

A sequence is a list of places, so sequences with a common beginning share it, and any part of one can be given up
alone. This module knows tensors; it knows no tokens and no model.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

States = Sequence[tuple[Tensor, Tensor]]
"""Keys and values of one sequence, for each layer: `[1, heads, tokens, width]`."""

_FIRST = 256  # places to begin with


class StatePool:
    """Places for tokens; it grows as they are needed, and keeps what it has grown to."""

    def __init__(self) -> None:
        self.clear()

    @property
    def bytes(self) -> int:
        """Memory of the tensors, used or not."""
        return sum(keys.nbytes + values.nbytes for keys, values in self._layers)

    @property
    def used(self) -> int:
        """Places taken."""
        return self._capacity - len(self._free)

    def clear(self) -> None:
        """Free all places, and the memory."""
        self._layers: list[tuple[Tensor, Tensor]] = []  # [heads, capacity, width]
        self._capacity = 0
        self._free = array("q")

    def write(self, states: States, most: int) -> array[int]:
        """Keep states, and return their places; there will never be more than `most` places."""
        tokens = states[0][0].shape[2]
        if tokens > len(self._free):
            self._grow(states, self.used + tokens, most)
        places = self._free[-tokens:]
        places.reverse()  # ascending where the pool is new: neighbours in the sequence are neighbours here
        index = _index(places, states[0][0].device)
        for held, new in zip(self._layers, states, strict=True):
            for buffer, tensor in zip(held, new, strict=True):
                buffer.index_copy_(1, index, tensor[0])
        del self._free[-tokens:]
        return places

    def read(self, places: array[int]) -> States:
        """A copy of what lies at `places`, in their order."""
        index = _index(places, self._layers[0][0].device)
        return [(k.index_select(1, index)[None], v.index_select(1, index)[None]) for k, v in self._layers]

    def free(self, places: array[int]) -> None:
        """Give places up."""
        self._free.extend(reversed(places))

    def _grow(self, states: States, needed: int, most: int) -> None:
        # An eighth more: little is idle, and to move what is there costs little beside the model's work for so many.
        capacity = min(most, max(needed, self._capacity * 9 // 8, _FIRST))
        if not self._layers:
            self._layers = [(k[0, :, :0], v[0, :, :0]) for k, v in states]
        for i, (keys, values) in enumerate(self._layers):  # one at a time: little is there twice
            self._layers[i] = (_grown(keys, capacity), _grown(values, capacity))
        self._free = array("q", range(capacity - 1, self._capacity - 1, -1)) + self._free
        self._capacity = capacity


def cut(states: States, start: int, end: int | None = None, row: int = 0) -> States:
    """A view of the tokens from `start` to `end` of one row of some."""
    return [(k[row : row + 1, :, start:end], v[row : row + 1, :, start:end]) for k, v in states]


def token_bytes(states: States) -> int:
    """Memory that one token takes."""
    return sum(tensor[:, :, :1].numel() * tensor.element_size() for layer in states for tensor in layer)


def _grown(old: Tensor, capacity: int) -> Tensor:
    new = old.new_empty(old.shape[0], capacity, old.shape[2])
    new[:, : old.shape[1]] = old
    return new


def _index(places: array[int], device: torch.device) -> Tensor:
    return torch.frombuffer(places, dtype=torch.int64).to(device)
