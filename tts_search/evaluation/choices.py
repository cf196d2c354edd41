"""The same paths, chosen otherwise: what each selector would have made of what a strategy found, at no token more.

It reads the records of searches; it searches nothing and knows no table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tts_search.core.protocols import Selector
from tts_search.core.result import Candidate
from tts_search.evaluation.runs import Record
from tts_search.metrics import Floats, Interval, bootstrap, paired_difference
from tts_search.selection.selectors import SELECTORS

RANDOM, ORACLE = "a path at random", "oracle"

Judge = Callable[[Sequence[Record]], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A way to choose among the paths of each question: its accuracy, and its gain over a path at random.

    The gain is paired by question. `paths` is how many there were to choose from, on average.
    """

    name: str
    paths: float
    accuracy: Interval
    gain: Interval | None


def choices(records: Sequence[Sequence[Record]]) -> tuple[Choice, ...]:
    """A path at random, every selector, and the oracle (a right path if there is one), in this order.

    `records` are `[repeats][questions]`.

    Empty where there was nothing to choose (one path a question), or where some path was never answered, so that nobody
    knows whether it is right: search with a selector that answers every path (`"majority"`) to see them. Selectors that
    go by scores are left out where nothing scored.
    """
    found = [record["candidates"] for repeat in records for record in repeat]
    paths = [candidate for candidates in found for candidate in candidates]
    if all(len(c) < 2 for c in found) or any(path["correct"] is None for path in paths):
        return ()
    scored = any(path["score"] is not None for path in paths)
    judges: dict[str, Judge] = {RANDOM: _mean}
    judges |= {name: _by(s) for name, s in SELECTORS.items() if scored or not s.needs_scores}
    judges[ORACLE] = _any
    right = {name: _by_question(records, judge) for name, judge in judges.items()}
    return tuple(
        Choice(
            name=name,
            paths=len(paths) / len(found),
            accuracy=bootstrap(values),
            gain=None if name == RANDOM else paired_difference(values, right[RANDOM]),
        )
        for name, values in right.items()
    )


def _by_question(records: Sequence[Sequence[Record]], judge: Judge) -> Floats:
    """`[questions]`, the mean over repeats; a search without a path is wrong whoever chooses."""
    return np.array(
        [[judge(r["candidates"]) if r["candidates"] else 0.0 for r in repeat] for repeat in records], dtype=float
    ).mean(0)


def _mean(paths: Sequence[Record]) -> float:
    return float(np.mean([path["correct"] for path in paths]))


def _any(paths: Sequence[Record]) -> float:
    return float(any(path["correct"] for path in paths))


def _by(selector: Selector) -> Judge:
    def judge(paths: Sequence[Record]) -> float:
        return float(paths[selector.choose([_candidate(path) for path in paths])]["correct"])

    return judge


def _candidate(path: Record) -> Candidate:
    return Candidate(
        node=0,
        score=0.0 if path["score"] is None else path["score"],
        mean_logprob=-math.inf if path["mean_logprob"] is None else path["mean_logprob"],
        vote=path["vote"],
    )
