"""Monte Carlo tree search without rollouts: a node is worth what the process reward model says (paper, A.1).

Knows no engine and no scorer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from tts_search.core.protocols import Expand, Plan, Until
from tts_search.core.tree import Node, Tree
from tts_search.errors import InvalidInputError
from tts_search.strategies.statistics import Statistics
from tts_search.strategies.typed import Typed


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MCTS(Typed):
    """Until the budget is spent or nothing is left to grow: select a leaf, give it `children` continuations, back up.

    The paper's setting is the default: 4 children of up to 1024 tokens, one leaf a round, mean backup, UCT. With
    `leaves` above 1 that many leaves are expanded in one round, spread by virtual loss: a leaf already chosen counts as
    one more visit, worth 0, along its path. `selection="puct"` explores a child by its share of its siblings' values. A
    path that ended or cannot grow is never selected again.
    """

    endless: ClassVar[bool] = True  # grows until something stops it: a search without any limit is refused
    needs_scores: ClassVar[bool] = True
    continues_paths: ClassVar[bool] = True

    children: int = 4
    expansion_tokens: int | None = 1024
    until: Until = Until.THOUGHT
    exploration: float = math.sqrt(2)
    selection: Literal["uct", "puct"] = "uct"
    backup: Literal["mean", "max"] = "mean"
    leaves: int = 1

    def __post_init__(self) -> None:
        if self.children < 1 or self.leaves < 1 or not self.exploration >= 0:
            raise InvalidInputError(f"MCTS needs children >= 1, leaves >= 1 and exploration >= 0: {self}")
        if self.selection not in ("uct", "puct") or self.backup not in ("mean", "max"):
            raise InvalidInputError(f'MCTS selects by "uct" or "puct" and backs up "mean" or "max": {self}')

    def __call__(self, tree: Tree) -> Plan:
        stats = Statistics(tree, backup=self.backup)
        try:
            while chosen := self._select(stats):
                try:
                    grown = yield [Expand(leaf, self.children, self.until, self.expansion_tokens) for leaf in chosen]
                finally:  # a search may be stopped here
                    for leaf in chosen:
                        stats.unmark(leaf)
                for leaf, children in zip(chosen, grown, strict=True):
                    stats.back_up(leaf, children)
        finally:
            tree.visits.update((i, visits) for i, visits in enumerate(stats.visits) if visits)

    def _select(self, stats: Statistics) -> list[Node]:
        """Up to `leaves` different leaves, each by a walk from the root along the highest bound."""
        chosen: list[Node] = []
        bound = self._uct if self.selection == "uct" else self._puct
        while len(chosen) < self.leaves and stats.room[0]:
            node = stats.tree.root
            while children := stats.open_children(node):
                node = max(children, key=bound(stats, node))
            stats.mark(node)
            chosen.append(node)
        return chosen

    def _uct(self, stats: Statistics, parent: Node):
        log = math.log(stats.visits[parent.index])  # at least 1: its children were visited through it
        weight = self.exploration
        return lambda n: stats.value(n) + weight * math.sqrt(log / stats.visits[n.index])

    def _puct(self, stats: Statistics, parent: Node):
        siblings = stats.tree.children(parent)
        total = math.fsum(n.value for n in siblings) or 1.0
        weight = self.exploration * math.sqrt(stats.visits[parent.index])
        return lambda n: stats.value(n) + weight * (n.value / total) / (1 + stats.visits[n.index])
