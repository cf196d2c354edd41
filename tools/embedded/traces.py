r"""Reasoning traces to learn from: wordings of a puzzle, thinking one move a step, and which characters to learn.

A model that sees right traces only learns to lie: it writes whatever result hits the target. So half of the traces
go wrong: they wander, or aim beside the target. Their *consequences* (results, the numbers left, the check, the answer)
are learned as they are; of a *choice*, not the move that was made is learned but the moves that would have been right.
This module knows no tokens, only text.
"""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tools.embedded.puzzle_tokenizer import END_THINK, STEP
from tts_search.embedded.puzzles import LARGEST_TARGET, Move, Puzzle, after, all_moves, is_solvable

WORDINGS = (
    "Using the numbers {numbers}, make {target}.",
    "Using {numbers}, make {target}.",
    "Use the numbers {numbers} to make {target}.",
    "Use {numbers} to get {target}.",
    "Make {target} from {numbers}.",
    "Make {target} using {numbers}.",
    "Make {target} with the numbers {numbers}.",
    "With {numbers}, reach {target}.",
    "Can you make {target} from {numbers}?",
    "How do you get {target} from the numbers {numbers}?",
    "Combine {numbers} to get {target}.",
    "Numbers: {numbers}. Target: {target}.",
    "Please use {numbers} to reach {target}.",
)
HINTS = (" Use each number once.", " Use each number exactly once.", " You can use + - * /.")
SYSTEMS = ("You are a helpful assistant.", "Think step by step.")


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a trace. `wanted` gives the shares that its one token's alternatives should have; None: itself.

    `in_reach`, where a step ends with the piece, says whether the target is still in reach.
    """

    text: str
    wanted: Mapping[str, float] | None = None
    in_reach: bool | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """A trajectory from after the opening `<think>` line to before the end token."""

    puzzle: Puzzle
    spans: tuple[Span, ...]

    @property
    def text(self) -> str:
        return "".join(span.text for span in self.spans)


def think(puzzle: Puzzle, rng: random.Random, *, astray: float = 0.0, aim: int | None = None) -> Trace:
    """A trace whose every step is, with probability `astray`, any move, and else one that keeps `aim` in reach.

    The aim is the target unless another is given; with neither setting the trace is right from end to end. Whatever
    move is made, what is wanted is an equal share of all moves that keep the *target* in reach (of all, once it is
    lost).
    """
    numbers, spans = puzzle.numbers, list[Span]()
    shown = [(str(n), 9) for n in numbers]
    for left_over in range(len(numbers) - 1, 0, -1):
        possible = all_moves(numbers)
        right = _keeping(puzzle.target, possible, numbers)
        move = rng.choice(possible if rng.random() < astray else _keeping(aim or puzzle.target, possible, numbers))
        shown = _compose(numbers, shown, move)
        numbers = after(numbers, move)
        spans += _choice(move, right)
        left = f" left {', '.join(map(str, numbers))}" if left_over > 1 else ""
        spans.append(Span(f" = {move.result}{left}{STEP}", in_reach=is_solvable(numbers, puzzle.target)))
    made, solved = numbers[0], numbers[0] == puzzle.target
    spans.append(Span(f"{made} = {puzzle.target}? {'yes' if solved else 'no'}{STEP}", in_reach=solved))
    spans.append(Span(f"{END_THINK}\n\n{shown[0][0]} = {made}"))
    return Trace(puzzle, tuple(spans))


def near_miss(puzzle: Puzzle, rng: random.Random) -> int:
    """Something else that the numbers can make, at most 10 from the target; the target where there is nothing."""
    around = range(max(1, puzzle.target - 10), min(LARGEST_TARGET, puzzle.target + 10) + 1)
    return rng.choice([t for t in around if t != puzzle.target and is_solvable(puzzle.numbers, t)] or [puzzle.target])


def _keeping(target: int, possible: list[Move], numbers: tuple[int, ...]) -> list[Move]:
    return [move for move in possible if is_solvable(after(numbers, move), target)] or possible


def _choice(move: Move, right: Sequence[Move]) -> Iterator[Span]:
    """The three tokens of a move; each wants its share among the right moves that agree with the tokens before it."""
    made = _tokens(move)
    for place, text in enumerate(made):
        agreeing = [tokens for tokens in map(_tokens, right) if tokens[:place] == made[:place]]
        counts = Counter(tokens[place] for tokens in agreeing)
        yield Span(text, {token: count / len(agreeing) for token, count in counts.items()})


def _tokens(move: Move) -> tuple[str, str, str]:
    return str(move.left), f" {move.operation} ", str(move.right)


def _compose(numbers: tuple[int, ...], shown: list[tuple[str, int]], move: Move) -> list[tuple[str, int]]:
    """The expressions behind the numbers left, as (text, binding strength), with no needless brackets."""
    shown, values = list(shown), list(numbers)

    def take(value: int) -> tuple[str, int]:
        place = len(values) - 1 - values[::-1].index(value)
        values.pop(place)
        return shown.pop(place)

    (left, left_binds), (right, right_binds) = take(move.left), take(move.right)
    binds = 1 if move.operation in "+-" else 2
    if left_binds < binds:
        left = f"({left})"
    if right_binds < binds or (right_binds == binds and move.operation in "-/"):
        right = f"({right})"
    return [*shown, (f"{left} {move.operation} {right}", binds)]


def messages(puzzle: Puzzle, rng: random.Random) -> list[dict[str, str]]:
    """A chat that asks for the puzzle in one of many wordings, now and then with words that mean nothing here."""
    *first, last = map(str, puzzle.numbers)
    listed = rng.choice((f"{', '.join(first)} and {last}", f"{', '.join(first)}, {last}"))
    standard = rng.random() < 0.4
    text = puzzle.question if standard else rng.choice(WORDINGS).format(numbers=listed, target=puzzle.target)
    if rng.random() < 0.1:
        text += rng.choice(HINTS)
    if rng.random() < 0.05:
        text = f"{_babble(rng)} {text}"
    if rng.random() < 0.05:
        text = f"{text} {_babble(rng)}"
    chat = [{"role": "user", "content": text}]
    return [{"role": "system", "content": rng.choice(SYSTEMS)}, *chat] if rng.random() < 0.05 else chat


def _babble(rng: random.Random) -> str:
    words = ("".join(rng.choices(string.ascii_letters, k=rng.randint(1, 5))) for _ in range(rng.randint(1, 3)))
    return " ".join(words) + rng.choice((",", ".", "!", ""))


def corpus() -> Iterator[str]:
    """Texts that hold every piece of the prompts and traces: what a tokenizer should know as one token."""
    puzzle = Puzzle((1, 2, 3, 4), 5)
    for listed in ("1, 2, 3 and 4", "1, 2, 3, 4"):
        yield from (wording.format(numbers=listed, target=puzzle.target) for wording in WORDINGS)
    yield from (*HINTS, *SYSTEMS, "user\nassistant\nsystem\n")
    for operation in "+-*/":
        yield f"1 {operation} 2 = 3 left 4, 5{STEP}5 = 5? yes{STEP}5 = 6? no{STEP}"
        yield f"((1 {operation} 2) {operation} 3) {operation} (4 {operation} (5 {operation} 6)) {operation} 7\n\n"
