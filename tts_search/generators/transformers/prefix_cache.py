"""The memory of earlier sequences: keys and values to go on from, so that a prefix is not read twice.

A radix tree: sequences with a common beginning share it, as in RadixAttention (Zheng et al., 2024, "SGLang").
Generators and scorers that run a model of their own share this module. It knows tensors and token ids; it knows no
model.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tts_search.generators.memory import available_memory
from tts_search.generators.transformers.state_pool import StatePool, States, cut, token_bytes


def token_array(tokens: Sequence[int]) -> array[int]:
    """Token ids as memory, which is cut and compared at the speed of memory."""
    return array("q", tokens)


class _Node:
    """A part of one or more sequences: its tokens, and where their keys and values are."""

    __slots__ = ("children", "parent", "places", "tokens")

    def __init__(self, tokens: array[int], places: array[int], parent: _Node | None) -> None:
        self.tokens = tokens
        self.places = places
        self.parent = parent
        self.children: dict[int, _Node] = {}  # by their first token


class PrefixCache:
    """The most recently used sequences, to begin new ones from.

    Args:
        max_tokens: how many tokens to keep, those that sequences share counted once. None is room for `sequences` of
            them, within a quarter of the memory that is free when the first is kept; a single one may take half.
        context_tokens: the longest sequence.
        sequences: how many are at work at once.
    """

    def __init__(self, max_tokens: int | None, *, context_tokens: int, sequences: int) -> None:
        self._limit = max_tokens
        self._context_tokens = context_tokens
        self._sequences = sequences
        self._pool = StatePool()
        self._root = _Node(array("q"), array("q"), None)
        # Least recently used first. A node stands before its parent, so the first one never has children.
        self._nodes: OrderedDict[_Node, None] = OrderedDict()

    @property
    def max_tokens(self) -> int | None:
        """The most that is kept; None before the first sequence, where it goes by the memory at hand."""
        return self._limit

    @property
    def tokens(self) -> int:
        """Tokens kept."""
        return self._pool.used

    @property
    def bytes(self) -> int:
        """Memory of the keys and values."""
        return self._pool.bytes

    def clear(self) -> None:
        """Forget everything."""
        self._nodes.clear()
        self._root.children.clear()
        self._pool.clear()

    def find(self, prefix: array[int]) -> array[int]:
        """Where as much of `prefix` is as is known (see `read`); never all of it: its last token must run."""
        path, known = self._walk(prefix)
        self._touch(path)
        places = array("q")
        for node in path:
            places.extend(node.places)
        return places[: min(known, len(prefix) - 1)]

    def read(self, places: array[int]) -> States:
        """A copy of the keys and values at `places`, which hold only until the next call of `add`."""
        return self._pool.read(places)

    def add(self, tokens: array[int], read: Callable[[int], States]) -> None:
        """Keep a sequence, or as much of its beginning as may be kept; the least recently used tokens make room.

        `read(known)` gives the keys and values of all tokens but the first `known`; what is kept already is not asked
        for.
        """
        if not tokens:
            return
        if self._limit is None:
            self._limit = self._fitting(read(len(tokens) - 1))
        length = min(len(tokens), self._limit)
        path, known = self._walk(tokens[:length])
        if path and (surplus := sum(len(node.tokens) for node in path) - known):
            path[-1] = self._split(path[-1], len(path[-1].tokens) - surplus)
        self._touch(path)
        if known == length:
            return
        self._make_room(length - known)
        places = self._pool.write(cut(read(known), 0, length - known), self._limit)
        end = path[-1] if path else self._root
        if path and not end.children:
            end.tokens.extend(tokens[known:length])
            end.places.extend(places)
            return
        node = end.children[tokens[known]] = _Node(tokens[known:length], places, end)
        self._nodes[node] = None
        self._touch(path)

    def _walk(self, tokens: array[int]) -> tuple[list[_Node], int]:
        """The nodes along `tokens`, and how many of these they know; the last node may hold more than that."""
        path: list[_Node] = []
        node, known = self._root, 0
        while known < len(tokens) and (child := node.children.get(tokens[known])) is not None:
            path.append(child)
            length = common(child.tokens, tokens[known : known + len(child.tokens)])
            known += length
            if length < len(child.tokens):
                break
            node = child
        return path, known

    def _touch(self, path: Sequence[_Node]) -> None:
        for node in reversed(path):
            self._nodes.move_to_end(node)

    def _split(self, node: _Node, length: int) -> _Node:
        """Cut a node in two, and return the first, which is `length` tokens long; the caller touches it."""
        assert node.parent is not None
        first = _Node(node.tokens[:length], node.places[:length], node.parent)
        node.tokens, node.places, node.parent = node.tokens[length:], node.places[length:], first
        first.children[node.tokens[0]] = node
        assert first.parent is not None
        first.parent.children[first.tokens[0]] = first
        self._nodes[first] = None
        return first

    def _make_room(self, tokens: int) -> None:
        assert self._limit is not None
        while (surplus := self._pool.used + tokens - self._limit) > 0:
            leaf = next(iter(self._nodes))
            assert leaf.parent is not None
            if surplus >= len(leaf.tokens):
                self._pool.free(leaf.places)
                del leaf.parent.children[leaf.tokens[0]], self._nodes[leaf]
            else:  # its end alone
                self._pool.free(leaf.places[-surplus:])
                del leaf.tokens[-surplus:], leaf.places[-surplus:]

    def _fitting(self, states: States) -> int:
        free = memory_at_hand(states[0][0].device) // token_bytes(states)
        return min(self._sequences * self._context_tokens, max(free // 4, min(self._context_tokens, free // 2)))


def memory_at_hand(device: torch.device) -> int:
    """Bytes that are free where `device` has its memory."""
    module: Any = getattr(torch, device.type, None)
    if hasattr(module, "mem_get_info"):  # CUDA and others that have a memory of their own
        return module.mem_get_info(device)[0]
    return available_memory()


def common(a: array[int], b: array[int]) -> int:
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
