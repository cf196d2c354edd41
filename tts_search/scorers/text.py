"""What text scorers read of a trajectory: the question, and the steps without thinking tags."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, TypeVar

from tts_search.core.tree import Trajectory
from tts_search.errors import ScorerError
from tts_search.thinking import without_tags

T = TypeVar("T")


def question_text(trajectory: Trajectory) -> str:
    """The question; of a conversation all turns but the system's, a blank line between them."""
    question = trajectory.question
    if isinstance(question, str):
        return question
    return "\n\n".join(turn["content"] for turn in question if turn["role"] != "system")


def step_texts(trajectory: Trajectory) -> list[str]:
    """One text per finished step, without outer white space."""
    return [text.strip() for text in written_steps(trajectory)]


def written_steps(trajectory: Trajectory) -> list[str]:
    """One text per finished step, with the white space around it, but for that in front of the first."""
    texts = [without_tags(text) for text in trajectory.steps]
    return [texts[0].lstrip(), *texts[1:]] if texts else []


def solution_text(trajectory: Trajectory, steps: int | None = None) -> str:
    """All finished steps, or the first so many, as one text as written, without thinking tags and outer white space."""
    ends = trajectory.step_ends[:steps]
    text = trajectory.decode(trajectory.token_ids[: ends[-1]]) if ends else ""
    return without_tags(text).strip()


class ContextError(ScorerError):
    """A text is longer than the context of the model that is to read it."""


def beyond(scorer: object, max_tokens: int) -> str:
    """Why a scorer left steps without a score: its context holds so many tokens."""
    return f"{scorer!r} reads {max_tokens:,} tokens; limit max_tokens, or use a model with a longer context"


class ScoreMemory(Generic[T]):
    """What was found out about the most recently used prefixes, up to `size` of them, so that none is scored twice."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._scores: OrderedDict[bytes, T] = OrderedDict()

    @staticmethod
    def keys(question: str, steps: Sequence[str]) -> list[bytes]:
        """A key for each prefix of the steps: equal for equal questions and equal steps up to there, and only so."""
        state = hashlib.blake2b(question.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        keys: list[bytes] = []
        for step in steps:
            state = hashlib.blake2b(state + step.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            keys.append(state)
        return keys

    def get(self, key: bytes) -> T | None:
        """The score of a prefix, None where it is not known."""
        if key not in self._scores:
            return None
        self._scores.move_to_end(key)
        return self._scores[key]

    def put(self, key: bytes, score: T) -> None:
        """Remember a score; the least recently used ones make room."""
        self._scores[key] = score
        self._scores.move_to_end(key)
        while len(self._scores) > self._size:
            self._scores.popitem(last=False)
