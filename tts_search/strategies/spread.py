"""How far values lie apart, as they come. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Iterable


class Spread:
    """The standard deviation of all values so far, 0 before there are two.

    By the update of Welford (1962, "Note on a method for calculating corrected sums of squares and products"), which
    rounding makes neither negative nor useless.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0  # of the distances from the mean, summed

    def add(self, values: Iterable[float]) -> None:
        """Some more values."""
        for value in values:
            self._count += 1
            away = value - self._mean
            self._mean += away / self._count
            self._squares += away * (value - self._mean)

    def __float__(self) -> float:
        return math.sqrt(self._squares / (self._count - 1)) if self._count > 1 else 0.0
