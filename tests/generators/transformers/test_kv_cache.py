"""Slots of different lengths and the masks between them."""

from array import array

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.generators.transformers.marked_states import states
from tts_search.generators.transformers.kv_cache import SlotCache, slot_mask
from tts_search.generators.transformers.prefix_cache import token_array
from tts_search.generators.transformers.state_pool import States, cut

CPU = torch.device("cpu")


def begin(slots: SlotCache, row: int, tokens: tuple[int, ...], rows: int = 1) -> int:
    """Begin rows of which all but the last token is known; returns how many tokens were copied to the first."""
    copied = 0

    def read(start: int) -> States:
        nonlocal copied
        copied = known - start
        return cut(states(tokens), start, known)

    known = len(tokens) - 1
    slots.begin(row, token_array(tokens), known, read)
    for layer, (keys, values) in enumerate(cut(states(tokens), known, None)):
        slots.cache.update(keys, values, layer)
    slots.spread(row, rows, token_array(tokens))
    return copied


def holds(slots: SlotCache, row: int, tokens: tuple[float, ...]) -> bool:
    pairs = zip(slots.read(row, 0, len(tokens)), states(tokens), strict=True)
    return all(torch.allclose(a, b) for got, want in pairs for a, b in zip(got, want, strict=True))


def test_rows_keep_their_own_lengths() -> None:
    slots = SlotCache(max_rows=5, max_tokens=300)
    sequences = [(1,) * 3, (2,) * 250, (3,) * 7]
    for row, tokens in enumerate(sequences):
        slots.reserve(row + 1, 250)
        begin(slots, row, tokens)
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
        assert holds(slots, row, (*tokens, *(tokens[0] + step / 10 for step in range(3))))


TOKENS = st.lists(st.integers(1, 2), min_size=1, max_size=8).map(tuple)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), TOKENS), max_size=12))
def test_a_slot_holds_its_sequence_whatever_was_in_it(work: list[tuple[int, int, tuple[int, ...]]]) -> None:
    slots = SlotCache(max_rows=6, max_tokens=100)
    at_work: dict[int, tuple[int, ...]] = {}
    for row, rows, tokens in work:
        at_work = {i: held for i, held in at_work.items() if i < row}
        slots.reserve(row + rows, max(map(len, [*at_work.values(), tokens])))
        begin(slots, row, tokens, rows)
        at_work |= dict.fromkeys(range(row, row + rows), tokens)
        assert all(holds(slots, i, held) for i, held in at_work.items())


def test_what_goes_on_where_it_was_is_not_copied() -> None:
    slots = SlotCache(max_rows=4, max_tokens=300)
    slots.reserve(1, 60)
    assert begin(slots, 0, (1,) * 50) == 49
    assert begin(slots, 0, (1,) * 53) == 2  # from 50 to 52; the last token runs
    assert begin(slots, 0, (*(1,) * 40, *(2,) * 5)) == 4
    slots.erase(0)
    assert begin(slots, 0, (1,) * 50) == 49


def test_many_short_rows_and_one_long_row_do_not_add_up() -> None:
    slots = SlotCache(max_rows=64, max_tokens=40_000)
    slots.reserve(64, 100)
    slots.reserve(1, 33_000)
    assert slots.tokens < 34_000
    for rows in range(1, 65):
        slots.reserve(rows, 100)
    assert slots.tokens < 64 * 200


def test_an_erased_row_is_finite() -> None:
    slots = SlotCache(max_rows=2, max_tokens=100)
    slots.reserve(2, 10)
    begin(slots, 0, (1, 2, 3))
    slots.aim([3], CPU)
    for layer in range(2):
        slots.cache.update(torch.full((1, 2, 1, 4), torch.nan), torch.full((1, 2, 1, 4), torch.nan), layer)
    slots.erase(0)
    slots.note(0, array("q"))
    assert all(torch.isfinite(tensor).all() for pair in slots.read(0, 0, 10) for tensor in pair)


@pytest.mark.parametrize("rows", [1, 3])
def test_memory_is_given_back(rows: int) -> None:
    slots = SlotCache(max_rows=4, max_tokens=100)
    slots.reserve(rows, 10)
    begin(slots, 0, (1, 2, 3), rows)
    slots.clear()
    assert slots.tokens == 0
    slots.reserve(1, 10)
    assert begin(slots, 0, (1, 2, 3)) == 2


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
