"""Best-of-N: sample n thinking parts, keep the best one (paper, Eq. 7). Knows no engine and no scorer."""

from __future__ import annotations

from dataclasses import dataclass

from tts_search.errors import InvalidInputError
from tts_search.protocols import Expand, Plan, Until
from tts_search.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfN:
    """`n` independent thinking parts from the question; the selector chooses, the policy answers from the chosen one.

    A model without thinking tags gives `n` whole responses. `n=1` is a single sample.
    """

    n: int = 8

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InvalidInputError(f"BestOfN needs n >= 1 samples, got n={self.n}")

    def __call__(self, tree: Tree) -> Plan:
        yield [Expand(tree.root, n=self.n, until=Until.THOUGHT)]
