"""Rewards that can be verified, in the form in which TRL calls them.

A reward function takes `prompts`, `completions`, and the data set's columns by name, and returns a number for each
completion; None leaves a completion out. What is right is a grader's to say; this module knows where to look.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tts_search.errors import InvalidInputError, MissingDependencyError, TrainingError, TTSError
from tts_search.grading import Grader
from tts_search.grading.answers import CLOSE, after_thinking

Completion = str | Sequence[Mapping[str, Any]]
RewardFunction = Callable[..., list[float | None]]

CORRECTNESS = "correctness"


class Correctness:
    """1 for a right answer, else 0: the outcome that the SPRM head learns from.

    Args:
        grader: any `(answer, reference) -> bool`. Graders in processes are called from `threads` threads at once.
        column: the data set's column that holds the reference; an empty reference leaves the completion out.
        thinks: whether the policy thinks before it answers. A thought that was never closed is no answer then, and the
            grader sees only what stands behind `</think>`.
    """

    __name__ = CORRECTNESS

    def __init__(self, grader: Grader, *, column: str = "answer", thinks: bool = True, threads: int = 8) -> None:
        if threads < 1:
            raise InvalidInputError(f"threads must be at least 1, got {threads}")
        self._grader, self._column, self._thinks, self._threads = grader, column, thinks, threads

    def __call__(self, *, completions: Sequence[Completion], **columns: Any) -> list[float | None]:
        """One reward a completion.

        Raises:
            InvalidInputError: the data set has no such column.
        """
        if self._column not in columns:
            raise InvalidInputError(
                f"the correctness reward needs the column {self._column!r}, and the data set has none: its columns are "
                f"passed by name"
            )
        pairs = list(zip(map(text_of, completions), columns[self._column], strict=True))
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(self._reward, pairs))

    def _reward(self, pair: tuple[str, Any]) -> float | None:
        text, reference = pair
        if reference is None or not str(reference).strip():
            return None
        if self._thinks and CLOSE not in text:
            return 0.0
        answer = after_thinking(text).strip()
        return float(bool(answer) and self._grader(answer, str(reference)))


def well_formed(*, completions: Sequence[Completion], **_: Any) -> list[float | None]:
    """1 for a response that closes its thinking exactly once and answers behind it, else 0. A term to switch on."""
    return [float(text.count(CLOSE) == 1 and bool(after_thinking(text).strip())) for text in map(text_of, completions)]


def length_limit(max_tokens: int, *, soft_tokens: int) -> RewardFunction:
    """A term that falls from 0 to -1 over the last `soft_tokens` before `max_tokens` (DAPO's soft overlong punishment).

    Raises:
        InvalidInputError: the soft zone does not lie inside the limit.
    """
    if not 0 < soft_tokens < max_tokens:
        raise InvalidInputError(f"soft_tokens must lie between 0 and max_tokens, got {soft_tokens} and {max_tokens}")
    try:
        from trl.rewards.other_rewards import get_soft_overlong_punishment
    except ImportError as error:
        raise MissingDependencyError("the length term needs TRL: pip install 'tts-search[train]'") from error

    return get_soft_overlong_punishment(max_completion_len=max_tokens, soft_punish_cache=soft_tokens)


def text_of(completion: Completion) -> str:
    """The words of a completion, plain or as chat messages."""
    return completion if isinstance(completion, str) else "".join(str(turn["content"]) for turn in completion)


def naming_failures(function: RewardFunction) -> RewardFunction:
    """A synchronous reward function whose failures name it: it raised, or did not return one number a completion."""
    name = getattr(function, "__name__", type(function).__name__)

    def call(*, completions: Sequence[Completion], **columns: Any) -> list[float | None]:
        try:
            rewards = list(function(completions=completions, **columns))
        except TTSError:
            raise
        except Exception as error:
            raise TrainingError(
                f"the reward function {name!r} raised {type(error).__name__} on {len(completions)} completions: {error}"
            ) from error
        if len(rewards) != len(completions):
            raise TrainingError(
                f"the reward function {name!r} returned {len(rewards)} rewards for {len(completions)} completions"
            )
        try:
            numbers = [None if reward is None else float(reward) for reward in rewards]
        except (TypeError, ValueError) as error:
            raise TrainingError(
                f"the reward function {name!r} must return one number (or None) a completion, got {rewards[:3]!r}"
            ) from error
        if any(number is not None and math.isinf(number) for number in numbers):
            raise TrainingError(f"the reward function {name!r} returned an infinite reward")
        return numbers

    call.__name__ = name
    return call
