"""Test-time scaling by search: a language model answers better when several thoughts are sampled, scored and chosen
from.

>>> from tts_search import search
>>> search("Using the numbers 7, 5, 15 and 11, make 24.", effort="high").answer

Importing this package imports neither torch nor vllm.
"""

from typing import TYPE_CHECKING, Any

from tts_search.api import Searcher, asearch, search
from tts_search.core.budget import Budget, Usage
from tts_search.core.events import Progress
from tts_search.core.protocols import (
    Completion,
    Expand,
    Generator,
    Plan,
    Request,
    Sampling,
    Scorer,
    Scores,
    Selector,
    Strategy,
    Until,
)
from tts_search.core.result import Candidate, SearchResult, Step, StopReason
from tts_search.core.tree import Ending, Node, Trajectory, Tree
from tts_search.errors import (
    GeneratorError,
    HeadMismatchError,
    InvalidInputError,
    MissingDependencyError,
    ModelNotFoundError,
    ScorerError,
    StrategyError,
    TTSError,
)
from tts_search.options import Options
from tts_search.segmentation import Contains, Exact, Segmenter, TokenIds
from tts_search.sprm.config import SPRMConfig
from tts_search.strategies.beam import StepBeamSearch
from tts_search.strategies.best_first import BestFirst
from tts_search.strategies.best_of_n import BestOfN
from tts_search.strategies.dvts import DVTS
from tts_search.strategies.mcts import MCTS
from tts_search.strategies.repeat import Repeat

if TYPE_CHECKING:
    from tts_search.sprm.module import SPRM

__version__ = "0.1.0"

__all__ = [
    "DVTS",
    "MCTS",
    "SPRM",
    "BestFirst",
    "BestOfN",
    "Budget",
    "Candidate",
    "Completion",
    "Contains",
    "Ending",
    "Exact",
    "Expand",
    "Generator",
    "GeneratorError",
    "HeadMismatchError",
    "InvalidInputError",
    "MissingDependencyError",
    "ModelNotFoundError",
    "Node",
    "Options",
    "Plan",
    "Progress",
    "Repeat",
    "Request",
    "SPRMConfig",
    "Sampling",
    "Scorer",
    "ScorerError",
    "Scores",
    "SearchResult",
    "Searcher",
    "Segmenter",
    "Selector",
    "Step",
    "StepBeamSearch",
    "StopReason",
    "Strategy",
    "StrategyError",
    "TTSError",
    "TokenIds",
    "Trajectory",
    "Tree",
    "Until",
    "Usage",
    "asearch",
    "search",
]


def __getattr__(name: str) -> Any:
    if name == "SPRM":  # it needs torch
        from tts_search.sprm.module import SPRM

        return SPRM
    raise AttributeError(f"module 'tts_search' has no attribute {name!r}")
