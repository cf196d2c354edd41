"""What a search returns, and the selectors that choose the path it answers from.

Knows candidates and their numbers; it knows no engine and runs nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from tts_search.core.budget import Usage
from tts_search.core.tree import Tree
from tts_search.errors import InvalidInputError


class StopReason(StrEnum):
    """Why a search ended."""

    COMPLETED = "completed"  # the strategy had no more to ask for
    BUDGET = "budget"  # the token budget is spent
    LENGTH = "length"  # no path ended within the token limits; the best was closed by force
    EARLY = "early"  # more search could not have changed the choice, or the user's function said so
    TIME = "time"  # the wall-clock limit is reached
    HALTED = "halted"  # the user called a halt
    EMPTY = "empty"  # the model ended its response at once: there is no text to answer from
    ERROR = "error"  # see `SearchResult.error`


@dataclass(frozen=True, slots=True)
class Step:
    """One reasoning step: its text with the step token, and its score in [0, 1] (None where nothing scored it)."""

    text: str
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A path that may be answered from.

    `node` is the index of its last thinking node, `score` its aggregated step scores, `mean_logprob` the mean
    log-probability of its sampled tokens (the answer's included where there is one). `answer` is None until the path
    was answered, `vote` is what majorities count: the answer's final expression, None without one.
    """

    node: int
    score: float
    mean_logprob: float
    answer: str | None = None
    vote: str | None = None


@dataclass(frozen=True, slots=True)
class Selector:
    """Chooses among candidates (at least one is given) by index.

    `needs_answers`: every candidate is answered before the choice, and those tokens stand in `Usage.answer_tokens`.
    `needs_scores`: it means nothing without a scorer. `decided(candidates, remaining, margin)`: whether candidates yet
    to come (`remaining` of them, None if unknown) could change the choice by more than `margin`; None: it cannot tell.
    """

    name: str
    choose: Callable[[Sequence[Candidate]], int]
    needs_answers: bool = False
    needs_scores: bool = False
    decided: Callable[[Sequence[Candidate], int | None, float], bool] | None = None


def best(candidates: Sequence[Candidate]) -> int:
    """The highest trajectory score (paper, Eq. 7); the first of equals."""
    return max(range(len(candidates)), key=lambda i: (candidates[i].score, -i))


def majority(candidates: Sequence[Candidate]) -> int:
    """The answer given most often; among equals the one with the best-scored path."""
    return _vote(candidates, [1.0] * len(candidates))


def weighted_majority(candidates: Sequence[Candidate]) -> int:
    """The answer whose paths' scores add up highest."""
    return _vote(candidates, [c.score for c in candidates])


def mean_logprob(candidates: Sequence[Candidate]) -> int:
    """The path of the highest mean log-probability."""
    return max(range(len(candidates)), key=lambda i: (candidates[i].mean_logprob, -i))


def _vote(candidates: Sequence[Candidate], weights: Sequence[float]) -> int:
    votes = _count(candidates, weights)
    if not votes:
        return best(candidates)
    most = max(votes.values())
    winners = [i for i, c in enumerate(candidates) if c.vote is not None and votes[c.vote] >= most]
    return max(winners, key=lambda i: (candidates[i].score, -i))


def _count(candidates: Sequence[Candidate], weights: Sequence[float]) -> dict[str, float]:
    votes: dict[str, float] = {}
    for candidate, weight in zip(candidates, weights, strict=True):
        if candidate.vote is not None:
            votes[candidate.vote] = votes.get(candidate.vote, 0.0) + weight
    return votes


def _best_decided(candidates: Sequence[Candidate], _: int | None, margin: float) -> bool:
    """No score exceeds 1, so nothing beats a leader at `1 - margin` by more than the margin."""
    return candidates[best(candidates)].score >= 1.0 - margin


def _votes_decided(candidates: Sequence[Candidate], weights: Sequence[float], remaining: int | None) -> bool:
    """The leader's lead is more than all remaining votes (of weight 1 at most) together."""
    first, second, *_ = [*sorted(_count(candidates, weights).values(), reverse=True), 0.0, 0.0]
    return remaining is not None and first - second > remaining


SELECTORS: dict[str, Selector] = {
    "best": Selector("best", best, needs_scores=True, decided=_best_decided),
    "majority": Selector(
        "majority",
        majority,
        needs_answers=True,
        decided=lambda candidates, remaining, _: _votes_decided(candidates, [1.0] * len(candidates), remaining),
    ),
    "weighted": Selector(
        "weighted",
        weighted_majority,
        needs_answers=True,
        needs_scores=True,
        decided=lambda candidates, remaining, _: _votes_decided(candidates, [c.score for c in candidates], remaining),
    ),
    "logprob": Selector("logprob", mean_logprob, needs_answers=True),
}


def resolve_selector(selector: str | Selector | Callable[[Sequence[Candidate]], int]) -> Selector:
    """A name of the table above, a `Selector`, or a function over answered candidates."""
    if isinstance(selector, Selector):
        return selector
    if callable(selector):
        return Selector(getattr(selector, "__name__", repr(selector)), selector, needs_answers=True)
    if selector not in SELECTORS:
        raise InvalidInputError(f"unknown selector {selector!r}: choose from {', '.join(SELECTORS)}")
    return SELECTORS[selector]


def final_answer(text: str) -> str | None:
    r"""The part of an answer that two answers must share to agree; None for an empty one.

    The last `\boxed{...}`, else what follows the last "answer is" or "answer:", else the last line; white space folded,
    dollars and a final full stop dropped.
    """
    boxed = _last_boxed(text)
    if boxed is None:
        said = re.findall(r"answer(?:\s+is|\s*:)\s*(\S[^\n]*)", text, flags=re.IGNORECASE)
        lines = [line for line in text.splitlines() if line.strip()]
        boxed = said[-1] if said else lines[-1] if lines else ""
    folded = " ".join(boxed.split()).rstrip(" .").strip("$").rstrip(".").strip()
    return folded or None


def _last_boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    begin = start + len("\\boxed{")
    for position in range(begin, len(text)):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            if depth == 0:
                return text[begin:position]
            depth -= 1
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """One question, answered.

    `steps` and `thinking` are those of the path that was answered from, `score` is its trajectory score (None where
    nothing scored it). `candidates` are all paths that were in the choice, `chosen` is an index into them (None where
    there was none). `strategy` and `selector` are written as they would be typed. In a batch a question that failed
    carries its `error`, and whatever was known when it failed.
    """

    question: Any
    answer: str = ""
    thinking: str = ""
    steps: tuple[Step, ...] = ()
    score: float | None = None
    stop_reason: StopReason
    usage: Usage = field(default_factory=Usage)
    candidates: tuple[Candidate, ...] = ()
    chosen: int | None = None
    strategy: str
    selector: str
    model: str
    seed: int
    budget: int | None = None
    tree: Tree | None = field(default=None, repr=False, compare=False)
    error: Exception | None = None
    index: int = 0  # the question's place in `search_many`

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: everything but the tree."""
        raw = {name: getattr(self, name) for name in self.__slots__ if name != "tree"}
        raw["steps"] = [asdict(step) for step in self.steps]
        raw["candidates"] = [asdict(candidate) for candidate in self.candidates]
        raw["usage"] = asdict(self.usage)
        raw["stop_reason"] = str(self.stop_reason)
        raw["question"] = self.question if isinstance(self.question, str) else [dict(m) for m in self.question]
        raw["error"] = None if self.error is None else f"{type(self.error).__name__}: {self.error}"
        return raw

    def to_json(self, *, indent: int | None = None) -> str:
        """`to_dict()` as JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent)
