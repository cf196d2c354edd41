"""How one question is to be searched: all that a call's options come to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tts_search.core.events import OnEvent
from tts_search.core.protocols import MergedVotes, Sampling, Selector, Strategy
from tts_search.core.scoring import StepScoring
from tts_search.core.tree import Tree
from tts_search.segmentation import Segmenter


@dataclass(frozen=True, slots=True, kw_only=True)
class Rechoice:
    """Another choice among the paths of a search that was replayed.

    `selector`, `aggregate`, `extract` and `merge` are as a job's. `scoring` values the paths anew; None leaves them
    their scores. `note` is what the result is to say of it.
    """

    selector: Selector
    aggregate: Callable[[Sequence[float]], float]
    extract: Callable[[str], str | None]
    merge: Callable[[Sequence[str | None]], MergedVotes] | None
    scoring: StepScoring | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """See `tts_search.options.Options` for the meaning of each; `strategy_name` is how it would be typed."""

    strategy: Strategy
    strategy_name: str
    selector: Selector
    segmenter: Segmenter
    aggregate: Callable[[Sequence[float]], float]
    extract: Callable[[str], str | None]
    sampling: Sampling
    max_tokens: int
    answer_tokens: int
    budget: int | None = None
    seed: int = 0
    seconds: float | None = None
    early_stop: float | None = None
    stop_when: Callable[[Tree], bool] | None = None
    halt: threading.Event | None = None
    on_event: OnEvent | None = None
    system: str | None = None
    merge: Callable[[Sequence[str | None]], MergedVotes] | None = None
    keep_tree: bool = True
    finds_rule: bool = False
    """Whether `segmenter` is to be replaced by one for what the model writes between steps."""
    closes_steps: bool = False
    """Whether the end of a thinking part, or of a response without one, ends its last step (see `Draw`)."""
    rechoice: Rechoice | None = None
