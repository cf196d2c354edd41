"""The memory of earlier sequences: keys and values to go on from, so that a prefix is not read twice.

Generators and scorers that run a model of their own share it. It knows tensors and token ids; it knows no model.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor
from transformers.cache_utils import DynamicCache

States = list[tuple[Tensor, Tensor]]
"""Keys and values of one sequence, for each layer: `[1, heads, tokens, width]`."""


class PrefixCache:
    """The most recently used sequences, up to `max_tokens` in all, to begin new ones from."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._held = 0
        self._sequences: OrderedDict[tuple[int, ...], States] = OrderedDict()

    def clear(self) -> None:
        """Forget everything."""
        self._sequences.clear()
        self._held = 0

    def accepts(self, length: int) -> bool:
        """Whether a sequence of `length` tokens would be kept at all."""
        return 0 < length <= self._max_tokens

    def add(self, tokens: tuple[int, ...], states: States) -> None:
        """Keep a sequence; the least recently used ones make room."""
        if not self.accepts(len(tokens)) or tokens in self._sequences:
            return
        self._held += len(tokens)
        self._sequences[tokens] = states
        while self._held > self._max_tokens:
            oldest, _ = self._sequences.popitem(last=False)
            self._held -= len(oldest)

    def load(self, prefix: tuple[int, ...]) -> tuple[DynamicCache, int]:
        """A cache that holds as much of `prefix` as is known, and how many tokens that is; never all of it."""
        best, known = None, 0
        for tokens in self._sequences:
            length = _common(tokens, prefix)
            if length > known:
                best, known = tokens, length
        known = min(known, len(prefix) - 1)  # the last token must run through the model to be continued
        cache = DynamicCache()
        if best is None or known == 0:
            return cache, 0
        self._sequences.move_to_end(best)
        for layer, (keys, values) in enumerate(self._sequences[best]):
            cache.update(keys[:, :, :known], values[:, :, :known], layer)
        return cache, known


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Length of the common beginning, by bisection: comparing slices is fast, looping over tokens is not."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while low < high - 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
