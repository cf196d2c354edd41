"""Keys and values of the rows in flight, one slot each, and what each row may see of them.

Slots are filled from the left and have lengths of their own, so rows join and leave without a repacking of the others.
This module knows tensors and token ids; it knows no model and no request.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from tts_search.errors import InvalidInputError
from tts_search.generators.transformers.prefix_cache import common
from tts_search.generators.transformers.state_pool import States, cut


class _SlotLayer(DynamicLayer):
    """One layer's keys and values, `[slots, heads, capacity, width]`, made when the first of them come."""

    def __init__(self, cursor: _Cursor) -> None:
        super().__init__()
        self.cursor = cursor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.keys, self.values = self._buffer(key_states), self._buffer(value_states)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store the new tokens of the rows at work; return all that these rows have, up to the longest."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        return self.cursor.store(self.keys, key_states), self.cursor.store(self.values, value_states)

    def get_seq_length(self) -> int:
        """Tokens in front of those that are being stored."""
        return self.cursor.start

    def resize(self) -> None:
        """Go over to new buffers, of the size that is asked for now."""
        if self.is_initialized:
            self.keys, self.values = self._buffer(self.keys, copy=True), self._buffer(self.values, copy=True)

    def _buffer(self, like: Tensor | None, *, copy: bool = False) -> Tensor:
        assert like is not None
        # Zeros, because what a mask hides must at least be finite.
        new = like.new_zeros(self.cursor.slots, like.shape[1], self.cursor.capacity, like.shape[3])
        if copy:
            slots, tokens = min(new.shape[0], like.shape[0]), min(new.shape[2], like.shape[2])
            new[:slots, :, :tokens] = like[:slots, :, :tokens]
        return new


class _Cursor:
    """The size of the buffers, and where the next tokens go: to `rows`, from `start` to `end`. The layers share it."""

    def __init__(self) -> None:
        self.slots = 0
        self.capacity = 0
        self.rows = slice(0)
        self.start = 0
        self.end = 0
        self.places: tuple[Tensor, Tensor] | None = None  # row and position of each, where rows are not equally long

    def store(self, buffer: Tensor, new: Tensor) -> Tensor:
        if self.places is None:
            buffer[self.rows, :, self.start : self.end] = new
        else:
            rows, positions = self.places
            buffer[rows, :, positions] = new[:, :, 0]
        return buffer[self.rows, :, : self.end]


class SlotCache:
    """The keys and values of up to `max_rows` sequences of different lengths; rows at work are numbered without gaps.

    A slot remembers what was in it, so a sequence that goes on where it was costs no copy.
    """

    def __init__(self, max_rows: int, max_tokens: int) -> None:
        self._max_rows = max_rows
        self._max_tokens = max_tokens
        self.clear()

    @property
    def tokens(self) -> int:
        """How many tokens there is memory for."""
        return self._cursor.slots * self._cursor.capacity

    def clear(self) -> None:
        """Give the memory back."""
        self._cursor = _Cursor()
        self._held: list[array[int]] = []  # the tokens that each slot holds, or the first of them
        self.cache = Cache(layer_class_to_replicate=cast("Any", partial(_SlotLayer, self._cursor)))

    def reserve(self, rows: int, tokens: int) -> None:
        """Make room for `rows` rows at work, the longest of `tokens` tokens.

        What has to grow is made new, to the measure of the rows at work: many short rows at one time and a long one at
        another do not add up to many long ones.
        """
        cursor = self._cursor
        more_rows, more_tokens = rows > cursor.slots, tokens > cursor.capacity
        if not (more_rows or more_tokens):
            return
        # Twice the rows, and an eighth more tokens: to read a cache for each of these costs more than to move it once.
        slots = max(rows, 2 * cursor.slots) if more_rows else rows
        capacity = max(tokens + 64, cursor.capacity * 9 // 8) if more_tokens else tokens + 64
        cursor.slots, cursor.capacity = min(self._max_rows, slots), min(self._max_tokens, capacity)
        self._held = [held[: cursor.capacity] for held in self._held[: cursor.slots]]
        self._held += [array("q") for _ in range(cursor.slots - len(self._held))]
        for layer in self._layers:
            layer.resize()

    def begin(self, row: int, tokens: array[int], known: int, read: Callable[[int], States]) -> None:
        """Put the first `known` tokens of a sequence into a row, and aim at the rest of them.

        There must be room for the row. `read(n)` gives the known tokens but for the first `n`, which the slot still
        holds; it is not asked if that is all of them.
        """
        shared = common(self._held[row], tokens[:known])
        if shared < known:
            self._held[row] = tokens[:shared]
            self._aim_within(row, shared, known)
            for layer, (keys, values) in enumerate(read(shared)):
                self.cache.update(keys, values, layer)
        self._held[row] = tokens[:known]
        self._aim_within(row, known, len(tokens))

    def spread(self, row: int, rows: int, tokens: array[int]) -> None:
        """Begin the rows `row` to `row + rows - 1` with the sequence that is in the first of them."""
        self._held[row] = tokens
        for other in range(row + 1, row + rows):
            self._copy(row, other, common(self._held[other], tokens), len(tokens))
            self._held[other] = tokens

    def aim(self, positions: Sequence[int], device: torch.device) -> None:
        """Say where the next token of each row goes."""
        cursor, rows, last = self._cursor, len(positions), max(positions)
        self.reserve(rows, last + 1)
        cursor.rows, cursor.start, cursor.end, cursor.places = slice(rows), last, last + 1, None
        if min(positions) < last:
            cursor.places = torch.arange(rows, device=device), torch.tensor(positions, device=device)

    def read(self, row: int, start: int, end: int) -> States:
        """The tokens from `start` to `end` of a row, as a view that holds until something changes."""
        return cut(self._buffers, start, end, row)

    def note(self, row: int, tokens: array[int]) -> None:
        """Remember what a row holds."""
        self._held[row] = tokens

    def erase(self, row: int) -> None:
        """Empty a row that may hold what is not finite."""
        self._held[row] = array("q")
        for keys, values in self._buffers:
            keys[row] = values[row] = 0

    def move(self, source: int, target: int, length: int) -> None:
        """Put row `source` in the place of row `target`."""
        self._copy(source, target, 0, length)
        self._held[target] = self._held[source]

    @property
    def _layers(self) -> list[_SlotLayer]:
        return cast("list[_SlotLayer]", self.cache.layers)

    @property
    def _buffers(self) -> list[tuple[Tensor, Tensor]]:
        layers = self._layers
        return [(x.keys, x.values) for x in layers if x.keys is not None and x.values is not None]

    def _aim_within(self, row: int, start: int, end: int) -> None:
        cursor = self._cursor
        cursor.rows, cursor.start, cursor.end, cursor.places = slice(row, row + 1), start, end, None

    def _copy(self, source: int, target: int, start: int, end: int) -> None:
        for layer in self._buffers:
            for buffer in layer:
                buffer[target, :, start:end] = buffer[source, :, start:end]


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
