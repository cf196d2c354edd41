"""What a call may say, and what the names in it mean: strategies, efforts, selectors, scorers, engines.

Everything that concerns a call as a whole is refused here, before any question. It runs nothing.
"""

from __future__ import annotations

import importlib.util
import inspect
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

from tts_search import discovery
from tts_search.addresses import without_credentials
from tts_search.checks import (
    check_callable,
    check_complete,
    check_function,
    check_no_class,
    check_repr,
    check_seconds,
    check_whole,
    check_yes_or_no,
    is_number,
)
from tts_search.core.events import Event, OnEvent, OnProgress, as_events
from tts_search.core.job import Job
from tts_search.core.protocols import Generator, Sampling, Scorer, Selector, Strategy
from tts_search.core.result import Candidate
from tts_search.core.tree import Tree
from tts_search.errors import InvalidInputError
from tts_search.log.file import SearchLog
from tts_search.models import EMBEDDED
from tts_search.scorers.aggregate import Aggregation, resolve_aggregation
from tts_search.scorers.engine_sprm import EngineSPRM
from tts_search.scorers.published import is_checkpoint, read_scorer
from tts_search.segmentation import AUTO, DEFAULT_STEP_RULE, RELEASED, RELEASED_CODE_RULE, Segmenter, StepRule
from tts_search.selection.selectors import resolve_selector
from tts_search.selection.votes import Extract, means_values, merge_votes, resolve_extract
from tts_search.strategies.best_of_n import BestOfN
from tts_search.strategies.naming import EFFORTS, STRATEGIES, read_strategy
from tts_search.strategies.repeat import Repeat
from tts_search.thinking import ThinkingTags
from tts_search.written import Unread, accepted, bind, read_value

F = TypeVar("F", bound=Callable[..., Any])

Effort = Literal["low", "medium", "high"]
ScorerLike = str | Scorer | None
SelectorLike = str | Selector | Callable[[Sequence[Candidate]], int]
SamplingLike = Sampling | Mapping[str, float]
StepRuleLike = StepRule | str | tuple[str, ...] | Collection[int]

GENERATORS = ("auto", "vllm", "transformers", "none")
SCORERS = ("auto", "sprm")


class Options(TypedDict, total=False):
    """How one call searches: keyword arguments of `search` and its twins, and of `Searcher` as defaults for its calls.

    - `strategy`: a name (`"best_of_n"`, `"single"`, `"beam"`, `"dvts"`, `"mcts"`, `"best_first"`), an object such as
      `BestOfN(n=16)`, or a text that writes one, `"BestOfN(n=16)"`.
    - `effort`: `"low"`, `"medium"` or `"high"` for Best-of-2, -8 or -32, instead of a strategy; medium by default.
    - `budget`: hard cap on sampled tokens per question, thinking and answer together; None for none.
    - `repeat`: True does a strategy of a fixed size again and again, with fresh samples, until the budget is spent;
      False (the default) does it once, and the budget is its cap. By name or as an object makes no difference.
    - `selector`: `"best"`, `"majority"`, `"weighted"`, `"logprob"`, or a function from answered candidates to an index.
      By default the best score where there is a scorer, else the majority.
    - `aggregation`: from step scores to the trajectory's, a name or a function; the scorer's or the head's own by
      default, else the geometric mean.
    - `extract`: what of an answer's text votes are counted on: `"auto"`, `"math"`, `"number"`, `"choice"`, `"code"`,
      `"text"`, or a function. Votes that mean the same are one: `result.comparer` says who compared them.
    - `sampling`: a `Sampling`, or a dict of what differs from the model's own settings: `{"temperature": 0.2}`.
    - `max_tokens`: limit of one path's thinking, in tokens. `answer_tokens`: limit of one answer.
    - `step_rule`: what ends a step: a text, a tuple of texts, a set of token ids, or a function of a token's text;
      `"auto"` is what this model writes between steps, found out once; `"released"` reads as MetaStone's released code.
      By default the head's own rule; `"auto"` where another scorer scores and the engine has a `fingerprint`.
    - `thinking_tags`: the two texts around a thought, such as `("[THINK]", "[/THINK]")`, where the model's tokenizer
      does not tell; None for a model that does not think.
    - `system`: a system message in front of the question.
    - `seed`: equal seeds give equal searches, as far as the engine's numerics allow.
    - `seconds`: wall-clock limit of the search; the answer follows, from the best so far.
    - `early_stop`: end the search once no path could beat the leader by more than this margin of score; for majorities,
      once the votes yet to come could not overtake it. Looked for between grants of tokens, so nothing depends on the
      clock. `Usage.saved_tokens` says what was left of the budget.
    - `stop_when`: a function of the tree, asked after each round; True ends the search.
    - `halt`: a `threading.Event`; setting it, from anywhere, ends the search and answers from the best so far.
    - `on_event`: called with each `Event` in order, on the thread of the searcher's loop: it must not block.
    - `on_progress`: called with `Progress` as tokens come, likewise.
    - `keep_tree`: False drops the tree from the result, for many questions.
    - `log`: a file (or an open `SearchLog`) that every finished completion is written to at once. What it holds is not
      sampled again: the same call goes on where it was, in the middle of a question too. Searches that depend on the
      clock (`seconds`, `stop_when`) go on at the question.
    - `replay`: True asks no engine: the search is found in the `log`, said as it was then; another selector,
      aggregation, extractor or scorer chooses again among its paths, and `result.warnings` says so.
    """

    strategy: str | Strategy | None
    effort: Effort | None
    budget: int | None
    repeat: bool
    selector: SelectorLike | None
    aggregation: str | Aggregation | None
    extract: str | Extract
    sampling: SamplingLike | None
    max_tokens: int
    answer_tokens: int
    step_rule: StepRuleLike | None
    thinking_tags: ThinkingTags
    system: str | None
    seed: int
    seconds: float | None
    early_stop: float | None
    stop_when: Callable[[Tree], bool] | None
    halt: threading.Event | None
    on_event: OnEvent | None
    on_progress: OnProgress | None
    keep_tree: bool
    log: str | Path | SearchLog | None
    replay: bool


DEFAULTS: Options = {
    "strategy": None,
    "effort": None,
    "budget": None,
    "repeat": False,
    "selector": None,
    "aggregation": None,
    "extract": "auto",
    "sampling": None,
    "max_tokens": 32_768,
    "answer_tokens": 1024,
    "step_rule": None,
    "thinking_tags": "auto",
    "system": None,
    "seed": 0,
    "seconds": None,
    "early_stop": None,
    "stop_when": None,
    "halt": None,
    "on_event": None,
    "on_progress": None,
    "keep_tree": True,
    "log": None,
    "replay": False,
}


def lists_options(function: F) -> F:
    """Show every option in a function's signature and docstring, so that `search?` in a notebook lists them."""
    signature = inspect.signature(function)
    known = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    named = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS[name], annotation=kind)
        for name, kind in Options.__annotations__.items()
    ]
    function.__signature__ = signature.replace(parameters=[*known, *named])  # pyright: ignore[reportFunctionMemberAccess]
    function.__doc__ = f"{function.__doc__}\n{inspect.getdoc(Options)}\n"
    return function


def check_names(options: Mapping[str, object]) -> None:
    """Refuse an option that there is not.

    Raises:
        InvalidInputError: its name is unknown.
    """
    unknown = options.keys() - DEFAULTS.keys()
    if unknown:
        name = min(unknown)
        near = get_close_matches(name, DEFAULTS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        if name in (field.name for field in fields(Sampling)):
            hint = f" (say sampling={{{name!r}: ...}})"
        raise InvalidInputError(f"unknown option {name!r}{hint}: choose from {', '.join(DEFAULTS)}")


def resolve_job(
    options: Options,
    engine: Generator,
    scorer: Scorer | None,
    segmenter: Callable[[StepRuleLike, ThinkingTags], Segmenter],
) -> Job:
    """What a call with these options (all of them) is to do on this engine; `segmenter` makes one of a step rule.

    Raises:
        InvalidInputError: an option is unknown, out of range, or goes with nothing else here.
    """
    check_names(options)
    said: dict[str, Any] = {**DEFAULTS, **options}
    budget = None if said["budget"] is None else check_whole("budget", said["budget"], at_least=1)
    strategy = resolve_strategy(said["strategy"], said["effort"], repeat=check_yes_or_no("repeat", said["repeat"]))
    if getattr(strategy, "continues_paths", False) and not getattr(engine, "starts_anywhere", True):
        raise InvalidInputError(
            f"{strategy!r} goes on from the middle of a response, and {engine.name!r} is a chat service, which answers "
            "from the beginning alone: take strategy='best_of_n', or a server with /v1/completions"
        )
    scored = scorer is not None
    if getattr(strategy, "needs_scores", False) and not scored:
        raise InvalidInputError(
            f"{strategy!r} goes where step scores are high, and {engine.name!r} has no SPRM head: fit one "
            "with tts-search fit-head, pass scorer=..., or take strategy='best_of_n', which can do without"
        )
    usual = "best" if scored else "majority"
    selector = resolve_selector(usual if said["selector"] is None else said["selector"])
    if selector.needs_scores and not scored:
        raise InvalidInputError(
            f"selector {selector.name!r} needs step scores, and {engine.name!r} has no SPRM head: pass "
            "scorer=..., a model folder with a head, or selector='majority'"
        )
    limits = (budget, said["seconds"], said["stop_when"], said["halt"])
    if getattr(strategy, "endless", False) and all(limit is None for limit in limits):
        raise InvalidInputError(f"{strategy!r} searches until it is stopped: give it a budget, such as budget=160_000")
    margin, halt = said["early_stop"], said["halt"]
    if margin is not None and not (is_number(margin) and 0 <= margin <= 1 and selector.decided):
        raise InvalidInputError(
            f"early_stop is a margin in [0, 1] for a selector that can tell a lead; got {margin!r} with "
            f"selector {selector.name!r}"
        )
    if halt is not None and not callable(getattr(halt, "is_set", None)):
        raise InvalidInputError(f"halt must be a threading.Event, got {halt!r}")
    if said["stop_when"] is not None:
        check_function("stop_when", said["stop_when"])
    if said["system"] is not None and not isinstance(said["system"], str):
        raise InvalidInputError(f"system must be a text, got {said['system']!r}")
    extract = resolve_extract(said["extract"])
    config = engine.head_config
    published = getattr(scorer, "aggregation", None) or (config.aggregation if config else "geometric_mean")
    rule = said["step_rule"]
    if rule is None:
        known = getattr(engine, "fingerprint", None) is not None  # or it would be found out again for every searcher
        rule = config.step_rule if config else AUTO if scored and known else DEFAULT_STEP_RULE
    finds_rule = isinstance(rule, str) and rule == AUTO
    if isinstance(rule, str) and rule in (AUTO, RELEASED):
        rule = DEFAULT_STEP_RULE if finds_rule else RELEASED_CODE_RULE
    return Job(
        strategy=strategy,
        strategy_name=check_repr("strategy", strategy),
        selector=selector,
        segmenter=segmenter(rule, said["thinking_tags"]),
        aggregate=resolve_aggregation(published if said["aggregation"] is None else said["aggregation"]),
        extract=extract,
        merge=merge_votes if selector.needs_answers and means_values(extract) else None,
        sampling=resolve_sampling(said["sampling"], engine.sampling),
        max_tokens=check_whole("max_tokens", said["max_tokens"], at_least=1),
        answer_tokens=check_whole("answer_tokens", said["answer_tokens"], at_least=1),
        budget=budget,
        seed=check_whole("seed", said["seed"]),
        seconds=check_seconds("seconds", said["seconds"]),
        early_stop=margin,
        stop_when=said["stop_when"],
        halt=halt,
        on_event=_handler(said["on_event"], said["on_progress"]),
        system=said["system"],
        keep_tree=check_yes_or_no("keep_tree", said["keep_tree"]),
        finds_rule=finds_rule,
        closes_steps=not getattr(scorer, "at_step_tokens", False),
    )


def _handler(on_event: OnEvent | None, on_progress: OnProgress | None) -> OnEvent | None:
    for name, function in (("on_event", on_event), ("on_progress", on_progress)):
        if function is not None:
            check_function(name, function)
    if on_event is None or on_progress is None:
        return on_event if on_progress is None else as_events(on_progress)
    return partial(_both, on_event, as_events(on_progress))


def _both(first: OnEvent, second: OnEvent, event: Event) -> None:
    first(event)
    second(event)


def resolve_sampling(sampling: SamplingLike | None, own: Sampling) -> Sampling:
    """How tokens are drawn: the model's `own` settings, but for what is said.

    Raises:
        InvalidInputError: an unknown setting, or a value out of its range.
    """
    if sampling is None or isinstance(sampling, Sampling):
        return sampling or own
    known = [field.name for field in fields(Sampling)]
    if not isinstance(sampling, Mapping) or sampling.keys() - set(known):
        raise InvalidInputError(f"sampling is a Sampling, or a dict with {', '.join(known)}; got {sampling!r}")
    return replace(own, **sampling)


def resolve_generator(
    model: str | Path, generator: str | Generator, engine_args: Mapping[str, Any] | None = None
) -> Generator:
    """The engine that `Searcher(model, generator=..., engine_args=...)` names; an object is taken as it is.

    Raises:
        InvalidInputError: an unknown engine, or an argument that its constructor does not take; the message lists
            those it does.
    """
    arguments = dict(engine_args or {})
    if not isinstance(generator, str):
        check_no_class("generator", generator)
        if arguments:
            raise InvalidInputError(f"engine_args are for an engine by its name, and {generator!r} is made already")
        return check_complete("generator", generator, Generator)
    if is_url(model):
        if generator != "auto":
            raise InvalidInputError(
                f"model={without_credentials(str(model))} is the address of a server, and generator={generator!r} "
                "runs models itself: leave generator out"
            )
        model, generator = EMBEDDED, str(model)
    kind = _engine(model, generator)
    if "model" in arguments and not is_url(generator):
        raise InvalidInputError(f"the model is said twice: {model!r}, and {arguments['model']!r} in engine_args")
    if is_url(generator):
        if model != EMBEDDED:  # what the server serves; its name there, if the tokenizer is elsewhere or not needed
            named = "tokenizer" in arguments or "tokenizer" not in accepted(kind)
            arguments.setdefault("model" if named else "tokenizer", model)
        return bind(kind, kind.__name__, [generator], arguments).make()
    if arguments and kind.__name__ == "VLLMGenerator":  # the rest is vLLM's own, which knows what it takes
        own = accepted(kind)
        rest = {
            name: read_value(value) if isinstance(value, Unread) else value
            for name, value in arguments.items()
            if name not in own
        }
        arguments = {name: value for name, value in arguments.items() if name in own}
        if rest:
            arguments["engine_args"] = rest
    return bind(kind, kind.__name__, [model], arguments).make() if arguments else kind(model)


def is_url(text: object) -> bool:
    """Whether it is meant as an address, as models and folders are not."""
    return isinstance(text, str) and "://" in text


def _engine(model: str | Path, generator: str) -> Callable[..., Generator]:
    if is_url(generator):
        from tts_search.generators.openai import ChatGenerator, OpenAIGenerator, is_chat

        return ChatGenerator if is_chat(generator) else OpenAIGenerator
    if generator not in GENERATORS:
        return discovery.load(discovery.GENERATORS, generator, GENERATORS)
    if generator == "none":
        from tts_search.generators.no_engine import NoEngine

        return NoEngine
    if generator == "auto":
        installed = importlib.util.find_spec("vllm") is not None
        generator = "vllm" if installed and model != EMBEDDED else "transformers"
    if generator == "vllm":
        from tts_search.generators.vllm import VLLMGenerator

        return VLLMGenerator
    from tts_search.generators.transformers import TransformersGenerator

    return TransformersGenerator


def resolve_scorer(scorer: ScorerLike, engine: Generator) -> Scorer | None:
    """The scorer that `Searcher(scorer=...)` names, None for none."""
    if scorer is None or (scorer == "auto" and engine.head_config is None):
        return None
    if not isinstance(scorer, str):
        check_no_class("scorer", scorer)
        return check_complete("scorer", scorer, Scorer)
    if scorer not in SCORERS and is_checkpoint(scorer) and scorer not in discovery.installed(discovery.SCORERS):
        return read_scorer(scorer)
    if scorer not in SCORERS:
        return discovery.instantiate(discovery.load(discovery.SCORERS, scorer, SCORERS), Scorer, f"scorer {scorer!r}")
    if engine.head_config is None:
        raise InvalidInputError(f"scorer='sprm', but {engine.name!r} has no SPRM head: no sprm/ and no score_module.pt")
    return EngineSPRM()


def resolve_strategy(strategy: str | Strategy | None, effort: str | None = None, *, repeat: bool = False) -> Strategy:
    """The strategy that a call with these options follows; its `repr` tells runs apart.

    With `repeat`, one of a fixed size is done until the search is stopped; a single sample stays one.
    """
    if strategy is not None and effort is not None:
        raise InvalidInputError(f"give a strategy or an effort, not both (strategy={strategy!r}, effort={effort!r})")
    found = _strategy(strategy, "medium" if effort is None else effort)
    fixed = not getattr(found, "endless", False) and found != STRATEGIES["single"]
    return Repeat(found) if repeat and fixed else found


def _strategy(strategy: str | Strategy | None, effort: str) -> Strategy:
    if strategy is None:
        if not isinstance(effort, str) or effort not in EFFORTS:
            raise InvalidInputError(f"unknown effort {effort!r}: choose from {', '.join(EFFORTS)}")
        return BestOfN(n=EFFORTS[effort])
    if not isinstance(strategy, str):
        check_no_class("strategy", strategy)
        return check_callable("strategy", strategy)
    return read_strategy(strategy)
