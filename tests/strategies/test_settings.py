"""What a strategy's settings may be, where nobody has read them from a text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tts_search import DVTS, MCTS, BestFirst, BestOfN, StepBeamSearch, Until
from tts_search.errors import InvalidInputError

COUNTS = [
    (BestOfN, "n"),
    (BestOfN, "wave"),
    (StepBeamSearch, "width"),
    (StepBeamSearch, "branching"),
    (StepBeamSearch, "chunk_tokens"),
    (DVTS, "subtrees"),
    (DVTS, "branching"),
    (DVTS, "width"),
    (DVTS, "chunk_tokens"),
    (MCTS, "children"),
    (MCTS, "leaves"),
    (MCTS, "expansion_tokens"),
    (BestFirst, "leaves"),
    (BestFirst, "chunk_tokens"),
]
NUMBERS = [(MCTS, "exploration"), (MCTS, "finishing"), (BestFirst, "patience")]


@pytest.mark.parametrize(("kind", "name"), COUNTS)
@pytest.mark.parametrize("value", [math.nan, math.inf, 1.5, 2.0, True, 0, -1, "2", [2]])
def test_a_count_is_a_whole_number(kind: Any, name: str, value: object) -> None:
    with pytest.raises(
        InvalidInputError, match=f"^{name} of {kind.__name__} must be a whole number of at least 1, got"
    ):
        kind(**{name: value})


@pytest.mark.parametrize(("kind", "name"), COUNTS)
def test_numpys_whole_numbers_are_whole_numbers(kind: Any, name: str) -> None:
    assert repr(kind(**{name: np.int64(2)})) == repr(kind(**{name: 2}))


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "much", [0.5]])
def test_a_number_is_finite(kind: Any, name: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=f"^{name} of {kind.__name__} must be a finite number, got"):
        kind(**{name: value})


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_numpys_numbers_are_numbers(kind: Any, name: str) -> None:
    assert repr(kind(**{name: np.float64(0.5)})) == repr(kind(**{name: 0.5}))


@pytest.mark.parametrize(
    ("kind", "setting", "said"),
    [
        (MCTS, {"exploration": -1}, "exploration >= 0"),
        (MCTS, {"finishing": 1}, "finishing < 1"),
        (MCTS, {"selection": "luck"}, "uct"),
        (MCTS, {"until": "dawn"}, "until of MCTS must be step, thought or end, got 'dawn'"),
        (MCTS, {"until": None}, "until of MCTS must be"),
        (BestFirst, {"patience": 0}, "0 < patience"),
        (BestFirst, {"patience": 2}, "patience <= 1"),
        (BestFirst, {"leaves": 10**12}, "leaves of BestFirst may be 100,000 at most, got 1,000,000,000,000"),
        (DVTS, {"subtrees": 10**12}, "subtrees of DVTS may be 100,000 at most"),
        (StepBeamSearch, {"keep_finished": "no"}, "keep_finished of StepBeamSearch must be True or False, got 'no'"),
    ],
)
def test_what_is_out_of_range_is_named(kind: Any, setting: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        kind(**setting)


def test_how_far_an_expansion_goes_may_be_said_in_a_word() -> None:
    assert repr(StepBeamSearch(until="thought")) == repr(StepBeamSearch(until=Until.THOUGHT))  # pyright: ignore[reportArgumentType]
