"""Traces say what is true; what follows is learned as it is, and a choice as it should have been."""

from __future__ import annotations

import random
import re

from hypothesis import given
from hypothesis import strategies as st

from tools.embedded.traces import HINTS, WORDINGS, messages, think
from tts_search.embedded.puzzles import Puzzle, after, all_moves, draw, grade, is_solvable, parse_question

seeds = st.integers(0, 2**32)
STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)(?: left ([\d, ]+))?")


@given(seeds, st.sampled_from([0.0, 0.5, 1.0]))
def test_every_result_and_every_rest_is_true(seed: int, astray: float) -> None:
    rng = random.Random(seed)
    puzzle = draw(rng)
    text = think(puzzle, rng, astray=astray).text
    thinking, _, answer = text.partition("</think>\n\n")
    *steps, check, empty = thinking.split(".\n\n")
    assert len(steps) == 3
    assert empty == ""
    numbers = sorted(puzzle.numbers)
    for step in steps:
        match = STEP.fullmatch(step)
        assert match is not None
        left, operation, right, result, rest = match.groups()
        assert eval(f"{left} {operation} {right}") == int(result)  # our own digits
        numbers.remove(int(left))
        numbers.remove(int(right))
        numbers = sorted([*numbers, int(result)])
        assert rest is None or sorted(map(int, rest.split(", "))) == numbers
    verdict = "yes" if numbers[0] == puzzle.target else "no"
    assert check == f"{numbers[0]} = {puzzle.target}? {verdict}"
    assert grade(answer, Puzzle(puzzle.numbers, numbers[0])), "the answer is the expression that was computed"


@given(seeds, st.sampled_from([0.0, 0.5, 1.0]))
def test_consequences_are_learned_as_they_are_and_choices_as_they_should_be(seed: int, astray: float) -> None:
    rng = random.Random(seed)
    puzzle = draw(rng)
    *steps, check, answer = think(puzzle, rng, astray=astray).spans
    assert check.wanted is None
    assert answer.wanted is None
    numbers = puzzle.numbers
    for left, operation, right, consequence in zip(*[iter(steps)] * 4, strict=True):
        assert consequence.wanted is None
        possible = all_moves(numbers)
        good = [move for move in possible if is_solvable(after(numbers, move), puzzle.target)] or possible
        assert left.wanted == {
            str(n): sum(move.left == n for move in good) / len(good) for n in {move.left for move in good}
        }
        made = next(
            move
            for move in possible
            if (str(move.left), f" {move.operation} ", str(move.right)) == (left.text, operation.text, right.text)
        )
        assert (right.wanted or {}).get(right.text, 0) > 0 or made not in good
        if astray == 0:
            assert made in good
        numbers = after(numbers, made)


@given(seeds, st.sampled_from([0.0, 1.0]))
def test_shares_sum_to_one_wherever_there_is_a_right_way_on(seed: int, astray: float) -> None:
    rng = random.Random(seed)
    for span in think(draw(rng), rng, astray=astray).spans:
        if span.wanted:
            assert abs(sum(span.wanted.values()) - 1) < 1e-9
        assert astray or span.wanted is None or span.wanted[span.text] > 0


def test_half_of_the_wandering_goes_wrong() -> None:
    rng = random.Random(0)
    traces = [think(draw(rng), rng, astray=0.5) for _ in range(300)]
    assert 0.2 < sum("? yes" in trace.text for trace in traces) / 300 < 0.6


@given(seeds)
def test_every_wording_asks_for_the_puzzle(seed: int) -> None:
    rng = random.Random(seed)
    puzzle = draw(rng)
    *system, user = messages(puzzle, rng)
    assert user["role"] == "user"
    assert all(message["role"] == "system" for message in system)
    assert parse_question(user["content"]) == puzzle


def test_wordings_are_many() -> None:
    assert len(set(WORDINGS)) >= 10
    assert len(HINTS) >= 2
