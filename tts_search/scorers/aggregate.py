"""From step scores to the score of a trajectory. Knows numbers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tts_search.errors import InvalidInputError

Aggregation = Callable[[Sequence[float]], float]

FLOOR = 1e-10  # step scores are clamped here before a logarithm (released code)


def geometric_mean(scores: Sequence[float]) -> float:
    """`exp(mean(log(max(s, 1e-10))))` (paper, Eq. 5); 0 without steps."""
    if not scores:
        return 0.0
    return math.exp(math.fsum(math.log(max(s, FLOOR)) for s in scores) / len(scores))


def mean(scores: Sequence[float]) -> float:
    """Arithmetic mean; 0 without steps."""
    return math.fsum(scores) / len(scores) if scores else 0.0


def minimum(scores: Sequence[float]) -> float:
    """The weakest step; 0 without steps."""
    return min(scores, default=0.0)


def product(scores: Sequence[float]) -> float:
    """Probability that all steps are right, were they independent; 0 without steps."""
    return math.prod(scores) if scores else 0.0


def last(scores: Sequence[float]) -> float:
    """The last step's score; 0 without steps."""
    return scores[-1] if scores else 0.0


AGGREGATIONS: dict[str, Aggregation] = {
    "geometric_mean": geometric_mean,
    "mean": mean,
    "min": minimum,
    "product": product,
    "last": last,
}


def resolve_aggregation(aggregation: str | Aggregation) -> Aggregation:
    """A name of the table above, or any function from step scores to one number."""
    if callable(aggregation):
        return aggregation
    if aggregation not in AGGREGATIONS:
        raise InvalidInputError(f"unknown aggregation {aggregation!r}: choose from {', '.join(AGGREGATIONS)}")
    return AGGREGATIONS[aggregation]
