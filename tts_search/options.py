"""What a call may say, and what the names in it mean: strategies, efforts, selectors, scorers, engines.

Everything that concerns a call as a whole is refused here, before any question. It runs nothing.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict

from tts_search import discovery
from tts_search.core.protocols import Generator, Question, Scorer, Selector, Strategy
from tts_search.core.result import Candidate
from tts_search.core.runner import Job, OnProgress
from tts_search.core.tree import Tree
from tts_search.errors import InvalidInputError
from tts_search.models import EMBEDDED
from tts_search.scorers.engine_sprm import EngineSPRM
from tts_search.selection.selectors import resolve_selector
from tts_search.strategies.beam import StepBeamSearch
from tts_search.strategies.best_first import BestFirst
from tts_search.strategies.best_of_n import BestOfN
from tts_search.strategies.dvts import DVTS
from tts_search.strategies.mcts import MCTS
from tts_search.strategies.repeat import Repeat

Effort = Literal["low", "medium", "high"]
ScorerLike = str | Scorer | None
SelectorLike = str | Selector | Callable[[Sequence[Candidate]], int]

EFFORTS: Mapping[str, int] = {"low": 2, "medium": 8, "high": 32}  # Best-of-k (paper, section 4.1)
STRATEGIES: Mapping[str, Strategy] = {
    "best_of_n": BestOfN(),
    "single": BestOfN(n=1),
    "beam": StepBeamSearch(),
    "dvts": DVTS(),
    "mcts": MCTS(),
    "best_first": BestFirst(),
}
GENERATORS = ("auto", "vllm", "transformers")
SCORERS = ("auto", "sprm")


class Options(TypedDict, total=False):
    """How one call searches; the keyword arguments of `search` and its twins.

    - `strategy`: a name (`"best_of_n"`, `"single"`, `"beam"`, `"dvts"`, `"mcts"`, `"best_first"`) or an object such as
      `BestOfN(n=16)`. By name, and with a budget, it searches until the budget is spent: what has a fixed size is
      repeated with fresh samples. An object does what it says, and the budget is its cap.
    - `effort`: `"low"`, `"medium"` or `"high"` for Best-of-2, -8 or -32, instead of a strategy; medium by default.
    - `budget`: hard cap on sampled tokens per question, thinking and answer together; None for none.
    - `selector`: `"best"`, `"majority"`, `"weighted"`, `"logprob"`, or a function from answered candidates to an index.
      By default the best score where there is a scorer, else the majority.
    - `seed`: equal seeds give equal searches, as far as the engine's numerics allow.
    - `seconds`: wall-clock limit of the search; the answer follows, from the best so far.
    - `early_stop`: end the search once no path could beat the leader by more than this margin of score; for majorities,
      once the votes yet to come could not overtake it. `Usage.saved_tokens` says what was left of the budget.
    - `stop_when`: a function of the tree, asked after each round; True ends the search.
    - `halt`: a `threading.Event`; setting it, from anywhere, ends the search and answers from the best so far.
    - `on_progress`: called with `Progress` as tokens come, from the engine's thread.
    """

    strategy: str | Strategy | None
    effort: Effort | None
    budget: int | None
    selector: SelectorLike | None
    seed: int
    seconds: float | None
    early_stop: float | None
    stop_when: Callable[[Tree], bool] | None
    halt: threading.Event | None
    on_progress: OnProgress | None


def resolve_job(options: Options, engine: Generator, *, scored: bool) -> Job:
    """What a call with these options is to do on this engine; `scored` says whether anything scores steps there.

    Raises:
        InvalidInputError: an option is unknown, out of range, or goes with nothing else here.
    """
    unknown = options.keys() - Options.__annotations__.keys()
    if unknown:
        raise InvalidInputError(f"unknown option {min(unknown)!r}: choose from {', '.join(Options.__annotations__)}")
    budget = options.get("budget")
    if budget is not None:
        check_positive("budget", budget)
    strategy = resolve_strategy(options.get("strategy"), options.get("effort"), budget)
    if getattr(strategy, "needs_scores", False) and not scored:
        raise InvalidInputError(
            f"{strategy!r} goes where step scores are high, and {engine.name!r} has no SPRM head: fit one "
            "with tts-search fit-head, pass scorer=..., or take strategy='best_of_n', which can do without"
        )
    selector = resolve_selector(options.get("selector") or ("best" if scored else "majority"))
    if selector.needs_scores and not scored:
        raise InvalidInputError(
            f"selector {selector.name!r} needs step scores, and {engine.name!r} has no SPRM head: pass "
            "scorer=..., a model folder with a head, or selector='majority'"
        )
    limits = (budget, options.get("seconds"), options.get("stop_when"), options.get("halt"))
    if getattr(strategy, "endless", False) and all(limit is None for limit in limits):
        raise InvalidInputError(f"{strategy!r} searches until it is stopped: give it a budget, such as budget=160_000")
    seconds, margin = options.get("seconds"), options.get("early_stop")
    if seconds is not None and not seconds > 0:
        raise InvalidInputError(f"seconds must be positive, or None for no limit; got {seconds!r}")
    if margin is not None and not (0 <= margin <= 1 and selector.decided):
        raise InvalidInputError(
            f"early_stop is a margin in [0, 1] for a selector that can tell a lead; got {margin!r} with "
            f"selector {selector.name!r}"
        )
    return Job(
        strategy=strategy,
        selector=selector,
        budget=budget,
        seed=options.get("seed", 0),
        seconds=seconds,
        early_stop=margin,
        stop_when=options.get("stop_when"),
        halt=options.get("halt"),
        on_progress=options.get("on_progress"),
    )


def resolve_generator(model: str | Path, generator: str | Generator) -> Generator:
    """The engine that `Searcher(model, generator=...)` names; an object is taken as it is."""
    if not isinstance(generator, str):
        return generator
    if "://" in generator:
        from tts_search.generators.openai import OpenAIGenerator

        return OpenAIGenerator(generator, tokenizer=None if model == EMBEDDED else model)
    if generator not in GENERATORS:
        return discovery.load(discovery.GENERATORS, generator, GENERATORS)(model)
    if generator == "auto":
        installed = importlib.util.find_spec("vllm") is not None
        generator = "vllm" if installed and model != EMBEDDED else "transformers"
    if generator == "vllm":
        from tts_search.generators.vllm import VLLMGenerator

        return VLLMGenerator(model)
    from tts_search.generators.transformers import TransformersGenerator

    return TransformersGenerator(model)


def resolve_scorer(scorer: ScorerLike, engine: Generator) -> Scorer | None:
    """The scorer that `Searcher(scorer=...)` names, None for none."""
    if scorer is None or (scorer == "auto" and engine.head_config is None):
        return None
    if not isinstance(scorer, str):
        return scorer
    if scorer not in SCORERS:
        return discovery.instantiate(discovery.load(discovery.SCORERS, scorer, SCORERS), Scorer, f"scorer {scorer!r}")
    if engine.head_config is None:
        raise InvalidInputError(f"scorer='sprm', but {engine.name!r} has no SPRM head: no sprm/ and no score_module.pt")
    return EngineSPRM()


def resolve_strategy(strategy: str | Strategy | None, effort: str | None = None, budget: int | None = None) -> Strategy:
    """The strategy that a call with these options follows; its `repr` tells runs apart."""
    if strategy is not None and effort is not None:
        raise InvalidInputError(f"give a strategy or an effort, not both (strategy={strategy!r}, effort={effort!r})")
    if strategy is None:
        effort = effort or "medium"
        if effort not in EFFORTS:
            raise InvalidInputError(f"unknown effort {effort!r}: choose from {', '.join(EFFORTS)}")
        return BestOfN(n=EFFORTS[effort])
    if not isinstance(strategy, str):
        return strategy
    if strategy in STRATEGIES:
        named = STRATEGIES[strategy]
        fixed = budget is None or strategy == "single" or getattr(named, "endless", False)
        return named if fixed else Repeat(named)
    found = discovery.load(discovery.STRATEGIES, strategy, STRATEGIES)
    return found() if isinstance(found, type) else found


def check_question(question: Question) -> None:
    """Refuse a question that nobody could answer.

    Raises:
        InvalidInputError: it is empty, no text, or does not end with the user's turn.
    """
    if isinstance(question, str):
        texts: list[object] = [question]
    else:
        messages = list(question)
        if not messages or any(not isinstance(m, Mapping) or not {"role", "content"} <= m.keys() for m in messages):
            raise InvalidInputError("chat messages are a non-empty list of {'role': ..., 'content': ...}")
        if messages[-1]["role"] != "user":
            raise InvalidInputError(f"the last message must be the user's, its role is {messages[-1]['role']!r}")
        texts = [m["content"] for m in messages]
    last = texts[-1]
    if not all(isinstance(text, str) for text in texts) or not isinstance(last, str):
        raise InvalidInputError("a question is text: every content must be a string")
    if not last.strip():
        raise InvalidInputError("the question is empty")
    try:
        "".join(str(text) for text in texts).encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"the question is not valid Unicode text: {error}") from error


def check_positive(name: str, value: object) -> None:
    """Refuse what is no whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidInputError(f"{name} must be a whole number of at least 1, got {value!r}")
