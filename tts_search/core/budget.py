"""The token budget and the token account. Knows numbers only.

The budget is a hard cap on sampled tokens: reserve before a request, settle after it, never one token over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from tts_search.errors import GeneratorError, InvalidInputError

UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class Usage:
    """What one search cost. All counts are tokens, but for `requests` and `seconds`.

    `sampled_tokens` is what the budget caps; `answer_tokens` are those of them that were spent on answers rather than
    on thinking. `scored_tokens` went through a scorer's own forward pass (0 for scores that fall out of generation).
    `saved_tokens` of the budget were left when an early stop ended the search. `cached_tokens` of the `prompt_tokens`
    sent came from the prefix cache.
    """

    sampled_tokens: int = 0
    answer_tokens: int = 0
    saved_tokens: int = 0
    scored_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    requests: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class Budget:
    """A cap on sampled tokens, of which `answer_reserve` are kept for the answer until they are given free.

    Args:
        tokens: the cap, None for no cap.
        answer_reserve: tokens that `reserve` does not give away before `release` or `keep` says so.
    """

    def __init__(self, tokens: int | None, *, answer_reserve: int = 0) -> None:
        if tokens is not None and tokens < 1:
            raise InvalidInputError(f"budget must be at least 1 token, or None for no limit; got {tokens}")
        self.tokens = tokens
        self._cap = UNLIMITED if tokens is None else tokens
        self._answer_reserve = 0 if tokens is None else min(answer_reserve, tokens)
        self._spent = 0
        self._reserved = 0

    @property
    def spent(self) -> int:
        """Sampled tokens so far."""
        return self._spent

    @property
    def answer_reserve(self) -> int:
        """What is kept for the answer."""
        return self._answer_reserve

    @property
    def available(self) -> int:
        """What can be reserved now."""
        return max(0, self._cap - self._answer_reserve - self._spent - self._reserved)

    def release(self) -> None:
        """Give the answer's share free: the answer stage begins, or needs nothing any more."""
        self._answer_reserve = 0

    def keep(self, tokens: int) -> None:
        """Keep so many of the available tokens for an answer yet to come, or as many as there are."""
        self._answer_reserve = 0
        self._answer_reserve = 0 if self.tokens is None else min(tokens, self.available)

    def reserve(self, wants: Sequence[int]) -> list[int]:
        """Grant each want as much as a fair split of what is available allows; the grants count as taken.

        Small wants are met in full and leave their rest to the larger ones. Where there are more wants than tokens, the
        first ones get one token each and the others none.
        """
        grants = fair_split(wants, self.available)
        self._reserved += sum(grants)
        return grants

    def settle(self, granted: int, used: int) -> None:
        """Turn a grant into what it really cost; the rest is available again."""
        if used > granted:
            raise GeneratorError(f"the generator sampled {used} tokens where {granted} were granted")
        self._reserved -= granted
        self._spent += used


def fair_split(wants: Sequence[int], available: int) -> list[int]:
    """Max-min fair shares of `available`, whole tokens, deterministic: earlier wants get the odd token."""
    grants = [0] * len(wants)
    order = sorted(range(len(wants)), key=lambda i: (wants[i], -i))
    left = available
    for position, i in enumerate(order):
        share = left // (len(order) - position)
        grants[i] = min(wants[i], share)
        left -= grants[i]
    return grants
