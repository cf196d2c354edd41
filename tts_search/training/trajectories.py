"""Graded trajectories on disk: JSON lines, one response a line, and what a head can learn from each.

    {"question": "...", "response": "...", "correct": true}

Optional: `response_ids` (the tokens as they were sampled, so that nothing is tokenized again), `step_labels` (1 or 0
for each step), `answer` (what majorities count), `mean_logprob`. `prompt` may stand for `question`, and `reward` (right
from 0.5 on) for `correct`. This module knows files and tokenizers; it runs no model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tts_search.core.protocols import Tokenizer
from tts_search.errors import InvalidInputError
from tts_search.segmentation import Segmenter
from tts_search.sprm.config import Readout

RIGHT_FROM = 0.5
"""The reward from which on a trajectory counts as right."""


class Record(BaseModel):
    """One line of a file of trajectories."""

    model_config = ConfigDict(extra="ignore", strict=True)

    question: str | list[dict[str, str]] = Field(validation_alias=AliasChoices("question", "prompt"))
    response: str | None = None
    response_ids: list[int] | None = None
    correct: bool | None = None
    reward: float | None = None
    step_labels: list[int | bool | None] | None = None
    answer: str | None = None
    mean_logprob: float | None = None

    @model_validator(mode="after")
    def _complete(self) -> Record:
        if self.response is None and self.response_ids is None:
            raise ValueError("neither response nor response_ids")
        if self.correct is None and (self.reward is None or not math.isfinite(self.reward)):
            raise ValueError(f"neither correct nor a finite reward (reward is {self.reward})")
        return self

    @property
    def right(self) -> bool:
        """The outcome."""
        return self.correct if self.correct is not None else (self.reward or 0.0) >= RIGHT_FROM


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedTrajectory:
    """A trajectory as a head reads it. `step_ends` count response tokens, as everywhere; `question` is its key."""

    question: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    step_ends: tuple[int, ...]
    right: bool
    step_labels: tuple[bool | None, ...] | None = None
    answer: str | None = None
    mean_logprob: float | None = None

    def read_at(self, readout: Readout) -> list[int]:
        """Positions in prompt plus response where a head with this readout reads each step."""
        before = 1 if readout == "previous" else 0
        return [len(self.prompt_ids) + end - 1 - before for end in self.step_ends]


def read_lines(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file with their line numbers; empty lines are passed over.

    Raises:
        InvalidInputError: no such file, or a line that is no JSON object.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{str(path)!r} cannot be read as UTF-8 JSON lines: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise InvalidInputError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(value, dict):
            raise InvalidInputError(f"{path}, line {number}: a JSON object is wanted, got {type(value).__name__}")
        yield number, value


def read_trajectories(
    path: str | Path, tokenizer: Tokenizer, segmenter: Segmenter, *, report: Callable[[str], None] = print
) -> list[GradedTrajectory]:
    """All trajectories of a file, segmented as a search would segment them.

    Raises:
        InvalidInputError: a line cannot be used (the message has its number), or no trajectory has a step.
    """
    found = list[GradedTrajectory]()
    for number, value in read_lines(path):
        try:
            found.append(_graded(Record.model_validate(value), tokenizer, segmenter))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the line"
            raise InvalidInputError(f"{path}, line {number}: {place}: {first['msg']}") from error
        except InvalidInputError as error:
            raise InvalidInputError(f"{path}, line {number}: {error}") from error
    stepless = sum(not trajectory.step_ends for trajectory in found)
    if stepless == len(found):
        raise InvalidInputError(
            f"{path}: none of {len(found)} trajectories has a step that ends with {segmenter.rule!r}: check "
            'the file, or choose another step rule (such as "\\n\\n")'
        )
    right = sum(trajectory.right for trajectory in found)
    report(
        f"trajectories: {len(found)} of {len({t.question for t in found})} questions, {right / len(found):.1%} right, "
        f"{sum(len(t.step_ends) for t in found)} steps, {stepless} without a step"
    )
    return found


def question_key(question: object) -> str:
    """What tells questions apart: a text as it is, messages as JSON."""
    return question if isinstance(question, str) else json.dumps(question, ensure_ascii=False, sort_keys=True)


def _graded(record: Record, tokenizer: Tokenizer, segmenter: Segmenter) -> GradedTrajectory:
    prompt = tokenizer.render(record.question)
    response = tuple(record.response_ids or tokenizer.encode(record.response or ""))
    if outside := [i for i in response if not 0 <= i < len(tokenizer.pieces)]:
        raise InvalidInputError(
            f"response_ids hold {outside[:3]}, which this tokenizer does not have: another model's?"
        )
    ends, _ = segmenter.scan(segmenter.start(prompt), response)
    labels = record.step_labels
    if labels is not None and len(labels) != len(ends):
        raise InvalidInputError(f"{len(labels)} step_labels for {len(ends)} steps")
    if labels is not None and any(label not in (0, 1, None) for label in labels):
        raise InvalidInputError("step_labels are 1, 0, or null for a step without a label")
    return GradedTrajectory(
        question=question_key(record.question),
        prompt_ids=prompt,
        response_ids=response,
        step_ends=tuple(ends),
        right=record.right,
        step_labels=None if labels is None else tuple(None if label is None else bool(label) for label in labels),
        answer=record.answer,
        mean_logprob=record.mean_logprob,
    )
