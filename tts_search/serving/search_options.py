"""How a request names its search: from fields to the options of a call, by the first of four that says something.

They are the body's `search`, the model name's suffix, `reasoning_effort`, the server's default. Names are read, never
evaluated, and a request reaches no plug-in but those that the server was started with.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from tts_search import discovery
from tts_search.core.protocols import Strategy
from tts_search.errors import InvalidInputError
from tts_search.options import Options
from tts_search.selection.selectors import resolve_selector
from tts_search.selection.votes import UpTo, resolve_extract
from tts_search.serving.fields import Ask, SearchFields
from tts_search.serving.limits import Limits
from tts_search.serving.refusals import RefusedError
from tts_search.strategies.best_of_n import BestOfN
from tts_search.strategies.naming import OWN, STRATEGIES, read_strategy

# Best-of-k; 2, 8 and 32 are the paper's (section 4.1).
EFFORTS: Mapping[str, int] = {"none": 1, "minimal": 2, "low": 2, "medium": 8, "high": 32, "xhigh": 64}
MAX_SAMPLES = 1024  # of one strategy's numbers, in a request
ENDLESS_TOKENS = 32_768  # the budget of a search that would go on for ever, where nobody names one


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a server has to offer: a model under one name, what scores its steps (or nothing), and its defaults.

    `default` is the strategy of requests that name none, `strongest` the one of `mode: "pro"`, `plugins` the names of
    strategies of other packages that requests may use. `thinks` says whether the model has a thinking part,
    `starts_anywhere` whether the engine can go on from where a path stands.
    """

    name: str
    scored: bool
    thinks: bool
    starts_anywhere: bool = True
    default: str | Strategy = "medium"
    strongest: str | Strategy = "xhigh"
    budget: int | None = None
    plugins: Collection[str] = ()
    limits: Limits = field(default_factory=Limits)

    @property
    def suffixes(self) -> list[str]:
        """What may stand behind the model's name and a colon."""
        names = [*EFFORTS, *STRATEGIES, *self.plugins]
        return [name for name in names if self._offers(_named(name, self))]

    def _offers(self, strategy: Strategy) -> bool:
        scores = self.scored or not getattr(strategy, "needs_scores", False)
        return scores and (self.starts_anywhere or not getattr(strategy, "continues_paths", False))

    @property
    def models(self) -> list[str]:
        """Every name under which the model can be asked for."""
        return [self.name, *(f"{self.name}:{suffix}" for suffix in self.suffixes)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be searched, and what its asker should know about it."""

    ask: Ask
    model: str  # as it was asked for
    options: Options
    strategy: Strategy
    warnings: tuple[str, ...] = ()

    @property
    def samples_once(self) -> bool:
        """Whether nothing is searched: the model answers once, as without this server."""
        return self.strategy == STRATEGIES["single"]


def plan(ask: Ask, served: Served) -> Plan:
    """The search that a request names.

    Raises:
        RefusedError: there is no such model, or a budget above the server's limit.
        InvalidInputError: a name means nothing here, or two exclude each other.
    """
    warnings = list(ask.warnings)
    strategy = _strategy(ask, served)
    if ask.n > 1 and isinstance(strategy, BestOfN) and strategy.n < ask.n:
        strategy = replace(strategy, n=ask.n)
    search, limits = ask.search, served.limits
    options: dict[str, Any] = {"strategy": strategy, "effort": None}
    for name in ("repeat", "aggregation", "extract", "early_stop", "max_tokens"):
        if (value := getattr(search, name)) is not None:
            options[name] = value
    if ask.stop:
        options["extract"] = UpTo(resolve_extract(search.extract or "auto"), ask.stop)
    options["seconds"] = min(search.seconds or limits.request_seconds, limits.request_seconds)
    options["budget"] = _budget(search, strategy, served)
    options["seed"] = secrets.randbelow(1 << 31) if ask.seed is None else ask.seed
    sampling = dict(ask.sampling)
    if sampling.get("temperature") == 0 and strategy != STRATEGIES["single"]:
        del sampling["temperature"]
        warnings.append(
            "temperature 0 would make all paths of a search the same: the model's own temperature was taken "
            "(reasoning_effort 'none' is a single sample, and greedy with temperature 0)"
        )
    if sampling:
        options["sampling"] = sampling
    if ask.answer_tokens is not None:
        options["answer_tokens"] = ask.answer_tokens
        if not served.thinks:  # its whole response is the answer; one that is cut gets one token of an answer's share
            most = min(options.get("max_tokens", ask.answer_tokens), ask.answer_tokens)
            options["max_tokens"], options["answer_tokens"] = max(1, most - 1), 1
    selector = search.selector
    if ask.n > 1:  # every candidate is answered: any of them may be given
        chosen = resolve_selector(selector or ("best" if served.scored else "majority"))
        selector = replace(chosen, needs_answers=True)
    if selector is not None:
        options["selector"] = selector
    return Plan(
        ask=ask,
        model=ask.model or served.name,
        options=Options(**options),
        strategy=strategy,
        warnings=tuple(warnings),
    )


def _strategy(ask: Ask, served: Served) -> Strategy:
    search = ask.search
    if search.strategy is not None and search.effort is not None:
        raise RefusedError(400, "search: give a strategy or an effort, not both", param="search", code="invalid_value")
    suffix = _suffix(ask.model, served)
    if search.strategy is not None:
        return _named(search.strategy, served)
    if search.effort is not None:
        return BestOfN(n=EFFORTS[search.effort])
    if suffix is not None:
        return _named(suffix, served)
    if ask.strongest:
        return _set(served.strongest)
    if ask.effort is not None:
        return BestOfN(n=EFFORTS[ask.effort])
    return _set(served.default)


def _suffix(model: str | None, served: Served) -> str | None:
    """What a model's name says of the search, None where it says nothing."""
    if model is None or model == served.name:
        return None
    name, colon, suffix = model.rpartition(":")
    if colon and name == served.name and suffix in served.suffixes:
        return suffix
    raise RefusedError(
        404,
        f"there is no model {model[:200]!r} here: GET /v1/models lists what there is, such as {served.name!r}",
        param="model",
        code="model_not_found",
    )


def _set(strategy: str | Strategy) -> Strategy:
    """What whoever started the server meant, who may name any plug-in."""
    if not isinstance(strategy, str):
        return strategy
    return BestOfN(n=EFFORTS[strategy]) if strategy in EFFORTS else read_strategy(strategy)


def _named(name: str, served: Served) -> Strategy:
    def find(part: str) -> None:
        if part in OWN or part in served.plugins:
            return
        if part in discovery.installed(discovery.STRATEGIES):
            raise InvalidInputError(f"strategy {part!r} is not offered to requests here")

    if name in EFFORTS:
        return BestOfN(n=EFFORTS[name])
    try:
        return _sized(read_strategy(name, find=find))
    except InvalidInputError as error:
        raise RefusedError(400, str(error), param="search.strategy", code="invalid_value") from error


def _sized(strategy: Strategy) -> Strategy:
    """The strategy, if none of its numbers is absurd: memory is taken for every sample at once."""
    for part in fields(strategy) if is_dataclass(strategy) else ():
        value = getattr(strategy, part.name)
        if isinstance(value, int) and "tokens" not in part.name and value > MAX_SAMPLES:
            raise InvalidInputError(f"{part.name}={value} is more than a request may ask for, {MAX_SAMPLES:,}")
        if is_dataclass(value):
            _sized(value)  # pyright: ignore[reportArgumentType] # a strategy within a strategy
    return strategy


def _budget(search: SearchFields, strategy: Strategy, served: Served) -> int | None:
    asked, most = search.budget, served.limits.request_tokens
    if asked is not None and most is not None and asked > most:
        raise RefusedError(
            400, f"search.budget: {asked:,} tokens are more than a request may ask for here, {most:,}",
            param="search.budget", code="invalid_value",
        )  # fmt: skip
    budget = asked or served.budget
    if budget is None and (search.repeat or getattr(strategy, "endless", False)):
        budget = ENDLESS_TOKENS
    return most if budget is None else budget if most is None else min(budget, most)


def check_settings(*strategies: str, plugins: Collection[str] = ()) -> None:
    """Refuse at start, before a model is loaded, what no request could use.

    Raises:
        InvalidInputError: one of them is no effort and no strategy, or a plug-in is not installed.
    """
    for plugin in plugins:
        if plugin not in (known := discovery.installed(discovery.STRATEGIES)):
            raise InvalidInputError(
                f"--plugin {plugin}: no installed package has such a strategy: "
                f"there {'is' if len(known) == 1 else 'are'} {', '.join(known) or 'none'}"
            )
    for strategy in strategies:
        if strategy not in EFFORTS:
            read_strategy(strategy)
