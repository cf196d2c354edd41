"""Keys and values of the rows in flight, one slot each, and what each row may see of them.

Slots are filled from the left and have lengths of their own, so rows join and leave without a repacking of the others.
This module knows tensors and token ids; it knows no model and no request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from tts_search.errors import InvalidInputError
from tts_search.generators.transformers.prefix_cache import States


class _SlotLayer(DynamicLayer):
    """One layer's keys and values, `[slots, heads, capacity, width]`."""

    def __init__(self, cursor: _Cursor) -> None:
        super().__init__()
        self.cursor = cursor

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store one more token of every row; return all rows up to the longest."""
        rows, end = key_states.shape[0], self.cursor.end
        assert self.keys is not None
        assert self.values is not None
        if self.cursor.positions is None:
            self.keys[:rows, :, end - 1] = key_states[:, :, 0]
            self.values[:rows, :, end - 1] = value_states[:, :, 0]
        else:
            self.keys[self.cursor.rows, :, self.cursor.positions] = key_states[:, :, 0]
            self.values[self.cursor.rows, :, self.cursor.positions] = value_states[:, :, 0]
        return self.keys[:rows, :, :end], self.values[:rows, :, :end]

    def get_seq_length(self) -> int:
        """Tokens in front of the one that is being stored."""
        return self.cursor.end - 1


class _Cursor:
    """Where the next token of every row goes; the layers share it."""

    def __init__(self) -> None:
        self.end = 1
        self.rows: Tensor | None = None
        self.positions: Tensor | None = None  # None: all rows stand at `end - 1`


class SlotCache:
    """The keys and values of up to `max_rows` sequences of different lengths; rows are numbered without gaps."""

    def __init__(self, max_rows: int, max_tokens: int) -> None:
        self._max_rows = max_rows
        self._max_tokens = max_tokens
        self._cursor = _Cursor()
        self.layers: list[_SlotLayer] = []
        self.cache = Cache(layers=[])

    def clear(self) -> None:
        """Give the memory back."""
        self.layers = []
        self.cache = Cache(layers=[])

    def aim(self, positions: Sequence[int], device: torch.device) -> None:
        """Say where the next token of each row goes."""
        cursor = self._cursor
        cursor.end = max(positions) + 1
        self._reserve(len(positions), cursor.end)
        if min(positions) + 1 == cursor.end:
            cursor.rows = cursor.positions = None
        else:
            cursor.rows = torch.arange(len(positions), device=device)
            cursor.positions = torch.tensor(positions, device=device)

    def write(self, row: int, states: States, rows: int) -> None:
        """Begin the rows `row` to `row + rows - 1` with the same sequence."""
        if not self.layers:
            self.layers = [_SlotLayer(self._cursor) for _ in states]
            self.cache = Cache(layers=list(self.layers))
            for layer, (keys, values) in zip(self.layers, states, strict=True):
                layer.lazy_initialization(keys, values)
                layer.keys, layer.values = keys[:, :, :0].clone(), values[:, :, :0].clone()
        length = states[0][0].shape[2]
        self._reserve(row + rows, length + 1)
        for layer, (keys, values) in zip(self.layers, states, strict=True):
            assert layer.keys is not None
            assert layer.values is not None
            layer.keys[row : row + rows, :, :length] = keys
            layer.values[row : row + rows, :, :length] = values

    def read(self, row: int, length: int) -> States:
        """A copy of the first `length` tokens of `row`."""
        return [
            (layer.keys[row : row + 1, :, :length].clone(), layer.values[row : row + 1, :, :length].clone())
            for layer in self.layers
            if layer.keys is not None and layer.values is not None
        ]

    def move(self, source: int, target: int, length: int) -> None:
        """Put row `source` in the place of row `target`."""
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                assert buffer is not None
                buffer[target, :, :length] = buffer[source, :, :length]

    def _reserve(self, rows: int, tokens: int) -> None:
        keys = self.layers[0].keys
        assert keys is not None
        slots, capacity = keys.shape[0], keys.shape[2]
        if rows <= slots and tokens <= capacity:
            return
        if rows > slots:
            slots = min(self._max_rows, max(rows, 2 * slots))
        if tokens > capacity:  # half as much again, so that growing costs a constant share of the work
            capacity = min(self._max_tokens, max(tokens + 64, capacity * 3 // 2))
        for layer in self.layers:
            layer.keys = _grown(layer.keys, slots, capacity)
            layer.values = _grown(layer.values, slots, capacity)


def _grown(old: Tensor | None, slots: int, capacity: int) -> Tensor:
    assert old is not None
    new = old.new_zeros(slots, old.shape[1], capacity, old.shape[3])
    new[: old.shape[0], :, : old.shape[2]] = old
    return new


def attention_windows(config: Any) -> dict[str, int | None]:
    """How far back each kind of layer looks (None: all the way); the key "" for a model of one unnamed kind."""
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if not kinds:
        return {"": window}
    if strange := kinds - {"full_attention", "sliding_attention"}:
        raise InvalidInputError(
            f"the transformers generator keeps keys and values only, but this model has layers of the kind "
            f"{', '.join(sorted(strange))}: use generator='vllm'"
        )
    if kinds == {"full_attention"}:
        return {"": None}
    return {kind: window if kind == "sliding_attention" else None for kind in kinds}


def slot_mask(
    lengths: Sequence[int], windows: dict[str, int | None], dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor] | Tensor | None:
    """What the next token of each row may see of the slots, to be added to attention, `[rows, 1, 1, slots]`.

    One tensor for each kind of layer where there are several. None where everything is seen, as by rows of equal
    length: attention without a mask is faster.
    """
    end = max(lengths) + 1
    if min(lengths) + 1 == end and all(window is None or window >= end for window in windows.values()):
        return None
    slots = torch.arange(end, device=device)
    own = torch.tensor(lengths, device=device).unsqueeze(1)
    masks: dict[str, Tensor] = {}
    for kind, window in windows.items():
        hidden = slots > own
        if window is not None:
            hidden |= slots <= own - window
        mask = torch.zeros(hidden.shape, dtype=dtype, device=device)
        masks[kind] = mask.masked_fill_(hidden, torch.finfo(dtype).min)[:, None, None]
    return masks[""] if len(masks) == 1 and "" in masks else masks
