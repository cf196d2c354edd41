"""Best-of-N: sample n thinking parts, keep the best one (paper, Eq. 7). Knows no engine and no scorer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tts_search.core.protocols import Expand, Plan, Until
from tts_search.core.tree import Tree
from tts_search.strategies.typed import Typed


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BestOfN(Typed):
    """`n` independent thinking parts from the question; the selector chooses, the policy answers from the chosen one.

    A model without thinking tags gives `n` whole responses. `n=1` is a single sample. They all start at once, or `wave`
    at a time, so that an early stop has something to save.
    """

    continues_paths: ClassVar[bool] = False

    n: int = 8
    wave: int | None = None

    def __post_init__(self) -> None:
        self.check()

    def __call__(self, tree: Tree) -> Plan:
        left = self.n
        while left > 0:
            grown = yield [Expand(tree.root, n=min(left, self.wave or left), until=Until.THOUGHT)]
            if not any(grown):
                return
            left -= len(grown[0])

    def remaining(self, tree: Tree) -> int:
        """Samples that are not drawn yet."""
        return max(0, self.n - len(tree.children(tree.root)))
