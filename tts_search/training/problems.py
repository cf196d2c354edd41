"""Questions with their reference answers, from JSON lines as they are found in the wild.

    {"question": "...", "answer": "... #### 72"}

`prompt` and `problem` may stand for `question`; `reference`, `final_answer` and `solution` for `answer`. It grades
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from tts_search.errors import InvalidInputError
from tts_search.grading.answers import reference_of
from tts_search.training.trajectories import question_key, read_lines


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    question: str | list[dict[str, str]] = Field(validation_alias=AliasChoices("question", "prompt", "problem"))
    answer: str = Field(validation_alias=AliasChoices("answer", "reference", "final_answer", "solution"))


@dataclass(frozen=True, slots=True)
class Problem:
    """A question (a text or chat messages) and the reference of its answer; `line` is the JSON object it came from."""

    question: Any
    reference: str
    line: dict[str, Any]

    @property
    def key(self) -> str:
        """What tells questions apart."""
        return question_key(self.question)

    @property
    def text(self) -> str:
        """The question in words: of messages, the last turn's."""
        return self.question if isinstance(self.question, str) else str(self.question[-1]["content"])


def read_problems(path: str | Path) -> list[Problem]:
    """All problems of a file.

    Raises:
        InvalidInputError: the file cannot be read, holds none, or a line lacks its question or answer.
    """
    found = list[Problem]()
    for number, value in read_lines(path):
        try:
            line = _Line.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the line"
            raise InvalidInputError(f"{path}, line {number}: {place}: {first['msg']}") from error
        found.append(Problem(line.question, reference_of(line.answer), value))
    if not found:
        raise InvalidInputError(f"{path} holds no questions")
    return found
