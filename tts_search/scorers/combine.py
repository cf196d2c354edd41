"""Several scorers as one: ensembles and weighted combinations, step by step. Knows numbers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from tts_search.core.protocols import Scorer, Scores
from tts_search.core.tree import Trajectory
from tts_search.errors import InvalidInputError, ScorerError
from tts_search.scorers.aggregate import FLOOR, Aggregation

Combination = Literal["mean", "geometric_mean", "min", "max"]


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return math.fsum(v * w for v, w in zip(values, weights, strict=True))


def _geometric_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return math.exp(math.fsum(w * math.log(max(v, FLOOR)) for v, w in zip(values, weights, strict=True)))


COMBINATIONS: dict[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    "mean": _mean,
    "geometric_mean": _geometric_mean,
    "min": lambda values, _: min(values),
    "max": lambda values, _: max(values),
}


class Ensemble:
    """A `Scorer` whose step scores are a mean, or the least or the greatest, of those of its members.

    The members' tokens add up. Where they bring different aggregations of their own, none of them counts.

    Args:
        members: at least one scorer.
        weights: one for each member, not negative; they are scaled to add up to 1. None: all equal. The least and the
            greatest have no use for them.
        combine: `"mean"`, `"geometric_mean"`, `"min"` or `"max"`.
        aggregation: from step scores to the trajectory's; None is the one that all members share, if any.
    """

    def __init__(
        self,
        members: Sequence[Scorer],
        *,
        weights: Sequence[float] | None = None,
        combine: Combination = "mean",
        aggregation: str | Aggregation | None = None,
    ) -> None:
        if not members:
            raise InvalidInputError("an ensemble needs at least one scorer")
        if combine not in COMBINATIONS:
            raise InvalidInputError(f"unknown combination {combine!r}: choose from {', '.join(COMBINATIONS)}")
        if weights is not None and combine in ("min", "max"):
            raise InvalidInputError(f"combine={combine!r} has no use for weights")
        shares = [1.0] * len(members) if weights is None else list(weights)
        if len(shares) != len(members) or not all(w >= 0 for w in shares) or not 0 < sum(shares) < math.inf:
            raise InvalidInputError(
                f"an ensemble of {len(members)} needs as many weights, none negative and not all zero; got {weights!r}"
            )
        self.members = tuple(members)
        self.weights = tuple(share / sum(shares) for share in shares)
        self.inline = all(getattr(member, "inline", False) for member in members)
        self.at_step_tokens = any(getattr(member, "at_step_tokens", False) for member in members)
        own = [getattr(member, "aggregation", None) for member in members]
        self.aggregation = aggregation or (own[0] if all(a == own[0] for a in own) else None)
        self.warnings = tuple(dict.fromkeys(w for member in members for w in getattr(member, "warnings", ())))
        self._combine = COMBINATIONS[combine]

    def score(self, trajectories: Sequence[Trajectory]) -> Scores:
        """One value per finished step.

        Raises:
            ScorerError: a member returned more or fewer scores than there are steps, or values that are not in [0, 1].
        """
        found = [member.score(trajectories) for member in self.members]
        for member, rows in zip(self.members, found, strict=True):
            self._check(member, rows, trajectories)
        tokens = sum(rows.tokens for rows in found if isinstance(rows, Scores))
        combined = [
            [min(1.0, max(0.0, self._combine(values, self.weights))) for values in zip(*steps, strict=False)]
            for steps in zip(*found, strict=True)
        ]  # fmt: skip  # as far as all members can read
        unread = "; ".join(rows.unread for rows in found if isinstance(rows, Scores) and rows.unread)
        return Scores(combined, tokens=tokens, unread=unread or None)

    def _check(self, member: Scorer, rows: Sequence[Sequence[float]], trajectories: Sequence[Trajectory]) -> None:
        name, counts, steps = (
            type(member).__name__,
            [len(row) for row in rows],
            [len(t.step_ends) for t in trajectories],
        )
        unread = isinstance(rows, Scores) and rows.unread is not None
        fits = len(counts) == len(steps) and all(
            count == due or (unread and count < due) for count, due in zip(counts, steps, strict=True)
        )
        if not fits:
            raise ScorerError(f"scorer {name} returned {counts} scores for {steps} steps")
        if bad := [value for row in rows for value in row if not 0.0 <= value <= 1.0]:
            raise ScorerError(f"scorer {name} returned {bad[0]}: scores are numbers in [0, 1]")
