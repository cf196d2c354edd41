"""What a search returns: the answer, the path it was given from, the candidates, and what all of it cost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from tts_search.core.budget import Usage
from tts_search.core.tree import Tree
from tts_search.errors import shown, told


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


NEAR_ZERO = 0.05


def doubt(score: float | None, steps: Sequence[Step]) -> tuple[str, ...]:
    """A warning, where the path that was answered from is one that its scorer thinks wrong.

    A product over many good steps is small, too: some step must be more likely wrong than right.
    """
    worst = min((step.score for step in steps if step.score is not None), default=1.0)
    if score is None or score >= NEAR_ZERO or worst >= 0.5:
        return ()
    return (f"the best path has a score of {score:.2f}, so that its scorer takes even this one for wrong",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A path that may be answered from.

    `node` is the index of its last thinking node, `score` its aggregated step scores (None where none was scored),
    `mean_logprob` the mean log-probability of its sampled tokens (the answer's included where there is one; None where
    the engine gave none). `answer` is None until the path was answered, `vote` is what majorities count: the answer's
    final expression, None without one.
    """

    node: int
    score: float | None
    mean_logprob: float | None
    answer: str | None = None
    vote: str | None = None


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
    comparer: str | None = None  # who said which votes mean the same, None where nobody had to
    warnings: tuple[str, ...] = ()  # what a reader should know
    step_rule: str = ""  # what ended steps, as it would be typed

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: everything but the tree. JSON has no infinities: one is written as a text."""
        raw = {name: getattr(self, name) for name in self.__slots__ if name != "tree"}
        raw["steps"] = [asdict(step) for step in self.steps]
        raw["candidates"] = [
            {**asdict(candidate), "mean_logprob": _finite(candidate.mean_logprob)} for candidate in self.candidates
        ]
        raw["usage"] = asdict(self.usage)
        raw["stop_reason"] = str(self.stop_reason)
        raw["question"] = _plain(self.question)
        raw["error"] = None if self.error is None else told(self.error)
        return raw

    def to_json(self, *, indent: int | None = None) -> str:
        """`to_dict()` as JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent)


def _finite(logprob: float | None) -> float | str | None:
    """Minus infinity, of a token whose probability underflowed, as protobuf's JSON writes it."""
    return logprob if logprob is None or math.isfinite(logprob) else "-Infinity"


def _plain(question: Any) -> Any:
    """A question as JSON takes it, also one that was none."""
    if isinstance(question, str):
        return question
    if isinstance(question, Sequence) and all(isinstance(turn, Mapping) for turn in question):
        try:
            return json.loads(json.dumps([dict(turn) for turn in question], default=_number))
        except (TypeError, ValueError):
            return shown(question)
    return shown(question)


def _number(value: Any) -> Any:
    """A number of numpy's as one of Python's; anything else as it is written."""
    return value.item() if hasattr(value, "item") else shown(value)
