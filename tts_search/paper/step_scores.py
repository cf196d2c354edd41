"""Step scores of the embedded model's trajectories beside the truth: a solver knows exactly which step is the first
wrong one. For number puzzles only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tts_search.core.result import SearchResult
from tts_search.embedded.puzzles import Puzzle, is_solvable, parse_question
from tts_search.errors import InvalidInputError
from tts_search.evaluation.process_bench import Solution, judge_scores
from tts_search.metrics import Interval, bootstrap
from tts_search.strategies.best_of_n import BestOfN

if TYPE_CHECKING:
    from tts_search.paper.study import Study

SAMPLES = 4
# Numbers of few digits: `int` refuses those of thousands.
_MOVE = re.compile(r"(\d{1,9}) ([-+*/]) (\d{1,9}) = (\d{1,9})(?: left (\d{1,9}(?:, ?\d{1,9})*))?\.")
_CHECK = re.compile(r"(\d{1,9}) = (\d{1,9})\? (yes|no)\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredTrajectory:
    """Steps with their scores; `first_error` is the index of the first wrong step, -1 for none."""

    question: str
    steps: tuple[str, ...]
    scores: tuple[float, ...]
    first_error: int


@dataclass(frozen=True, slots=True)
class StepScores:
    """Trajectories of several questions."""

    trajectories: Sequence[ScoredTrajectory]

    @property
    def wrong(self) -> int:
        """How many go wrong after their first step, so that there is a score before and one at it."""
        return sum(t.first_error > 0 for t in self.trajectories)

    def drop(self) -> Interval | None:
        """Score before the first wrong step minus score at it, a mean over questions with its interval."""
        by_question: dict[str, list[float]] = {}
        for t in self.trajectories:
            if t.first_error > 0:
                drop = t.scores[t.first_error - 1] - t.scores[t.first_error]
                by_question.setdefault(t.question, []).append(drop)
        return bootstrap([sum(d) / len(d) for d in by_question.values()]) if by_question else None

    def first_error_f1(self) -> Interval | None:
        """ProcessBench's F1; None where all trajectories are right, or all are wrong."""
        solutions = [Solution(question=t.question, steps=t.steps, label=t.first_error) for t in self.trajectories]
        try:
            return judge_scores([t.scores for t in self.trajectories], solutions).f1
        except InvalidInputError:
            return None

    def example(self, *, right: bool) -> ScoredTrajectory | None:
        """The first right one, or the first that goes wrong after its first step."""
        return next((t for t in self.trajectories if (t.first_error == -1 if right else t.first_error > 0)), None)


def step_scores(study: Study) -> StepScores:
    """Sample each question a few times and keep every finished trajectory's steps; the log keeps them, too.

    Raises:
        InvalidInputError: the questions are no number puzzles, or nothing scores the steps.
    """
    if study.searcher.settings["scorer"] is None:
        raise InvalidInputError("step scores need a scorer: a model with an SPRM head")
    problems = study.dataset.problems
    engine = study.evaluation.engine
    keys = [{"step scores": p.question, "samples": SAMPLES, "seed": study.seed, **engine} for p in problems]
    missing = [i for i, key in enumerate(keys) if study.log.get(key) is None]
    results = study.searcher.search_many(
        [problems[i].question for i in missing], strategy=BestOfN(n=SAMPLES), seed=study.seed
    )
    for result in results:
        if result.error is not None:
            raise result.error
        study.log.add(keys[missing[result.index]], {"trajectories": _trajectories(result)})
    found = []
    for problem, key in zip(problems, keys, strict=True):
        puzzle = parse_question(problem.question)
        for steps, scores in (study.log.get(key) or {})["trajectories"]:
            label = first_error(puzzle, steps)
            if label is not None:
                found.append(
                    ScoredTrajectory(
                        question=problem.question, steps=tuple(steps), scores=tuple(scores), first_error=label
                    )
                )
    return StepScores(found)


def first_error(puzzle: Puzzle, steps: Sequence[str]) -> int | None:
    """The index of the first step that is false, or after which the target can no longer be reached; -1 for none.

    None where a step is no move and no check, so that nobody can tell.
    """
    numbers = tuple(puzzle.numbers)
    for i, step in enumerate(steps):
        text = " ".join(step.split())
        if check := _CHECK.fullmatch(text):
            told, target = int(check[1]), int(check[2])
            true = (told == target) == (check[3] == "yes") and target == puzzle.target and numbers == (told,)
            if not (true and told == target):
                return i
            continue
        move = _MOVE.fullmatch(text)
        if move is None:
            return None
        left, right, result = int(move[1]), int(move[3]), int(move[4])
        if not _follows(numbers, left, right) or not _holds(left, move[2], right, result):
            return i
        rest = list(numbers)
        rest.remove(left)
        rest.remove(right)
        numbers = (*rest, result)
        told_numbers = [int(n) for n in move[5].split(",")] if move[5] else list(numbers)
        if sorted(told_numbers) != sorted(numbers) or not is_solvable(numbers, puzzle.target):
            return i
    return -1


def _follows(numbers: tuple[int, ...], left: int, right: int) -> bool:
    rest = list(numbers)
    for number in (left, right):
        if number not in rest:
            return False
        rest.remove(number)
    return True


def _holds(left: int, operation: str, right: int, result: int) -> bool:
    values = {"+": left + right, "-": left - right, "*": left * right}
    return right * result == left if operation == "/" else values[operation] == result


def _trajectories(result: SearchResult) -> list[tuple[list[str], list[float]]]:
    tree = result.tree
    assert tree is not None
    nodes = [tree.nodes[candidate.node] for candidate in result.candidates]
    return [(tree.trajectory(node).steps, list(node.step_scores)) for node in nodes if node.ended and node.step_scores]
