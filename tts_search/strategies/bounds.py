"""What a child promises a tree search at most: its value, and the more above it the less it was visited."""

from __future__ import annotations

import math
from collections.abc import Callable

from tts_search.core.tree import Node
from tts_search.strategies.statistics import Statistics


def uct(stats: Statistics, parent: Node, c: float) -> Callable[[Node], float]:
    """UCB1's bound for a child of `parent`: c * sqrt(ln N / n) above its value."""
    log = math.log(stats.visits[parent.index])  # at least 1: its children were visited through it
    return lambda n: stats.value(n) + c * math.sqrt(log / stats.visits[n.index])


def puct(stats: Statistics, parent: Node, c: float) -> Callable[[Node], float]:
    """AlphaZero's bound, c * p * sqrt(N) / (1 + n) above the value, where p is the share of its siblings' values."""
    total = math.fsum(n.value for n in stats.tree.children(parent)) or 1.0
    weight = c * math.sqrt(stats.visits[parent.index])
    return lambda n: stats.value(n) + weight * (n.value / total) / (1 + stats.visits[n.index])
