"""The search tree: a flat list of nodes, each holding the tokens it adds and a link to the node it continues.

The tree is append-only, and one more step costs what the step costs, not what its path costs: what belongs to a whole
path (its ids, its text, its scores) is joined when it is asked for. The tree knows what was sampled and what it scored;
it knows no engine, no budget and no strategy.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cached_property
from itertools import chain
from typing import Any, overload

from tts_search.core.recorded import record
from tts_search.segmentation import Phase, Segmenter, State
from tts_search.thinking import Tag, spoken_thought, without_thoughts

NAN = float("nan")
BYTES_TO_A_TOKEN = 3  # at least, of what models write


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

    `ids`, `logprobs` and `token_scores` are columns of its own tokens. `new_step_ends` are the steps that end in it,
    counted in tokens from the start of the response; `step_count` counts the steps of the whole path, `new_step_scores`
    are values in [0, 1] of the new ones, or of all the path's where the scorer judged earlier ones anew (`rescored`).
    `value` is the aggregation over the path's scores (0 without steps). `forced_tokens` leading tokens were put there
    (a closing tag), not sampled. `counted_tokens` is the engine's own count where its ids are not its tokens.
    """

    index: int
    up: Node | None = field(repr=False)
    depth: int
    length: int  # tokens of the path, from the start of the response
    ids: array[int]
    ending: Ending
    state: State
    new_step_ends: tuple[int, ...] = ()
    new_step_scores: tuple[float, ...] = ()
    rescored: bool = False
    step_count: int = 0
    value: float = 0.0
    carry: Any = field(default=None, repr=False)  # what the aggregation goes on from
    logprobs: array[float] = field(default_factory=lambda: array("d"), repr=False)
    token_scores: array[float] | None = field(default=None, repr=False)
    forced_tokens: int = 0
    counted_tokens: int | None = None
    logprob_sum: float = 0.0  # of the path
    logprob_count: int = 0

    @property
    def parent(self) -> int | None:
        """The index of the node that this one continues, None for the root."""
        return None if self.up is None else self.up.index

    @property
    def ended(self) -> bool:
        """Whether the search below this node is over: its thinking part, or its whole response, is complete."""
        return self.ending in (Ending.THOUGHT, Ending.END)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens that it adds."""
        return tuple(self.ids)

    @property
    def token_count(self) -> int:
        """How many tokens it adds, by the engine's own count where its ids are not its tokens."""
        return len(self.ids) if self.counted_tokens is None else self.counted_tokens

    @property
    def token_length(self) -> int:
        """How many tokens the path has, counted likewise."""
        return self.length if self.counted_tokens is None else sum(node.token_count for node in self.path())

    @property
    def step_ends(self) -> tuple[int, ...]:
        """Where each step of the path ends, in tokens from the start of the response."""
        return tuple(chain.from_iterable([node.new_step_ends for node in self.path()]))

    @property
    def step_scores(self) -> tuple[float, ...]:
        """The score of each step of the path, as far as it was scored."""
        parts, node = list[tuple[float, ...]](), self
        while node is not None:
            parts.append(node.new_step_scores)
            node = None if node.rescored else node.up
        return tuple(chain.from_iterable(reversed(parts)))

    @property
    def last_score(self) -> float | None:
        """The score of the path's last step, None where none was scored."""
        node: Node | None = self
        while node is not None:
            if node.new_step_scores:
                return node.new_step_scores[-1]
            node = node.up
        return None

    @property
    def last_step_end(self) -> int:
        """Where the path's last step ends, in tokens from the start of the response."""
        node: Node | None = self
        while node is not None:
            if node.new_step_ends:
                return node.new_step_ends[-1]
            node = node.up
        return 0

    def ids_from(self, begin: int) -> array[int]:
        """The tokens of the path behind its first `begin`."""
        parts: list[array[int]] = []
        node: Node | None = self
        while node is not None and node.length > begin:
            before = node.length - len(node.ids)
            parts.append(node.ids[max(0, begin - before) :])
            node = node.up
        return array("i", chain.from_iterable(reversed(parts)))

    def path(self) -> list[Node]:
        """From the root to this node, both included."""
        path: list[Node] = [self]
        node = self.up
        while node is not None:
            path.append(node)
            node = node.up
        path.reverse()
        return path


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
    token_scores: Sequence[float] | None
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

    @property
    def step_count(self) -> int:
        """How many steps are finished."""
        return len(self.step_ends)

    @property
    def new_step_ends(self) -> tuple[int, ...]:
        """The ends of the steps behind the known ones."""
        return self.step_ends[len(self.known_scores) :]

    @property
    def new_step_logits(self) -> list[float] | None:
        """The SPRM logit of every step behind the known ones, None without a head."""
        scores = self.token_scores
        return None if scores is None else [scores[end - 1] for end in self.new_step_ends]


class PathTrajectory(Trajectory):
    """A path of a tree, joined when it is asked for: a scorer that reads only what is new pays only for that."""

    __slots__ = ("_ids", "_node", "_tree")

    def __init__(self, tree: Tree, node: Node) -> None:
        for name, value in (("_tree", tree), ("_node", node), ("_ids", None)):
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PathTrajectory) and other._tree is self._tree and other._node is self._node

    def __hash__(self) -> int:
        return hash((id(self._tree), self._node.index))

    def __repr__(self) -> str:
        return f"PathTrajectory({self._tree.question!r}, node {self._node.index}, {self._node.length} tokens)"

    @property
    def question(self) -> str | tuple[Mapping[str, str], ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._tree.question

    @property
    def prompt_ids(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._tree.prompt_ids

    @property
    def token_ids(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self._ids is None:
            object.__setattr__(self, "_ids", self._tree.token_ids(self._node))
        return self._ids  # pyright: ignore[reportReturnType]

    @property
    def step_ends(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._node.step_ends

    @property
    def token_scores(self) -> Sequence[float] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        path = self._node.path()
        if all(node.token_scores is None for node in path):
            return None
        scores = array("d")
        for node in path:  # forced tokens have no score of their own
            scores.extend(array("d", [NAN]) * len(node.ids) if node.token_scores is None else node.token_scores)
        return scores

    @property
    def known_scores(self) -> tuple[float, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._node.up.step_scores if self._node.up else ()

    @property
    def decode(self) -> Callable[[Sequence[int]], str]:  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
        return self._tree.decode

    @property
    def step_count(self) -> int:
        return self._node.step_count

    @property
    def new_step_ends(self) -> tuple[int, ...]:
        return self._node.new_step_ends

    @property
    def new_step_logits(self) -> list[float] | None:
        node = self._node
        if node.token_scores is None:
            return None
        before = node.length - len(node.ids) + 1
        return [node.token_scores[end - before] for end in node.new_step_ends]


class Prefix(Sequence[int]):
    """Prompt, path and what a sample has so far, as one sequence of token ids: joined when it is first read.

    As good as a tuple of its ids: equal to one, and hashed like one.
    """

    __slots__ = ("_joined", "_length", "_parts")

    def __init__(self, parts: Callable[[], Iterable[int]], length: int) -> None:
        self._parts = parts
        self._length = length
        self._joined: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        return iter(self._tokens())

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...
    def __getitem__(self, index: int | slice) -> int | tuple[int, ...]:
        return self._tokens()[index]

    def __eq__(self, other: object) -> bool:
        return self._tokens() == (other._tokens() if isinstance(other, Prefix) else other)

    def __hash__(self) -> int:
        return hash(self._tokens())

    def __repr__(self) -> str:
        return repr(self._tokens())

    def _tokens(self) -> tuple[int, ...]:
        if self._joined is None:
            self._joined = tuple(self._parts())
        return self._joined


class Tree:
    """All that was sampled for one question.

    `question` is the text or the messages, `prompt_ids` their token ids in front of every path. `visits` are a tree
    search's counts by node index, kept for whoever looks at the tree. `seed` seeds `rng`, the source of chance for
    algorithms that need one.
    """

    def __init__(
        self,
        question: str | Sequence[Mapping[str, Any]],
        prompt_ids: Sequence[int],
        segmenter: Segmenter,
        decode: Callable[[Sequence[int]], str],
        seed: int = 0,
    ) -> None:
        self.question = question if isinstance(question, str) else tuple(question)
        self.prompt_ids = tuple(prompt_ids)
        self.segmenter = segmenter
        self.decode = decode
        self.seed = seed
        self.visits: dict[int, int] = {}
        self._children: list[list[int] | None] = [None]
        root = Node(0, None, 0, 0, array("i"), Ending.ROOT, segmenter.start(prompt_ids))
        self.nodes: list[Node] = [root]

    @cached_property
    def rng(self) -> random.Random:
        """Seeded chance: equal seeds and questions give equal draws."""
        return random.Random(repr((self.seed, self.prompt_ids)))

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
        return [self.nodes[i] for i in self._children[node.index] or ()]

    def parent(self, node: Node) -> Node | None:
        """The node that `node` continues, None for the root."""
        return node.up

    def path(self, node: Node) -> list[Node]:
        """From the root to `node`, both included."""
        return node.path()

    def answered(self, node: Node) -> Node:
        """The end of the answer that an ended thinking part goes on into; `node` itself where there is none."""
        return next(reversed(self.children(node)), node)

    def leaves(self) -> list[Node]:
        """Nodes without children, oldest first; the root only where nothing was generated."""
        return [node for node, below in zip(self.nodes, self._children, strict=True) if not below]

    def token_ids(self, node: Node) -> tuple[int, ...]:
        """Token ids of the response from its start up to and including `node`."""
        return tuple(self._joined(node))

    def prefix(self, node: Node, more: Sequence[int] = ()) -> Prefix:
        """The prompt, the response up to `node`, and `more` behind it."""
        length = len(self.prompt_ids) + node.length + len(more)
        return Prefix(lambda: chain(self.prompt_ids, self._joined(node), more), length)

    def add(self, node: Node) -> Node:
        """Append a node made for this tree: its index must be `len(tree)`, its parent in the tree."""
        if node.index != len(self.nodes) or node.up is None or not self.holds(node.up):
            raise ValueError(
                f"node {node.index} with parent {node.parent} does not fit a tree of {len(self.nodes)} nodes"
            )
        self.nodes.append(node)
        self._children.append(None)
        below = self._children[node.up.index]
        if below is None:
            self._children[node.up.index] = [node.index]
        else:
            below.append(node.index)
        return node

    def holds(self, node: object) -> bool:
        """Whether it is a node of this very tree."""
        return isinstance(node, Node) and node.index < len(self.nodes) and self.nodes[node.index] is node

    def trajectory(self, node: Node) -> Trajectory:
        """The path to `node` as a scorer sees it."""
        return PathTrajectory(self, node)

    def split(self, node: Node) -> tuple[str, str]:
        """The response up to `node` as (thinking, answer).

        The thinking tags themselves are in neither. The answer of a model that does not think is its whole response,
        and so is its thinking: that is what was segmented and scored. Where such a response holds tags that nobody
        announced, it is split at those; further tags in an answer are taken out of it, with what they enclose.
        """
        opened, closed = self._turning_points(node.path())
        tokens, tags = self.token_ids(node), self.segmenter
        _, begun = self._around(tokens[:opened], tags.opening) if opened else ("", "")
        if closed is None:
            text = begun + self.decode(tokens[opened:])
            if node.state.phase is Phase.THINKING:
                return text, ""
            spoken = spoken_thought(text)
            return (text, text.strip()) if spoken is None else (spoken.thinking, spoken.answer.strip())
        thinking, rest = self._around(tokens[opened:closed], tags.closing)
        thinking, answer = begun + thinking, rest + self.decode(tokens[closed:])
        assert tags.opening is not None
        assert tags.closing is not None
        answer = without_thoughts(answer, tags.opening.text.decode(), tags.closing.text.decode()).strip()
        if not answer and not opened and tags.start(self.prompt_ids).phase is not Phase.THINKING:
            # A closing tag at the end of a response, and nothing had opened: it closed nothing.
            answer = thinking.strip() if node.ending is Ending.END else ""
        return thinking, answer

    def _around(self, tokens: Sequence[int], tag: Tag | None) -> tuple[str, str]:
        """The text in front of the tag that the last of `tokens` completes, and what that token holds behind it."""
        if tag is None or tag.is_single:
            return self.decode(tokens[:-1]), ""
        front, found, rest = self.decode(tokens).rpartition(tag.text.decode("utf-8", "replace"))
        return (front, rest) if found else ("", "")  # it began in the prompt

    def answer_length(self, node: Node) -> int:
        """How many tokens of the response up to `node` are the answer's; all of them for a model that does not think.

        Those that a thinking part is closed with are none of them, the end of the text is one. Where an engine's ids
        are not its tokens, it is the answer's share of its count, or what a text so long takes if that is less: what
        was thought and not shown is in the count, too.
        """
        ids = len(self.answer_ids(node))
        if node.counted_tokens is None:
            return ids
        return min(math.ceil(ids * node.counted_tokens / max(1, len(node.ids))), math.ceil(ids / BYTES_TO_A_TOKEN))

    def answer_ids(self, node: Node) -> tuple[int, ...]:
        """The ids of the answer, as `answer_length` counts them."""
        if node.state.phase is Phase.THINKING:
            return ()
        return self.token_ids(node)[self._turning_points(node.path())[1] or 0 :]

    def _turning_points(self, path: Sequence[Node]) -> tuple[int, int | None]:
        """How many tokens of a path come before its thinking, and how many up to the end of it (None: not closed).

        Only nodes in which the phase changes are read token by token.
        """
        opened, closed = 0, None
        state = path[0].state
        for node in path[1:]:
            if state.phase is not node.state.phase:
                begin = node.length - len(node.ids)
                for position, token in enumerate(node.ids, start=begin + 1):
                    before, state = state.phase, self.segmenter.advance(state, token)
                    if before is not state.phase is Phase.THINKING:
                        opened = position
                    if before is not state.phase is Phase.ANSWER:
                        return opened, position
            state = node.state
        return opened, closed

    def _joined(self, node: Node) -> array[int]:
        ids = array("i")
        for part in node.path():
            ids.extend(part.ids)
        return ids

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the tokenizer and what an aggregation would go on from.

        Of the vocabulary there is only what occurs, and nodes go by their parents' numbers.
        """
        occurring = set(self.prompt_ids).union(*(node.ids for node in self.nodes))
        vocabulary, rule = record(self.segmenter, occurring, self.decode)
        names = [field.name for field in fields(Node) if field.name not in ("up", "carry")]
        return {
            "question": self.question,
            "prompt_ids": self.prompt_ids,
            "vocabulary": vocabulary,
            "rule": rule,
            "seed": self.seed,
            "visits": self.visits,
            "nodes": [(node.parent, {name: getattr(node, name) for name in names}) for node in self.nodes],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vocabulary = state["vocabulary"]
        segmenter = Segmenter(vocabulary, state["rule"])
        Tree.__init__(self, state["question"], state["prompt_ids"], segmenter, vocabulary.decode, state["seed"])
        self.visits = state["visits"]
        for parent, values in state["nodes"]:
            if parent is None:
                self.nodes[0] = Node(up=None, **values)
            else:
                self.add(Node(up=self.nodes[parent], **values))
