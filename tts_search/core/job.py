"""How one question is to be searched: all that a call's options come to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tts_search.core.events import OnEvent
from tts_search.core.protocols import MergedVotes, Sampling, Selector, Strategy
from tts_search.core.tree import Tree
from tts_search.segmentation import Segmenter


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
    closes_steps: bool = False
    """Whether the end of a thinking part, or of a response without one, ends its last step (see `Draw`)."""
