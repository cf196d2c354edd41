"""Step beam search: grow the best few paths a step at a time. Knows no engine and no scorer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tts_search.core.protocols import Expand, Plan, Until
from tts_search.core.tree import Node, Tree
from tts_search.strategies.typed import Typed


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StepBeamSearch(Typed):
    """Keeps the `width` best paths; each round every open one gets `branching` continuations.

    A continuation ends with a step, or after `chunk_tokens` tokens whatever they hold (`until=Until.THOUGHT` with
    `chunk_tokens` is chunk-wise search). With `keep_finished`, finished paths hold their place in the beam against open
    ones, and the search ends when they hold them all; without, they step aside and the beam goes on at full width.
    A beam of width 1 is greedy step search.
    """

    needs_scores: ClassVar[bool] = True

    width: int = 4
    branching: int = 4
    until: Until = Until.STEP
    chunk_tokens: int | None = None
    keep_finished: bool = True

    def __post_init__(self) -> None:
        self.check()

    def __call__(self, tree: Tree) -> Plan:
        beam, finished = [tree.root], list[Node]()
        samples = self.width * self.branching  # the root stands for the whole beam
        while beam:
            grown = yield [Expand(node, samples, self.until, self.chunk_tokens) for node in beam]
            children = [child for group in grown for child in group]
            if self.keep_finished:
                children = best(finished + children, self.width)
                finished = [child for child in children if child.ended]
            beam = best([child for child in children if not child.ended], self.width)
            samples = self.branching


def best(nodes: Sequence[Node], count: int) -> list[Node]:
    """The `count` nodes of highest value, best first; of equals the older."""
    return sorted(nodes, key=lambda node: (-node.value, node.index))[:count]
