"""The memory of earlier sequences: what is found, what is shared, what is given up, and how much is held."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tests.generators.transformers.marked_states import states
from tts_search.generators.transformers import prefix_cache
from tts_search.generators.transformers.prefix_cache import PrefixCache, common, token_array
from tts_search.generators.transformers.state_pool import cut

Tokens = tuple[int, ...]
TOKENS = st.lists(st.integers(0, 2), max_size=12).map(tuple)


def add(cache: PrefixCache, tokens: Tokens) -> int:
    """Keep a sequence; returns how many tokens' keys and values were asked for."""
    asked = 0

    def read(known: int) -> Any:
        nonlocal asked
        asked = len(tokens) - known
        return cut(states(tokens), known, None)

    cache.add(token_array(tokens), read)
    return asked


def find(cache: PrefixCache, prefix: Tokens) -> int:
    """How much of a prefix is known; what is known is what was kept."""
    places = cache.find(token_array(prefix))
    if places:
        for got, want in zip(cache.read(places), states(prefix[: len(places)]), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    return len(places)


def held(cache: PrefixCache) -> list[Tokens]:
    """The sequences at the tree's leaves, checked against its own account."""
    leaves: list[Tokens] = []
    total, nodes = 0, list(cache._nodes)

    def visit(node: Any, before: Tokens) -> None:
        nonlocal total
        tokens = (*before, *node.tokens)
        total += len(node.tokens)
        assert len(node.places) == len(node.tokens)
        for first, child in node.children.items():
            assert child.parent is node
            assert child.tokens[0] == first
            assert nodes.index(child) < (nodes.index(node) if node is not cache._root else len(nodes))
            visit(child, tokens)
        if not node.children and tokens:
            leaves.append(tokens)

    visit(cache._root, ())
    assert total == cache.tokens == len({leaf[: i + 1] for leaf in leaves for i in range(len(leaf))})
    return leaves


@given(st.lists(TOKENS, max_size=12), TOKENS.filter(len), st.integers(0, 40))
def test_the_longest_known_prefix_is_found(earlier: list[Tokens], prefix: Tokens, size: int) -> None:
    cache = PrefixCache(size, context_tokens=100, sequences=2)
    for tokens in earlier:
        add(cache, tokens)
        if tokens:  # it is the last to go
            assert find(cache, (*tokens, 9)) == min(len(tokens), size)
        leaves = held(cache)
        assert cache.tokens <= size
    leaves = held(cache)
    expected = max((common(token_array(tokens), token_array(prefix)) for tokens in leaves), default=0)
    assert find(cache, prefix) == min(expected, len(prefix) - 1)
    cache.clear()
    assert (cache.tokens, cache.bytes, find(cache, prefix)) == (0, 0, 0)


@given(st.lists(TOKENS, max_size=12))
def test_nothing_is_given_up_before_it_must(earlier: list[Tokens]) -> None:
    distinct = {tokens[: i + 1] for tokens in earlier for i in range(len(tokens))}
    cache = PrefixCache(len(distinct), context_tokens=100, sequences=2)
    for tokens in earlier:
        add(cache, tokens)
    held(cache)
    assert cache.tokens == len(distinct)
    assert all(find(cache, (*tokens, 9)) == len(tokens) for tokens in earlier)


def test_what_is_known_is_not_asked_for_again() -> None:
    cache = PrefixCache(1000, context_tokens=100, sequences=2)
    assert add(cache, (1,) * 50) == 50
    assert add(cache, (*(1,) * 50, 2, 3)) == 2
    assert add(cache, (*(1,) * 40, 4)) == 1
    assert add(cache, (1,) * 45) == 0
    assert cache.tokens == 53


def test_a_path_of_many_steps_is_one_node() -> None:
    cache = PrefixCache(10_000, context_tokens=100, sequences=2)
    for end in range(20, 5000, 20):
        add(cache, (1,) * end)
    assert len(cache._nodes) == 1


def test_the_least_recently_used_makes_room() -> None:
    cache = PrefixCache(6, context_tokens=100, sequences=2)
    for tokens in ((1, 1, 1), (2, 2, 2)):
        add(cache, tokens)
    assert find(cache, (1, 1, 9)) == 2
    add(cache, (3, 3, 3))
    assert [find(cache, (i, i, 9)) for i in (1, 2, 3)] == [2, 0, 2]


def test_a_long_path_loses_no_more_than_it_must() -> None:
    cache = PrefixCache(100, context_tokens=100, sequences=2)
    add(cache, (1,) * 100)
    add(cache, (2,) * 3)
    assert find(cache, (1,) * 100) == 97
    add(cache, (3,) * 150)  # longer than the memory: its beginning is kept
    assert find(cache, (3,) * 150) == 100


@pytest.mark.parametrize(
    ("free_tokens", "limit"),
    [(9_000_000, 160_000), (400_000, 100_000), (100_000, 40_000), (60_000, 30_000), (0, 0)],
    ids=["all at work", "a quarter", "a context", "half", "none"],
)
def test_the_memory_at_hand_is_the_limit(monkeypatch: pytest.MonkeyPatch, free_tokens: int, limit: int) -> None:
    token = 2 * 2 * 2 * 4 * 4  # layers, keys and values, heads, width, bytes
    monkeypatch.setattr(prefix_cache, "memory_at_hand", lambda device: token * free_tokens)
    cache = PrefixCache(None, context_tokens=40_000, sequences=4)
    assert cache.max_tokens is None
    add(cache, (1, 2, 3))
    assert cache.max_tokens == limit
    assert cache.tokens == min(3, limit)


def test_memory_at_hand_is_a_number_of_bytes() -> None:
    assert 2**20 < prefix_cache.memory_at_hand(torch.device("cpu")) < 2**50


def test_memory_grows_with_what_is_kept_and_not_beyond_the_limit() -> None:
    cache = PrefixCache(5_000, context_tokens=100, sequences=2)
    token = 128
    for i in range(40):
        prompt = tuple(range(1_000))
        add(cache, (*prompt, *range(i, i + 100)))
        assert cache.bytes <= max(token * 256, 1.125 * token * cache.tokens)
    add(cache, tuple(range(5, 7_000)))
    assert cache.bytes == token * 5_000 == token * cache.tokens


def test_reading_is_of_memory_alone() -> None:
    """No tensor is touched to find a prefix, and one copy a layer reads it."""
    cache = PrefixCache(1000, context_tokens=100, sequences=2)
    sequences: Sequence[Tokens] = [(*(1,) * i, 2) for i in range(1, 40)]
    for tokens in sequences:
        cache.add(token_array(tokens), partial(cut, states(tokens), end=None))
    calls: list[str] = []

    class Counted(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(str(func))
            return func(*args, **(kwargs or {}))

    with Counted():
        places = cache.find(token_array((*(1,) * 39, 5)))
        assert not calls
        cache.read(places)
    assert sum("index_select" in call for call in calls) == 4
