"""Evaluating a step scorer on labelled solutions, as ProcessBench does: does it find the first wrong step?

A solution is a question, its steps as texts, and the index of the first wrong one (-1: none). Scorers that read text
take part; the SPRM head reads hidden states, which a text alone has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tts_search.core.protocols import Scorer
from tts_search.core.tree import Trajectory
from tts_search.errors import InvalidInputError, ScorerError
from tts_search.evaluation.records import Row, read_rows
from tts_search.metrics import FirstError, Interval, first_error_f1

RESAMPLES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A worked solution whose first wrong step is labelled: an index from 0, or -1 where every step is right."""

    question: str
    steps: tuple[str, ...]
    label: int


class ProcessScore(NamedTuple):
    """ProcessBench's numbers at a threshold, and the 95 % interval of the F1 over solutions."""

    result: FirstError
    f1: Interval
    threshold: float


def read_solutions(path: str | Path) -> list[Solution]:
    """Solutions of a JSONL or Parquet file in ProcessBench's schema: `problem`, `steps`, `label`.

    Raises:
        InvalidInputError: a column is missing or of the wrong kind; the message names the line.
    """
    found = [_solution(row) for row in read_rows(Path(path))]
    if not found:
        raise InvalidInputError(f"{path} holds no solutions")
    return found


def _solution(row: Row) -> Solution:
    question, steps, label = (row.values.get(name) for name in ("problem", "steps", "label"))
    if not isinstance(question, str) or not isinstance(steps, list) or not all(isinstance(s, str) for s in steps):
        raise InvalidInputError(f"{row.place}: expected problem (text) and steps (a list of texts)")
    if not steps or not isinstance(label, int) or not -1 <= label < len(steps):
        raise InvalidInputError(
            f"{row.place}: label must be -1 or the index of one of {len(steps)} steps, got {label!r}"
        )
    return Solution(question=question, steps=tuple(steps), label=label)


def score_solutions(scorer: Scorer, solutions: Sequence[Solution], *, batch: int = 16) -> list[list[float]]:
    """The scorer's value of every step of every solution."""
    scores: list[list[float]] = []
    for start in range(0, len(solutions), batch):
        part = solutions[start : start + batch]
        found = scorer.score([_trajectory(solution) for solution in part])
        for solution, values in zip(part, found, strict=True):
            if len(values) != len(solution.steps):
                raise ScorerError(f"the scorer gave {len(values)} scores for {len(solution.steps)} steps")
            scores.append([float(value) for value in values])
    return scores


def judge_scores(
    scores: Sequence[Sequence[float]], solutions: Sequence[Solution], *, threshold: float = 0.5
) -> ProcessScore:
    """The first step scored below the threshold is taken for the first wrong one.

    Raises:
        InvalidInputError: the solutions are all right or all wrong, so that there is no F1.
    """
    found = np.array([next((i for i, value in enumerate(row) if value < threshold), -1) for row in scores])
    labels = np.array([solution.label for solution in solutions])
    result = first_error_f1(found.tolist(), labels.tolist())
    rng, clean = np.random.RandomState([0]), labels == -1
    hits = (found == labels).astype(float)
    # Each kind is drawn by itself: their numbers are the benchmark's choice, not chance.
    draws = [
        [kind[rng.randint(0, len(kind), len(kind))].mean() for _ in range(RESAMPLES)]
        for kind in (hits[~clean], hits[clean])
    ]
    f1 = sorted(2 * a * b / (a + b) if a + b else 0.0 for a, b in zip(*draws, strict=True))
    interval = Interval(result.f1, float(f1[int(0.025 * RESAMPLES)]), float(f1[int(0.975 * RESAMPLES)]))
    return ProcessScore(result, interval, threshold)


def best_threshold(scores: Sequence[Sequence[float]], solutions: Sequence[Solution]) -> float:
    """The threshold of the highest F1 on these solutions: choose it on one part, report another."""
    values = np.unique(np.concatenate([np.asarray(row, dtype=float) for row in scores]))
    labels = [solution.label for solution in solutions]
    candidates: list[float] = np.quantile(values, np.linspace(0, 1, 101)).tolist()

    def f1(threshold: float) -> float:
        found = [next((i for i, value in enumerate(row) if value < threshold), -1) for row in scores]
        return first_error_f1(found, labels).f1

    return max(candidates, key=f1)


def _trajectory(solution: Solution) -> Trajectory:
    """A text as a scorer sees it: one token a step."""
    pieces = [step if step.endswith("\n\n") else step + "\n\n" for step in solution.steps]
    return Trajectory(
        question=solution.question,
        prompt_ids=(),
        token_ids=tuple(range(len(pieces))),
        step_ends=tuple(range(1, len(pieces) + 1)),
        token_scores=None,
        known_scores=(),
        decode=lambda ids: "".join(pieces[i] for i in ids),
    )
