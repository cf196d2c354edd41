"""Puzzles are solvable, their solutions are graded right, and nothing else is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.embedded.traces import think
from tts_search.embedded.puzzles import (
    LARGEST_RESULT,
    Puzzle,
    after,
    all_moves,
    draw,
    expression,
    grade,
    held_out,
    is_solvable,
    moves,
    parse_question,
    solve,
)
from tts_search.errors import InvalidInputError

PUZZLE = Puzzle((4, 6, 9, 13), 87)
puzzles = st.builds(lambda seed: draw(random.Random(seed)), st.integers(0, 2**32))


@given(puzzles)
def test_a_drawn_puzzle_has_a_solution_within_its_rules(puzzle: Puzzle) -> None:
    solution = solve(puzzle)
    assert solution is not None
    assert len(solution) == 3
    numbers = puzzle.numbers
    for move in solution:
        assert move in all_moves(numbers)
        assert 1 <= move.result <= LARGEST_RESULT
        numbers = after(numbers, move)
    assert numbers == (puzzle.target,)


@given(puzzles, st.randoms(use_true_random=False))
def test_a_right_trace_is_graded_right(puzzle: Puzzle, rng: random.Random) -> None:
    assert puzzle.grade(think(puzzle, rng, astray=0).text)


@given(puzzles, st.randoms(use_true_random=False))
def test_a_wandering_trace_is_graded_by_its_own_honest_check(puzzle: Puzzle, rng: random.Random) -> None:
    trace = think(puzzle, rng, astray=1)
    assert puzzle.grade(trace.text) == ("? yes" in trace.text)


def test_what_cannot_be_made_has_no_solution() -> None:
    assert solve(Puzzle((1, 1, 1, 1), 99)) is None
    assert not is_solvable((1, 1), 3)


@pytest.mark.parametrize(
    ("a", "b", "results"), [(12, 4, {16, 8, 48, 3}), (4, 12, {16, 8, 48, 3}), (5, 5, {10, 25, 1}), (7, 1, {8, 6, 7})]
)
def test_moves(a: int, b: int, results: set[int]) -> None:
    assert {move.result for move in moves(a, b)} == results


def test_the_last_of_equal_numbers_is_used() -> None:
    assert after((9, 5, 9), next(moves(9, 5))) == (9, 14)


def test_held_out_puzzles_are_fixed_different_and_never_drawn_for_training() -> None:
    some = held_out(50, seed=3)
    assert some == held_out(50, seed=3) != held_out(50, seed=4)
    assert len({(tuple(sorted(p.numbers)), p.target) for p in some}) == 50
    assert all(puzzle.is_held_out for puzzle in some)
    rng = random.Random(0)
    assert not any(draw(rng).is_held_out for _ in range(200))
    with pytest.raises(InvalidInputError):
        held_out(-1)


@given(puzzles, st.permutations(range(4)))
def test_held_out_does_not_depend_on_the_order_of_the_numbers(puzzle: Puzzle, order: list[int]) -> None:
    assert Puzzle(tuple(puzzle.numbers[i] for i in order), puzzle.target).is_held_out == puzzle.is_held_out


@pytest.mark.parametrize(
    "answer",
    [
        "(13 - 4) * 9 + 6",
        "(13 - 4) * 9 + 6 = 87",
        "87 = (13 - 4) * 9 + 6",
        "(13-4)*9+6=87.",
        r"The answer is \boxed{(13 - 4) * 9 + 6}.",
        r"$\boxed{(13 - 4) \times 9 + 6 = 87}$",
        r"\left(13 - 4\right) \cdot 9 + 6",
        "(13 − 4) × 9 + 6 = 87",
        "9 + 6 = 15\n</think>\n\n(13 - 4) * 9 + 6 = 87\n",
        "Answer: 6 + (13 - 4) * 9",
    ],
)
def test_right_answers_in_many_spellings(answer: str) -> None:
    assert grade(answer, PUZZLE)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "87",
        "87 = 87",
        "=",
        "= 87",
        "(13 - 4) * 9 + 6 = 88",
        "(13 - 4) * 9 + 6 = 87 = 87",
        "(13 - 4) * 9",
        "(13 - 4) * 9 + 6 + 1 - 1",
        "(13 - 4) * (9) + 7",
        "(13 - 4) * 9 + 06",
        "(13 - 4) * 9 - -6",
        "(13 - 4) * 9 + 6 / (13 - 13)",
        "9**9**9**9",
        "9^9^9^9",
        "13 // 4",
        "(13 - 4) * ９ + 6",
        "(13 - 4) * 9 + 6e0",
        "__import__('os').system('true')",
        "9 if 1 else 2",
        "[13, 4, 9, 6]",
        "(" * 60 + ")" * 60,
        "(" * 100_000 + "1" + ")" * 100_000,
        "9" * 100_000,
        "9*" * 50_000 + "9",
        r"\boxed{" * 10_000,
        "\x00",
        "\ud800",
        "九",
    ],
)
def test_wrong_and_hostile_answers_are_refused(answer: str) -> None:
    assert not grade(answer, PUZZLE)


@given(st.text())
def test_any_text_is_graded_without_an_error(answer: str) -> None:
    assert not grade(answer, Puzzle((17, 18, 19, 20), 3))


@given(st.text(alphabet="0123456789+-*/()= .\n", max_size=80))
def test_anything_like_arithmetic_is_graded_without_an_error(answer: str) -> None:
    assert grade(answer, Puzzle((17, 18, 19, 20), 3)) in (True, False)


def test_fractions_on_the_way_are_allowed() -> None:
    assert grade("8 / (3 - 8 / 3)", Puzzle((3, 3, 8, 8), 24))


def test_the_same_expression_in_other_spelling_counts_as_the_same() -> None:
    assert expression("9 × 4 = 36.") == expression(r"\boxed{9 * 4 = 36}") == "9 * 4 = 36"


@pytest.mark.parametrize(
    "question",
    [
        PUZZLE.question,
        "Make 87 from 4, 6, 9 and 13.",
        "Use 4, 6, 9, 13 to get 87.",
        "Numbers: 4, 6, 9, 13. Target: 87.",
        "with 4 6 9 13 reach 87",
    ],
)
def test_questions_are_read_in_many_wordings(question: str) -> None:
    assert parse_question(question) == PUZZLE


@pytest.mark.parametrize("question", ["", "Hello", "Make 87.", "Using 1, 2, 3, 4 and 5, make 6.", "1 2 3 4 5"])
def test_what_is_no_puzzle_is_refused(question: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_question(question)
