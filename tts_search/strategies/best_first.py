"""Best-first search: grow whatever promises most, and never give a fork up for good. Knows no engine and no scorer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import sqrt
from typing import ClassVar

from tts_search.core.protocols import Expand, Plan, Until
from tts_search.core.tree import Node, Tree
from tts_search.errors import InvalidInputError
from tts_search.strategies.typed import Typed

NODES_PER_LEAF = 32


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BestFirst(Typed):
    """Until the budget is spent: give one more child to the node that promises most.

    So the search runs ahead where scores are high, takes a fork again when what came of it disappoints, and begins anew
    from the question when everything does: whole paths come early, unlike in `MCTS`, and no favourite takes all places,
    as in a beam. What a node promises: see `promise`; a lower `patience` goes sooner from a good node to the next best.

    `leaves` nodes grow in one round. More of them answer sooner and spend tokens with less thought; None grows one node
    for every 32 in the tree, so that a short search thinks about every step and a long one keeps an engine busy.
    `chunk_tokens` bounds a child besides `until`.
    """

    endless: ClassVar[bool] = True  # grows until something stops it: a search without any limit is refused
    needs_scores: ClassVar[bool] = True

    leaves: int | None = None
    patience: float = 0.75
    until: Until = Until.STEP
    chunk_tokens: int | None = None

    def __post_init__(self) -> None:
        self.check()
        if not 0 < self.patience <= 1:
            raise InvalidInputError(f"best-first needs 0 < patience <= 1: {self}")

    def __call__(self, tree: Tree) -> Plan:
        promises = {0: 1.0}
        queue = [(-1.0, 0)]  # (minus a promise, node); where `promises` says otherwise, it is out of date
        while asked := self._next(promises, queue, self.leaves or 1 + len(tree) // NODES_PER_LEAF):
            grown = yield [Expand(tree.nodes[i], n, self.until, self.chunk_tokens) for i, n in asked.items()]
            for i, children in zip(asked, grown, strict=True):
                promises.pop(i)
                siblings = tree.children(tree.nodes[i])
                known = {node.ids.tobytes() for node in siblings[: len(siblings) - len(children)]}
                fresh = {node.ids.tobytes(): node for node in children[::-1] if node.ids.tobytes() not in known}
                for node in (tree.nodes[i], *fresh.values()) if children else ():
                    if not node.ended:
                        promises[node.index] = self.promise(node, tree.children(node))
                        heappush(queue, (-promises[node.index], node.index))

    def _next(self, promises: dict[int, float], queue: list[tuple[float, int]], leaves: int) -> Counter[int]:
        """The most promising nodes, and how many children to give each: one that is asked for counts at once."""
        asked = Counter[int]()
        while queue and asked.total() < leaves:
            promise, i = heappop(queue)
            if promises.get(i) == -promise:
                asked[i] += 1
                promises[i] *= self.patience
                heappush(queue, (-promises[i], i))
        return asked

    def promise(self, node: Node, children: Sequence[Node]) -> float:
        """What one more child of `node` is worth.

        The mean over its own and its different children's scores, times the chance that the child is new (Good and
        Turing: the share of children seen once; one that ended leads nowhere new), times `patience` for every different
        child. A score is that of the last step, which, unlike a mean over the path, compares a long path with a short
        one; its square root, because early steps are judged too harshly to be given up for a low score.
        """
        different = {child.ids.tobytes(): child for child in children}
        seen = Counter(child.ids.tobytes() for child in children)
        once = sum(seen[ids] == 1 and not child.ended for ids, child in different.items())
        scores = [n.last_score or 0.0 for n in (node, *different.values()) if n.depth]
        worth = sum(map(sqrt, scores)) / len(scores) if scores else 1.0
        return worth * (once + 0.5) / (len(children) + 0.5) * self.patience ** len(different)
