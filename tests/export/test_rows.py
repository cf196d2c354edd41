"""What every export shows: pieces, lanes, visits, the chosen path; and the colours of values."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.export.searches import Grow, any_byte, run
from tts_search import BestOfN, SearchResult, Until
from tts_search.export.colors import DARK, LIGHT, channels, color, ink, luminance
from tts_search.export.rows import Kind, chosen_path, preorder, rows
from tts_search.testing import FakeGenerator


@pytest.mark.parametrize("thinks", [True, False])
@pytest.mark.parametrize("until", list(Until))
def test_pieces_are_the_text_cut_behind_its_steps(thinks: bool, until: Until) -> None:
    result = run(Grow(rounds=6, until=until, max_tokens=7), FakeGenerator(thinks=thinks))
    assert result.tree is not None
    every = rows(result)
    for row in every:
        assert row.text == result.tree.decode(row.node.token_ids)
        assert sum(piece.tokens for piece in row.pieces) == len(row.node.token_ids)
        path = [piece for node in result.tree.path(row.node) for piece in every[node.index].pieces]
        ends = [piece.score for piece in path if piece.kind is Kind.STEP]
        assert ends == list(row.node.step_scores)


def test_the_answer_and_what_was_forced_are_told_apart() -> None:
    result = run(BestOfN(n=2), FakeGenerator(close=0.0, step=0.3), max_tokens=30)
    end = rows(result)[chosen_path(result)[-1]]
    assert [piece.kind for piece in end.pieces] == [Kind.FORCED, Kind.ANSWER]
    assert end.pieces[0].text.endswith("</think>")


def test_the_chosen_path_ends_at_the_answer(result: SearchResult) -> None:
    path = chosen_path(result)
    tree = result.tree
    assert tree is not None
    assert path[0] == 0
    assert tree.split(tree.nodes[path[-1]])[1] == result.answer
    assert chosen_path(tree) == []


def test_visits(result: SearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = result.tree
    assert tree is not None
    monkeypatch.setattr(tree, "visits", {})
    for row in rows(tree):
        below = sum(rows(tree)[child.index].visits for child in tree.children(row.node))
        assert row.visits == below + (row.node.parent is not None)
    tree.visits[1] = 9
    assert rows(tree)[1].visits == 9
    assert rows(tree, {1: 4})[1].visits == 4
    monkeypatch.setattr(tree, "visits", {})


def test_no_two_bars_share_a_place(result: SearchResult) -> None:
    every = rows(result)
    places = sorted((row.lane, row.node.length - len(row.node.token_ids), row.node.length) for row in every[1:])
    for (lane, _, end), (next_lane, start, _) in itertools.pairwise(places):
        assert lane < next_lane or end <= start


def test_a_deep_chain_is_no_recursion() -> None:
    result = run(Grow(rounds=1500, n=1, max_tokens=1), FakeGenerator(close=0.0, thinks=True), max_tokens=2000)
    assert result.tree is not None
    assert len(result.tree) > 1400
    assert len(preorder(result.tree)) == len(rows(result)) == len(result.tree)


def test_any_bytes_have_a_text() -> None:
    for row in rows(run(BestOfN(n=4), FakeGenerator(script=any_byte))):
        row.text.encode()


@pytest.mark.parametrize("scale", [LIGHT, DARK])
def test_scales_are_read_without_hue(scale: tuple[str, ...]) -> None:
    seen = [luminance(c) for c in scale]
    order = sorted(seen, reverse=scale is LIGHT)
    assert seen == order
    assert abs(seen[0] - seen[-1]) > 0.35
    assert all(abs(a - b) > 0.008 for a, b in itertools.pairwise(seen))


@given(st.floats(0, 1), st.sampled_from([LIGHT, DARK]))
def test_numbers_on_colours_are_legible(value: float, scale: tuple[str, ...]) -> None:
    back = luminance(color(value, scale))
    front = luminance(ink(color(value, scale)))
    assert (max(back, front) + 0.05) / (min(back, front) + 0.05) >= 4.5


def test_colours_hit_their_ends() -> None:
    assert (color(-1), color(0), color(1), color(2)) == (LIGHT[0], LIGHT[0], LIGHT[-1], LIGHT[-1])
    assert channels("#ffa194") == (255, 161, 148)
