"""The search tree: a flat list of nodes with integer parents, each holding the token ids it adds.

The tree is append-only. It knows what was sampled and what it scored; it knows no engine, no budget and no strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tts_search.segmentation import Phase, Segmenter, State


class Ending(StrEnum):
    """Why a node's text stops where it does."""

    ROOT = "root"  # nothing was generated yet
    STEP = "step"  # behind a step token
    LENGTH = "length"  # cut off by a token limit, mid-step
    THOUGHT = "thought"  # the thinking part is closed
    END = "end"  # the response is complete


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One expansion: the tokens that it adds to its parent's text, and what the whole path up to here is worth.

    `step_ends` count tokens from the start of the response, and cover the whole path, like `step_scores` (values in
    [0, 1]) and `value` (their aggregation; 0 without steps). `forced_tokens` leading tokens were put there (a closing
    tag), not sampled.
    """

    index: int
    parent: int | None
    depth: int
    length: int  # tokens of the path, from the start of the response
    token_ids: tuple[int, ...]
    ending: Ending
    state: State
    step_ends: tuple[int, ...] = ()
    step_scores: tuple[float, ...] = ()
    value: float = 0.0
    logprobs: tuple[float, ...] = ()
    token_scores: tuple[float, ...] | None = None
    forced_tokens: int = 0

    @property
    def ended(self) -> bool:
        """Whether the search below this node is over: its thinking part, or its whole response, is complete."""
        return self.ending in (Ending.THOUGHT, Ending.END)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One path as a scorer sees it: token ids and text and step boundaries, never to be tokenized again.

    `token_scores` are the SPRM logits that came with the tokens (see `Completion.scores`), None without a head.
    `known_scores` are values of the leading steps that were scored already, for scorers that can go on from them.
    """

    question: str | tuple[Mapping[str, str], ...]
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    step_ends: tuple[int, ...]
    token_scores: tuple[float, ...] | None
    known_scores: tuple[float, ...]
    decode: Callable[[Sequence[int]], str] = field(repr=False, compare=False)

    @property
    def text(self) -> str:
        """The whole response so far."""
        return self.decode(self.token_ids)

    @property
    def steps(self) -> list[str]:
        """The text of every finished step; what follows the last of them is left out."""
        starts = (0, *self.step_ends)
        return [self.decode(self.token_ids[a:b]) for a, b in zip(starts, self.step_ends, strict=False)]


class Tree:
    """All that was sampled for one question.

    `question` is the text or the messages, `prompt_ids` their token ids in front of every path. `visits` are a tree
    search's counts by node index, kept for whoever looks at the tree.
    """

    def __init__(
        self,
        question: str | Sequence[Mapping[str, str]],
        prompt_ids: Sequence[int],
        segmenter: Segmenter,
        decode: Callable[[Sequence[int]], str],
    ) -> None:
        self.question = question if isinstance(question, str) else tuple(question)
        self.prompt_ids = tuple(prompt_ids)
        self.segmenter = segmenter
        self.decode = decode
        self.visits: dict[int, int] = {}
        self._children: list[list[int]] = [[]]
        root = Node(
            index=0, parent=None, depth=0, length=0, token_ids=(), ending=Ending.ROOT, state=segmenter.start(prompt_ids)
        )
        self.nodes: list[Node] = [root]

    @property
    def root(self) -> Node:
        """The node in front of the response: the question alone."""
        return self.nodes[0]

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def children(self, node: Node) -> list[Node]:
        """The nodes that continue `node`, oldest first."""
        return [self.nodes[i] for i in self._children[node.index]]

    def parent(self, node: Node) -> Node | None:
        """The node that `node` continues, None for the root."""
        return None if node.parent is None else self.nodes[node.parent]

    def path(self, node: Node) -> list[Node]:
        """From the root to `node`, both included."""
        path = [node]
        while path[-1].parent is not None:
            path.append(self.nodes[path[-1].parent])
        return path[::-1]

    def answered(self, node: Node) -> Node:
        """The end of the answer that an ended thinking part goes on into; `node` itself where there is none."""
        return next(reversed(self.children(node)), node)

    def leaves(self) -> list[Node]:
        """Nodes without children, oldest first; the root only where nothing was generated."""
        return [node for node, below in zip(self.nodes, self._children, strict=True) if not below]

    def token_ids(self, node: Node) -> tuple[int, ...]:
        """Token ids of the response from its start up to and including `node`."""
        return tuple(token for step in self.path(node) for token in step.token_ids)

    def add(self, node: Node) -> Node:
        """Append a node made for this tree: its index must be `len(tree)`, its parent in the tree."""
        if node.index != len(self.nodes) or node.parent is None or not 0 <= node.parent < node.index:
            raise ValueError(
                f"node {node.index} with parent {node.parent} does not fit a tree of {len(self.nodes)} nodes"
            )
        self.nodes.append(node)
        self._children.append([])
        self._children[node.parent].append(node.index)
        return node

    def trajectory(self, node: Node) -> Trajectory:
        """The path to `node` as a scorer sees it."""
        path = self.path(node)
        scores: tuple[float, ...] | None = None
        if any(step.token_scores is not None for step in path):
            nan = float("nan")
            scores = tuple(
                s for step in path for s in (step.token_scores or (nan,) * len(step.token_ids))
            )  # forced tokens have no score of their own
        parent = self.parent(node)
        return Trajectory(
            question=self.question,
            prompt_ids=self.prompt_ids,
            token_ids=self.token_ids(node),
            step_ends=node.step_ends,
            token_scores=scores,
            known_scores=parent.step_scores if parent else (),
            decode=self.decode,
        )

    def split(self, node: Node) -> tuple[str, str]:
        """The response up to `node` as (thinking, answer).

        The thinking tags themselves are in neither. The answer of a model that does not think is its whole response,
        and so is its thinking: that is what was segmented and scored.
        """
        tokens = self.token_ids(node)
        state = self.root.state
        start = 0
        for position, token in enumerate(tokens):
            before, state = state.phase, self.segmenter.advance(state, token)
            if before is Phase.BEFORE and state.phase is Phase.THINKING:
                start = position + 1
            if state.phase is Phase.ANSWER:
                return self.decode(tokens[start:position]), self.decode(tokens[position + 1 :]).strip()
        text = self.decode(tokens[start:])
        return (text, "") if state.phase is Phase.THINKING else (text, text.strip())
