"""What every export shows of a node: its text cut into steps with their scores, its value, its visits, its place.

One pass over the tree, shared by all targets. Knows no file format.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tts_search.core.result import SearchResult
from tts_search.core.tree import Node, Tree
from tts_search.errors import InvalidInputError
from tts_search.segmentation import Phase

Source = SearchResult | Tree


class Kind(StrEnum):
    """What a piece of a node's text is."""

    STEP = "step"  # ends with a step token
    OPEN = "open"  # reasoning behind the last step token: nothing scores it
    FORCED = "forced"  # put there, not sampled (a closing tag)
    ANSWER = "answer"  # behind the thinking part


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a node's own text. `score` is that of the step it ends, None where nothing scored it."""

    text: str
    kind: Kind
    tokens: int
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A node as it is shown.

    `value` is None where no step of the path was scored. `visits` are those that were given, else those that the
    strategy left in the tree, else the draws that went through the node: its own and all below it. `lane` is its place
    from top to bottom, in leaves (0 is the first leaf's), a parent's amid its children's.
    """

    node: Node
    pieces: tuple[Piece, ...]
    value: float | None
    visits: int
    lane: float
    chosen: bool
    candidate: int | None

    @property
    def text(self) -> str:
        """What the node adds to its parent's text."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def mean_logprob(self) -> float | None:
        """Mean log-probability of the node's own sampled tokens."""
        logprobs = self.node.logprobs
        return math.fsum(logprobs) / len(logprobs) if logprobs else None


def tree_of(source: Source) -> Tree:
    """The tree of a result, or the tree itself.

    Raises:
        InvalidInputError: the result carries none.
    """
    if isinstance(source, Tree):
        return source
    if source.tree is None:
        raise InvalidInputError(
            f"this result has no tree to show (stop reason {str(source.stop_reason)!r}): "
            "results of failed questions carry none"
        )
    return source.tree


def result_of(source: Source) -> SearchResult | None:
    """The result, None for a tree alone."""
    return None if isinstance(source, Tree) else source


def chosen_path(source: Source) -> list[int]:
    """Indices from the root to the end of the path that was answered from; empty where nothing was chosen."""
    result = result_of(source)
    if result is None or result.tree is None or result.chosen is None:
        return []
    tree = result.tree
    end = tree.nodes[result.candidates[result.chosen].node]
    answer = tree.children(end)  # a candidate was a leaf when it was chosen: below it is nothing but its answer
    return [node.index for node in tree.path(answer[-1] if answer else end)]


def rows(source: Source, visits: Mapping[int, int] | None = None) -> list[Row]:
    """All nodes of a search as they are shown, by index.

    Raises:
        InvalidInputError: the result has no tree.
    """
    tree, result = tree_of(source), result_of(source)
    chosen = set(chosen_path(source))
    candidates = {c.node: i for i, c in enumerate(result.candidates)} if result else {}
    lanes, counts = _lanes(tree), visits if visits is not None else tree.visits or dict(enumerate(_draws(tree)))
    return [
        Row(
            node=node,
            pieces=pieces(tree, node),
            value=node.value if node.step_scores else None,
            visits=counts.get(node.index, 0),  # the answer stage comes behind the visits
            lane=lanes[node.index],
            chosen=node.index in chosen,
            candidate=candidates.get(node.index),
        )
        for node in tree
    ]


def pieces(tree: Tree, node: Node) -> tuple[Piece, ...]:
    """A node's own text, cut behind each of its step tokens.

    A step that began in the parent shows here only what this node added to it, and its score. A character that was cut
    in the middle between two nodes shows as U+FFFD in both.
    """
    begin = node.length - len(node.token_ids)
    cuts: list[tuple[int, Kind, float | None]] = []
    if node.forced_tokens:
        cuts.append((begin + node.forced_tokens, Kind.FORCED, None))
    for place, end in enumerate(node.step_ends):
        if end > begin:
            score = node.step_scores[place] if place < len(node.step_scores) else None
            cuts.append((end, Kind.STEP, score))
    parent = tree.parent(node)
    answering = bool(node.forced_tokens) or (parent is not None and parent.state.phase is Phase.ANSWER)
    answering = answering and node.state.phase in (Phase.ANSWER, Phase.PLAIN)
    cuts.append((node.length, Kind.ANSWER if answering else Kind.OPEN, None))
    found: list[Piece] = []
    start, told = begin, 0
    for end, kind, score in cuts:
        if end > start:
            text = tree.decode(node.token_ids[start - begin : end - begin])
            tokens = (end - begin) * node.token_count // len(node.ids)  # a share, where ids are not the engine's tokens
            found.append(Piece(text, kind, tokens - told, score))
            start, told = end, tokens
    return tuple(found)


def _draws(tree: Tree) -> list[int]:
    counts = [1] * len(tree)
    counts[0] = 0  # nobody drew the root
    for node in reversed(tree.nodes):
        if node.parent is not None:
            counts[node.parent] += counts[node.index]
    return counts


def _lanes(tree: Tree) -> list[float]:
    lanes = [0.0] * len(tree)
    leaf = 0
    for node in preorder(tree):
        if not tree.children(node):
            lanes[node.index] = float(leaf)
            leaf += 1
    for node in reversed(tree.nodes):
        below = tree.children(node)
        if below:
            lanes[node.index] = (lanes[below[0].index] + lanes[below[-1].index]) / 2
    return lanes


def preorder(tree: Tree) -> list[Node]:
    """Every node in front of its children, children oldest first."""
    stack, order = [tree.root], []
    while stack:
        node = stack.pop()
        order.append(node)
        stack.extend(reversed(tree.children(node)))
    return order
