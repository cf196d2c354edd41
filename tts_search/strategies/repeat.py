"""A strategy again and again, so that one with a fixed size spends whatever budget there is. Knows no algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tts_search.core.protocols import Plan, Strategy
from tts_search.core.tree import Tree


@dataclass(frozen=True, slots=True)
class Repeat:
    """Follows the plan of `strategy` from the root, with fresh samples every time, until something stops the search.

    All rounds grow one tree, and the selector chooses among all their paths.
    """

    endless: ClassVar[bool] = True

    strategy: Strategy

    @property
    def needs_scores(self) -> bool:
        """Whether the repeated strategy does."""
        return getattr(self.strategy, "needs_scores", False)

    @property
    def continues_paths(self) -> bool:
        """Whether the repeated strategy does."""
        return getattr(self.strategy, "continues_paths", False)

    def __call__(self, tree: Tree) -> Plan:
        size = -1
        while size != (size := len(tree)):  # a round that grew nothing was the last
            yield from self.strategy(tree)
