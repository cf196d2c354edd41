"""Selectors: who of the candidates is answered from, and when that is decided. Numbers in, an index out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tts_search.core.protocols import Selector
from tts_search.core.result import Candidate
from tts_search.errors import InvalidInputError


def best(candidates: Sequence[Candidate]) -> int:
    """The highest trajectory score (paper, Eq. 7); the first of equals."""
    return max(range(len(candidates)), key=lambda i: (_score(candidates[i]), -i))


def majority(candidates: Sequence[Candidate]) -> int:
    """The answer given most often, of equals the one given first, from its best-scored path."""
    return _vote(candidates, [1.0] * len(candidates))


def weighted_majority(candidates: Sequence[Candidate]) -> int:
    """The answer whose paths' scores add up highest, of equals the one given first, from its best-scored path."""
    return _vote(candidates, [_score(c) for c in candidates])


def mean_logprob(candidates: Sequence[Candidate]) -> int:
    """The path of the highest mean log-probability.

    Raises:
        InvalidInputError: the engine gave none for any of several answers.
    """
    known = [i for i, candidate in enumerate(candidates) if candidate.mean_logprob is not None]
    if not known and sum(bool(candidate.answer) for candidate in candidates) > 1:
        raise InvalidInputError(
            "selector 'logprob' needs log-probabilities, and this engine gives none: take selector='majority'"
        )
    return max(known or [0], key=lambda i: (candidates[i].mean_logprob or 0.0, -i))


def _score(candidate: Candidate) -> float:
    """Where nothing scores steps, all paths are equal."""
    return 0.0 if candidate.score is None else candidate.score


def _vote(candidates: Sequence[Candidate], weights: Sequence[float]) -> int:
    votes = _count(candidates, weights)
    if not votes:
        return best(candidates)
    winner = max(votes, key=lambda vote: votes[vote])  # a dict keeps the order of the candidates: the first of equals
    winners = [i for i, c in enumerate(candidates) if c.vote == winner]
    return max(winners, key=lambda i: (_score(candidates[i]), -i))


def _count(candidates: Sequence[Candidate], weights: Sequence[float]) -> dict[str, float]:
    votes: dict[str, float] = {}
    for candidate, weight in zip(candidates, weights, strict=True):
        if candidate.vote is not None:
            votes[candidate.vote] = votes.get(candidate.vote, 0.0) + weight
    return votes


def _best_decided(candidates: Sequence[Candidate], _: int | None, margin: float) -> bool:
    """No score exceeds 1, so nothing beats a leader at `1 - margin` by more than the margin."""
    return _score(candidates[best(candidates)]) >= 1.0 - margin


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
        decided=lambda candidates, remaining, _: _votes_decided(candidates, [_score(c) for c in candidates], remaining),
    ),
    "logprob": Selector("logprob", mean_logprob, needs_answers=True),
}


def resolve_selector(selector: str | Selector | Callable[[Sequence[Candidate]], int]) -> Selector:
    """A name of the table above, a `Selector`, or a function over answered candidates."""
    if isinstance(selector, Selector):
        return selector
    if callable(selector):
        return Selector(getattr(selector, "__name__", repr(selector)), selector, needs_answers=True)
    if not isinstance(selector, str) or selector not in SELECTORS:
        raise InvalidInputError(f"unknown selector {selector!r}: choose from {', '.join(SELECTORS)}")
    return SELECTORS[selector]
