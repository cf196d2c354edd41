"""What a search tells of itself while it runs: one stream of events, which progress, pages, logs and answers hang on.

Events come in order, on the thread of the searcher's event loop: a handler must not block. What it raises ends its
question, once, and no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tts_search.core.protocols import Question
from tts_search.core.result import SearchResult
from tts_search.core.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. `question` is the user's, as it was asked."""

    question: Question


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The search begins; the tree holds nothing but its root. `budget` is its cap in sampled tokens."""

    tree: Tree
    budget: int | None


@dataclass(frozen=True, slots=True)
class Sampled(Event):
    """Tokens came: `sampled_tokens` so far, those in flight included; `nodes` in the tree."""

    sampled_tokens: int
    budget: int | None
    nodes: int


@dataclass(frozen=True, slots=True)
class Grown(Event):
    """The tree has new nodes, scored."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Chosen(Event):
    """The path that is answered from: the end of its thinking, which is `thinking`, and its score (None: unscored)."""

    node: Node
    thinking: str
    score: float | None


@dataclass(frozen=True, slots=True)
class Answering(Event):
    """More of the chosen answer's text; all of it at once where the answer came before the choice."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The search is over."""

    result: SearchResult


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The search ended in an error."""

    error: Exception


OnEvent = Callable[[Event], object]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a search has come: tokens sampled so far (those in flight included), its cap, nodes in its tree."""

    question: Question
    sampled_tokens: int
    budget: int | None
    nodes: int


OnProgress = Callable[[Progress], object]


def as_events(on_progress: OnProgress) -> OnEvent:
    """A handler of events that shows progress alone."""

    def on_event(event: Event) -> None:
        if isinstance(event, Sampled):
            on_progress(Progress(event.question, event.sampled_tokens, event.budget, event.nodes))

    return on_event
