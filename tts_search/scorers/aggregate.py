"""From step scores to the score of a trajectory. Knows numbers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tts_search.errors import InvalidInputError

Aggregation = Callable[[Sequence[float]], float]

FLOOR = 1e-10  # step scores are clamped here before a logarithm (released code)


@dataclass(frozen=True, slots=True, repr=False)
class Fold:
    """An aggregation that goes on from where it was: one more step costs one step, however long the path.

    `step(carry, score)` takes a score in (`carry` is None before the first), `total(carry)` is the value so far. Called
    with all scores it is an aggregation like any other; 0 without steps.
    """

    name: str
    step: Callable[[Any, float], Any]
    total: Callable[[Any], float]

    @property
    def __name__(self) -> str:
        """As functions have it, for results and logs."""
        return self.name

    def __repr__(self) -> str:
        return self.name

    def __call__(self, scores: Sequence[float]) -> float:
        """The value of all scores of a trajectory."""
        return self.value(self.extend(None, scores))

    def extend(self, carry: Any, scores: Iterable[float]) -> Any:
        """What to go on from behind these scores."""
        for score in scores:
            carry = self.step(carry, score)
        return carry

    def value(self, carry: Any) -> float:
        """The value of all that went in."""
        return 0.0 if carry is None else self.total(carry)


def _sum(carry: tuple[float, float, int] | None, x: float) -> tuple[float, float, int]:
    """A running sum, what rounding took from it (Neumaier), and the count."""
    total, lost, count = carry or (0.0, 0.0, 0)
    new = total + x
    lost += (total - new) + x if abs(total) >= abs(x) else (x - new) + total
    return new, lost, count + 1


def _mean(carry: tuple[float, float, int]) -> float:
    total, lost, count = carry
    return (total + lost) / count


def _weighted(carry: tuple[float, float], weight: float, s: float) -> tuple[float, float]:
    return carry[0] + weight, carry[1] + weight * s


geometric_mean = Fold(
    "geometric_mean",  # exp(mean(log(max(s, 1e-10)))): paper, Eq. 5
    lambda carry, s: _sum(carry, math.log(max(s, FLOOR))),
    lambda carry: math.exp(_mean(carry)),
)
mean = Fold("mean", _sum, _mean)
minimum = Fold("minimum", lambda carry, s: s if carry is None else min(carry, s), float)  # the weakest step
product = Fold("product", lambda carry, s: s if carry is None else carry * s, float)  # all right, if independent
soft_min = Fold(  # the mean weighted by exp(-s / 0.05): PURE's sum of softmax(-r / 0.1) * r over rewards r = 2 s - 1
    "soft_min",
    lambda carry, s: _weighted(carry or (0.0, 0.0), math.exp(-s / 0.05), s),
    lambda carry: carry[1] / carry[0],
)
last = Fold("last", lambda _, s: s, float)  # the last step's score

AGGREGATIONS: dict[str, Aggregation] = {
    "geometric_mean": geometric_mean,
    "mean": mean,
    "min": minimum,
    "soft_min": soft_min,
    "product": product,
    "last": last,
}


def resolve_aggregation(aggregation: str | Aggregation) -> Aggregation:
    """A name of the table above, or any function from step scores to one number."""
    if callable(aggregation):
        return aggregation
    if not isinstance(aggregation, str) or aggregation not in AGGREGATIONS:
        raise InvalidInputError(f"unknown aggregation {aggregation!r}: choose from {', '.join(AGGREGATIONS)}")
    return AGGREGATIONS[aggregation]
