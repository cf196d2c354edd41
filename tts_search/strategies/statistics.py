"""What a tree search counts per node: visits, backed-up values, and where there is room to grow. Plain lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from tts_search.core.tree import Node, Tree
from tts_search.strategies.spread import Spread


class Statistics:
    """Arrays indexed like `tree.nodes`.

    `visits[i]`: evaluations at or below node i, and marks. `room[i]`: leaves at or below node i that can be expanded
    and are not marked, so that a walk never enters a subtree with nothing to do.
    """

    def __init__(self, tree: Tree, *, backup: Literal["mean", "max"]) -> None:
        self.tree = tree
        self.backup = backup
        self.visits = [0]
        self.worth = [0.0]  # the sum, or the maximum, of the values at or below
        self.room = [1]
        self.spread = Spread()

    def walk(self, bound: Callable[[Node], Callable[[Node], float]]) -> Node:
        """The open leaf that one comes to from the root along the child whose `bound(parent)` is highest."""
        node = self.tree.root
        while children := self.open_children(node):
            node = max(children, key=bound(node))
        return node

    def value(self, node: Node) -> float:
        """The backed-up value of a visited node."""
        return self.worth[node.index] / (self.visits[node.index] if self.backup == "mean" else 1)

    def open_children(self, node: Node) -> list[Node]:
        """Children in whose subtrees something can be expanded."""
        return [child for child in self.tree.children(node) if self.room[child.index]]

    def mark(self, leaf: Node) -> None:
        """Virtual loss: a visit worth 0 along the path of a leaf that is being expanded. Its room is gone for good."""
        for i in self._upward(leaf):
            self.visits[i] += 1
        self.close(leaf)

    def unmark(self, leaf: Node) -> None:
        """Take the virtual visit back."""
        for i in self._upward(leaf):
            self.visits[i] -= 1

    def close(self, leaf: Node) -> None:
        """Never come to this leaf again."""
        for i in self._upward(leaf):
            self.room[i] -= 1

    def back_up(self, leaf: Node, children: Sequence[Node]) -> int:
        """Enter new children and add their values to every node above them; returns how many tokens they add."""
        if not children:
            return 0
        # Nodes that are not the search's own count for nothing.
        missing = max(child.index for child in children) + 1 - len(self.visits)
        self.visits += [0] * missing
        self.worth += [0.0] * missing
        self.room += [0] * missing
        for child in children:
            self.visits[child.index] = 1
            self.worth[child.index] = child.value
            self.room[child.index] = 0 if child.ended else 1
        values = [child.value for child in children]
        total, best, room = sum(values), max(values), sum(not child.ended for child in children)
        for i in self._upward(leaf):
            self.visits[i] += len(children)
            self.worth[i] = self.worth[i] + total if self.backup == "mean" else max(self.worth[i], best)
            self.room[i] += room
        self.spread.add(values)
        return sum(child.length - leaf.length for child in children)

    def _upward(self, node: Node) -> Iterator[int]:
        nodes = self.tree.nodes
        index: int | None = node.index
        while index is not None:
            yield index
            index = nodes[index].parent
