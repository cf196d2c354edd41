"""Monte Carlo tree search without rollouts: a node is worth what the process reward model says (paper, A.1).

Knows no engine, no scorer and no budget: whenever it is stopped, some path should have ended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from tts_search.core.protocols import Expand, Plan, Until
from tts_search.core.tree import Node, Tree
from tts_search.errors import InvalidInputError
from tts_search.strategies.bounds import puct, uct
from tts_search.strategies.statistics import Statistics
from tts_search.strategies.typed import Typed

FINISHING = 0.25  # of all tokens
EVEN_SPREAD = 12**-0.5  # the standard deviation of values that lie evenly over [0, 1]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MCTS(Typed):
    """Until the budget is spent or nothing is left to grow: select a leaf, give it `children` continuations, back up.

    The paper's setting is the default: 4 children of up to 1024 tokens, one leaf a round, mean backup, UCT. With
    `leaves` above 1 that many leaves are expanded in one round, spread by virtual loss: a leaf already chosen counts as
    one more visit, worth 0, along its path. `selection="puct"` explores a child by its share of its siblings' values. A
    path that ended or cannot grow is never selected again.

    `exploration` is the constant of the bound: by default, None, UCB1's sqrt(2) where values lie evenly over [0, 1],
    and as much smaller or larger as the standard deviation of the values seen so far is. For every three tokens of the
    tree one is spent on taking a single child of the best leaf to the end of its thought: among so few visits no long
    one would end. This share, `finishing`, is a quarter by default, and 0 by default where `exploration` is a number.
    """

    endless: ClassVar[bool] = True  # grows until something stops it: a search without any limit is refused
    needs_scores: ClassVar[bool] = True

    children: int = 4
    expansion_tokens: int | None = 1024
    until: Until = Until.THOUGHT
    exploration: float | None = None
    finishing: float | None = None
    selection: Literal["uct", "puct"] = "uct"
    backup: Literal["mean", "max"] = "mean"
    leaves: int = 1

    def __post_init__(self) -> None:
        self.check()
        if (self.exploration or 0) < 0 or not 0 <= (self.finishing or 0) < 1:
            raise InvalidInputError(f"MCTS needs exploration >= 0 and 0 <= finishing < 1: {self}")
        if self.selection not in ("uct", "puct") or self.backup not in ("mean", "max"):
            raise InvalidInputError(f'MCTS selects by "uct" or "puct" and backs up "mean" or "max": {self}')

    def __call__(self, tree: Tree) -> Plan:
        share = (FINISHING if self.exploration is None else 0) if self.finishing is None else self.finishing
        stats, tokens, finished = Statistics(tree, backup=self.backup), 0, 0
        try:
            while chosen := self._select(stats):
                try:
                    grown = yield [Expand(leaf, self.children, self.until, self.expansion_tokens) for leaf in chosen]
                finally:  # a search may be stopped here
                    for leaf in chosen:
                        stats.unmark(leaf)
                tokens += sum(stats.back_up(leaf, children) for leaf, children in zip(chosen, grown, strict=True))
                if stats.room[0] and finished < share * (tokens + finished):
                    best = stats.walk(lambda _: stats.value)
                    (ended,) = yield [Expand(best, 1, Until.THOUGHT)]
                    finished += stats.back_up(best, ended)
                    if not ended:
                        stats.close(best)
        finally:
            tree.visits.update((i, visits) for i, visits in enumerate(stats.visits) if visits)

    def _select(self, stats: Statistics) -> list[Node]:
        """Up to `leaves` different leaves, each by a walk from the root along the highest bound."""
        bound = uct if self.selection == "uct" else puct
        c = math.sqrt(2) * float(stats.spread) / EVEN_SPREAD if self.exploration is None else self.exploration
        chosen: list[Node] = []
        while len(chosen) < self.leaves and stats.room[0]:
            chosen.append(stats.walk(lambda parent: bound(stats, parent, c)))
            stats.mark(chosen[-1])
        return chosen
