"""Number puzzles in plain English: drawing them, solving them, reading them, and grading answers to them.

A puzzle gives four numbers and a target; an answer is an expression that uses each number exactly once. This module
knows nothing of models. It needs the standard library only, and no answer, however hostile, makes it slow.
"""

from __future__ import annotations

import ast
import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from tts_search.errors import InvalidInputError

COUNT = 4
LARGEST_NUMBER = 20
LARGEST_TARGET = 99
LARGEST_RESULT = 99
"""Reference solutions keep every intermediate result a whole number in 1..99; graded answers need not."""

HELD_OUT_SHARE = 20
"""One puzzle in so many is held out: it never occurs in training."""


@dataclass(frozen=True, slots=True)
class Puzzle:
    """Make `target` from `numbers`, each used exactly once, with + - * /."""

    numbers: tuple[int, ...]
    target: int

    @property
    def question(self) -> str:
        """The puzzle in its standard wording."""
        *first, last = map(str, self.numbers)
        return f"Using the numbers {', '.join(first)} and {last}, make {self.target}."

    @property
    def is_held_out(self) -> bool:
        """Whether this puzzle (in any order of its numbers) is kept out of training."""
        name = f"{sorted(self.numbers)}{self.target}".encode()
        return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()) % HELD_OUT_SHARE == 0

    def grade(self, answer: str) -> bool:
        """Whether `answer` solves the puzzle: see `grade`."""
        return grade(answer, self)


@dataclass(frozen=True, slots=True)
class Move:
    """One operation on two of the numbers at hand, the larger first: `left operation right = result`."""

    left: int
    operation: str
    right: int
    result: int


def moves(a: int, b: int) -> Iterator[Move]:
    """All moves on two numbers whose result is whole and in 1..99. Dividing by 1 is left out: it is multiplying."""
    a, b = max(a, b), min(a, b)
    if a + b <= LARGEST_RESULT:
        yield Move(a, "+", b, a + b)
    if a > b:
        yield Move(a, "-", b, a - b)
    if a * b <= LARGEST_RESULT:
        yield Move(a, "*", b, a * b)
    if b > 1 and a % b == 0:
        yield Move(a, "/", b, a // b)


def after(numbers: tuple[int, ...], move: Move) -> tuple[int, ...]:
    """The numbers left after a move: the others in their order, then the result. Of equal numbers the last is taken."""
    left = list(numbers[::-1])
    left.remove(move.left)
    left.remove(move.right)
    return (*left[::-1], move.result)


def all_moves(numbers: tuple[int, ...]) -> list[Move]:
    """Every different move that the numbers allow, in a fixed order."""
    pairs = ((a, b) for i, a in enumerate(numbers) for b in numbers[i + 1 :])
    return list(dict.fromkeys(move for a, b in pairs for move in moves(a, b)))


def is_solvable(numbers: tuple[int, ...], target: int) -> bool:
    """Whether moves can lead from `numbers` to `target` (1..99)."""
    return bool(_reachable(tuple(sorted(numbers))) >> target & 1)


@cache
def _reachable(numbers: tuple[int, ...]) -> int:
    """The targets that sorted `numbers` can make, as a bit mask. All puzzles there are need some seconds, once."""
    if len(numbers) == 1:
        return 1 << numbers[0] if numbers[0] <= LARGEST_TARGET else 0
    targets = 0
    for move in all_moves(numbers):
        targets |= _reachable(tuple(sorted(after(numbers, move))))
    return targets


def solve(puzzle: Puzzle) -> list[Move] | None:
    """The moves of one solution, None where there is none."""
    numbers, found = puzzle.numbers, []
    if not is_solvable(numbers, puzzle.target):
        return None
    while len(numbers) > 1:
        move = next(m for m in all_moves(numbers) if is_solvable(after(numbers, m), puzzle.target))
        numbers = after(numbers, move)
        found.append(move)
    return found


def draw(rng: random.Random, *, held_out: bool = False) -> Puzzle:
    """A puzzle, of the training part or of the held-out part, whose target is what random moves lead to."""
    while True:
        left = numbers = tuple(rng.randint(1, LARGEST_NUMBER) for _ in range(COUNT))
        for _ in range(COUNT - 1):
            left = after(left, rng.choice(all_moves(left)))
        if (puzzle := Puzzle(numbers, left[0])).is_held_out == held_out:
            return puzzle


def held_out(n: int, seed: int = 0) -> list[Puzzle]:
    """`n` different held-out puzzles, the same for the same seed."""
    if n < 0:
        raise InvalidInputError(f"the number of puzzles must not be negative, got {n}")
    rng, found = random.Random(seed), dict[tuple[tuple[int, ...], int], Puzzle]()
    while len(found) < n:
        puzzle = draw(rng, held_out=True)
        found.setdefault((tuple(sorted(puzzle.numbers)), puzzle.target), puzzle)
    return list(found.values())


def parse_question(text: str) -> Puzzle:
    """The puzzle that a question asks, in any wording that names the target after make, get, reach, target or equal.

    Raises:
        InvalidInputError: no such target, or not four other numbers.
    """
    target = re.search(r"(?i)\b(?:make|get|reach|target|equals?|hit)\b\D{0,12}?([0-9]{1,4})\b", text)
    if target is None:
        raise InvalidInputError(f"no target in {text[:80]!r}: ask like {Puzzle((4, 6, 9, 13), 87).question!r}")
    others = re.findall(r"[0-9]{1,4}", text[: target.start(1)] + " " + text[target.end(1) :])
    if len(others) != COUNT:
        raise InvalidInputError(f"expected {COUNT} numbers beside the target in {text[:80]!r}, found {len(others)}")
    return Puzzle(tuple(map(int, others)), int(target[1]))


def remark(question: str) -> str | None:
    """What to know of a question that is no puzzle of the kind that the embedded model was trained on; else None."""
    example = Puzzle((4, 6, 9, 13), 87).question
    try:
        puzzle = parse_question(question)
    except InvalidInputError:
        return f"the embedded model knows number puzzles alone ({example!r}): for anything else, name another by model="
    if puzzle.target > LARGEST_TARGET or not all(0 < number <= LARGEST_NUMBER for number in puzzle.numbers):
        return (
            f"the embedded model has seen numbers up to {LARGEST_NUMBER} and targets up to {LARGEST_TARGET} alone: for "
            "others it guesses"
        )
    return None


_SPELLINGS = {"×": "*", "·": "*", "⋅": "*", "÷": "/", "∕": "/", "−": "-", "–": "-", r"\times": "*", r"\cdot": "*",
              r"\div": "/", r"\left": "", r"\right": "", "$": "", "`": "", "\u00a0": " "}  # fmt: skip
_LONGEST_ANSWER = 4_000
_LONGEST_EXPRESSION = 120


def grade(answer: str, puzzle: Puzzle) -> bool:
    r"""Whether an answer solves the puzzle in exact rational arithmetic, each number used exactly once.

    Read is what stands after `</think>`, of that the last `\boxed{...}`, else the last line with anything on it. The
    expression may stand alone or be set equal to the target.
    """
    sides = expression(answer).split("=")
    if len(sides) > 2:
        return False
    values = [_evaluate(side) for side in sides]
    if any(value is None or value[0] != puzzle.target for value in values):
        return False
    wanted = sorted(puzzle.numbers)
    used = [value[1] for value in values if value is not None]
    return wanted in used and all(numbers in (wanted, [puzzle.target]) for numbers in used)


def expression(answer: str) -> str:
    """The line of an answer that is graded, in plain spelling; what two answers share is the same expression."""
    text = answer[-_LONGEST_ANSWER:].rpartition("</think>")[2]
    if (boxed := text.rfind(r"\boxed{")) >= 0:
        text = text[boxed + len(r"\boxed{") :].partition("}")[0]
    for spelling, plain in _SPELLINGS.items():
        text = text.replace(spelling, plain)
    lines = text.split("\n")
    line = next((line for line in reversed(lines) if line.strip()), "")
    return line.rpartition(":")[2].strip().rstrip(".").strip()


def _evaluate(text: str) -> tuple[Fraction, list[int]] | None:
    """The value of an arithmetic expression and the sorted numbers in it; None for anything else."""
    text = text.strip()
    if len(text) > _LONGEST_EXPRESSION or not re.fullmatch(r"[0-9+\-*/() ]+", text):
        return None
    numbers: list[int] = []

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=int(number)) if number <= 9_999:
                numbers.append(number)
                return Fraction(number)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return value(left) + value(right)
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                return value(left) - value(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return value(left) * value(right)
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return value(left) / value(right)
            case _:
                raise ValueError(f"not arithmetic: {type(node).__name__}")

    try:
        return value(ast.parse(text, mode="eval").body), sorted(numbers)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None
