"""Strategies as people write them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_search import DVTS, MCTS, BestFirst, BestOfN, Repeat, StepBeamSearch, Until, search
from tts_search.errors import InvalidInputError
from tts_search.strategies.naming import STRATEGIES, read_strategy


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        *STRATEGIES.items(),
        ("high", BestOfN(n=32)),
        ("MCTS(children=2)", MCTS(children=2)),
        (" mcts ( children = 2 , ) ", MCTS(children=2)),
        ("best_of_n(wave=2)", BestOfN(n=8, wave=2)),
        ("StepBeamSearch(until=Until.THOUGHT, chunk_tokens=64)", StepBeamSearch(until=Until.THOUGHT, chunk_tokens=64)),
        ("dvts(until='thought')", DVTS(until=Until.THOUGHT)),
        ("BestFirst(leaves=none, patience=1)", BestFirst(patience=1)),
        ("MCTS(expansion_tokens=None, selection=puct)", MCTS(expansion_tokens=None, selection="puct")),
        ("Repeat(BestOfN(n=4))", Repeat(BestOfN(n=4))),
        ("beam(keep_finished=false)", StepBeamSearch(keep_finished=False)),
    ],
)
def test_what_is_meant(text: str, meant: object) -> None:
    assert read_strategy(text) == meant


@pytest.mark.parametrize(
    "strategy", [*STRATEGIES.values(), Repeat(MCTS(until=Until.STEP)), StepBeamSearch(chunk_tokens=3), BestOfN(wave=2)]
)
def test_what_a_result_writes_is_read(strategy: object) -> None:
    assert read_strategy(repr(strategy)) == strategy


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("magic", "unknown strategy 'magic': choose from best_of_n, single, beam, dvts, mcts, best_first, low"),
        ("magic(n=2)", "unknown strategy 'magic'"),
        ("MCTS(childs=4)", "MCTS has no 'childs': choose from children, expansion_tokens, until, exploration"),
        ("mcts(childs=4)", "mcts has no 'childs'"),
        ("MCTS(children='four')", "children of MCTS must be a whole number, got 'four'"),
        ("MCTS(children=2.5)", "children of MCTS must be a whole number, got 2.5"),
        ("BestOfN(n=True)", "n of BestOfN must be a whole number, got True"),
        ("MCTS(until=stop)", "until of MCTS must be step or thought or end, got 'stop'"),
        ("MCTS(backup=min)", "backup of MCTS must be mean or max, got 'min'"),
        ("BestOfN(16)", "say by name what 16 is, as in BestOfN\\(n=..."),
        ("Repeat(beam)", "strategy of Repeat must be a Strategy, got 'beam'"),
        ("BestOfN(n=0)", "n of BestOfN must be a whole number of at least 1, got 0"),
        ("BestOfN(n=1, n=2)", "cannot be read"),
        ("BestOfN(n=", "cannot be read"),
        ("BestOfN(n=2) + 1", "cannot be read"),
        ("BestOfN(**{})", "cannot be read"),
        ("a(b)(c)", "cannot be read"),
        ("BestOfN(n=__import__('os').getpid())", "cannot be read"),
        ("BestOfN(n=2 .__class__)", "cannot be read"),
        ("BestOfN(n=" + "(" * 900 + "1", "cannot be read"),
        ("BestOfN(n=" + "-" * 1900 + "1)", "cannot be read"),
        ("BestOfN(n=" + "9" * 5000 + ")", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said) as refused:
        read_strategy(text)
    assert len(str(refused.value)) < 500
    assert str(refused.value).count("\n") == 0


@settings(max_examples=200)
@given(st.text(max_size=60) | st.text(alphabet="BestOfN(n=,)1'[]{}*.:_ \n", max_size=40))
def test_any_text_is_a_strategy_or_refused(text: str) -> None:
    for written in (text, f"BestOfN({text})", f"MCTS(children={text})"):
        with suppress(InvalidInputError):
            assert callable(read_strategy(written))


def test_a_call_takes_it_too() -> None:
    found = search("Using the numbers 7, 5, 15 and 11, make 24.", strategy="BestOfN(n=2)", max_tokens=40)
    assert found.strategy == "BestOfN(n=2)"
