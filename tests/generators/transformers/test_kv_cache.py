"""Slots of different lengths, the masks between them, and the memory of earlier sequences."""

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from tts_search.generators.transformers.kv_cache import SlotCache, slot_mask
from tts_search.generators.transformers.prefix_cache import PrefixCache, States

CPU = torch.device("cpu")
TOKENS = st.lists(st.integers(0, 2), max_size=12).map(tuple)


def states(tokens: tuple[int, ...]) -> States:
    """Two layers whose keys and values say which token they are of."""
    keys = torch.tensor(tokens, dtype=torch.float32)[None, None, :, None].expand(1, 2, -1, 4)
    return [(keys, keys + 100), (keys + 200, keys + 300)]


@given(st.lists(TOKENS, max_size=8), TOKENS.filter(len), st.integers(0, 30))
def test_the_longest_known_prefix_is_found(earlier: list[tuple[int, ...]], prefix: tuple[int, ...], size: int) -> None:
    cache = PrefixCache(size)
    for tokens in earlier:
        cache.add(tokens, states(tokens))
    loaded, known = cache.load(prefix)
    assert known < len(prefix)
    held = cache._sequences
    assert sum(map(len, held)) <= size
    expected = max((common(tokens, prefix) for tokens in held), default=0)
    assert known == min(expected, len(prefix) - 1)
    if known:
        layers: list[Any] = list(loaded.layers)
        got = [(layer.keys, layer.values) for layer in layers]
        for pair, want in zip(got, states(prefix[:known]), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(pair, want, strict=True))


def common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    length = 0
    while length < min(len(a), len(b)) and a[length] == b[length]:
        length += 1
    return length


def test_the_least_recently_used_makes_room() -> None:
    cache = PrefixCache(6)
    for tokens in ((1, 1, 1), (2, 2, 2)):
        cache.add(tokens, states(tokens))
    assert cache.load((1, 1, 9))[1] == 2
    cache.add((3, 3, 3), states((3, 3, 3)))
    assert [cache.load((i, i, 9))[1] for i in (1, 2, 3)] == [2, 0, 2]


def test_rows_keep_their_own_lengths() -> None:
    slots = SlotCache(max_rows=5, max_tokens=300)
    sequences = [(1,) * 3, (2,) * 250, (3,) * 7]
    for row, tokens in enumerate(sequences):
        slots.write(row, states(tokens), 1)
    lengths = [len(tokens) for tokens in sequences]
    for step in range(3):
        slots.aim(lengths, CPU)
        new = torch.arange(3.0)[:, None, None, None].expand(3, 2, 1, 4) + 1 + step / 10
        for layer in range(2):
            keys, _ = slots.cache.update(new + 200 * layer, new + 200 * layer + 100, layer)
            assert keys.shape == (3, 2, max(lengths) + 1, 4)
        lengths = [length + 1 for length in lengths]
    slots.move(2, 0, lengths[2])
    for row, tokens in ((0, sequences[2]), (1, sequences[1])):
        written = (*tokens, *(tokens[0] + step / 10 for step in range(3)))
        for got, want in zip(slots.read(row, len(written)), states(written), strict=True):  # type: ignore[arg-type]
            assert all(torch.allclose(a, b) for a, b in zip(got, want, strict=True))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.sampled_from([None, 3]))
def test_masks(lengths: list[int], window: int | None) -> None:
    mask = slot_mask(lengths, {"": window}, torch.float32, CPU)
    end = max(lengths) + 1
    seen = torch.ones(len(lengths), end, dtype=torch.bool)
    if mask is not None:
        assert isinstance(mask, torch.Tensor)
        assert mask.shape == (len(lengths), 1, 1, end)
        seen = mask[:, 0, 0] == 0
    for row, length in enumerate(lengths):
        first = 0 if window is None else max(0, length + 1 - window)
        assert seen[row].nonzero().flatten().tolist() == list(range(first, length + 1))
