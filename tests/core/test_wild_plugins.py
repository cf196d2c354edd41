"""Plug-ins that raise or return what nobody expects: each is named, none hangs, and the next question is answered."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tts_search import (
    DVTS,
    BestFirst,
    BestOfN,
    Completion,
    Expand,
    Plan,
    Request,
    Searcher,
    SearchResult,
    StepBeamSearch,
    Tree,
    Until,
)
from tts_search.errors import GeneratorError, InvalidInputError, ScorerError, StrategyError, TTSError
from tts_search.testing import FakeGenerator, FakeScorer, run_search


class MuteError(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise self


ERRORS = [
    *(GeneratorExit(), KeyboardInterrupt(), StopIteration(3), StopAsyncIteration(), TimeoutError("read"), MuteError()),
    *(asyncio.CancelledError(), BaseExceptionGroup("two", [SystemExit(1)]), MemoryError(), RecursionError()),
]
every_error = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


@pytest.fixture
def searcher() -> Iterator[Searcher]:
    with Searcher(generator=FakeGenerator(), scorer=FakeScorer(), max_tokens=60, answer_tokens=20) as searcher:
        yield searcher


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*_: Any) -> Any:
        raise error

    return function


@every_error
@pytest.mark.parametrize("option", ["extract", "aggregation", "selector", "stop_when", "on_event", "on_progress"])
def test_whatever_a_function_raises_is_named(searcher: Searcher, option: str, error: BaseException) -> None:
    options: dict[str, Any] = {"strategy": BestOfN(n=2, wave=1), "selector": "majority", option: raising(error)}
    (result,) = searcher.search_many(["Why?"], **options)
    assert isinstance(result.error, InvalidInputError)
    assert f"raised {type(error).__name__}" in str(result.error)
    assert searcher.search("And now?", strategy="single").error is None


@every_error
def test_whatever_a_strategy_raises_is_named(searcher: Searcher, error: BaseException) -> None:
    def late(tree: Tree) -> Plan:
        yield [Expand(tree.root)]
        raise error

    for strategy in (raising(error), late):
        (result,) = searcher.search_many(["Why?"], strategy=strategy)
        assert isinstance(result.error, StrategyError)
        raised = "RuntimeError: generator raised StopIteration" if isinstance(error, StopIteration) else ""
        assert type(error).__name__ in str(result.error) or raised in str(result.error)


@every_error
@pytest.mark.parametrize("inline", [True, False])
def test_whatever_a_scorer_raises_is_named(inline: bool, error: BaseException) -> None:
    class Bad:
        def __init__(self) -> None:
            self.inline = inline

        def score(self, trajectories: Any) -> Any:
            raise error

    with Searcher(generator=FakeGenerator(), scorer=Bad(), max_tokens=60) as searcher:
        (result,) = searcher.search_many(["Why?"], strategy="single")
    assert isinstance(result.error, ScorerError)
    assert f"scorer Bad raised {type(error).__name__}" in str(result.error)


@every_error
def test_a_strategy_that_cannot_be_written_is_refused(searcher: Searcher, error: BaseException) -> None:
    class Nameless:
        def __repr__(self) -> str:
            raise error

        def __call__(self, tree: Tree) -> Plan:
            yield [Expand(tree.root)]

    for call in (searcher.search, searcher.search_many):
        with pytest.raises(InvalidInputError, match=f"the repr of .*Nameless raised {type(error).__name__}"):
            call("Why?", strategy=Nameless())


async def asynchronous(*_: Any) -> bool:
    return True


def generating(*_: Any) -> Any:
    yield True


@pytest.mark.parametrize("function", [asynchronous, generating])
@pytest.mark.parametrize("option", ["stop_when", "on_event", "on_progress"])
def test_a_function_that_would_do_nothing_is_refused(searcher: Searcher, option: str, function: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"{option} must be a plain function, neither async nor a generator"):
        searcher.search("Why?", **{option: function})

    class Asks:
        async def __call__(self, *_: Any) -> bool:
            return True

    with pytest.raises(InvalidInputError, match="plain function"):
        searcher.search("Why?", **{option: Asks()})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("said", [math.nan, "no", [], np.array([0, 1]), asyncio.sleep, object()])
def test_who_is_asked_whether_to_stop_says_yes_or_no(searcher: Searcher, said: Any) -> None:
    (result,) = searcher.search_many(["Why?"], strategy=BestOfN(n=2, wave=1), stop_when=lambda tree: said)
    assert isinstance(result.error, InvalidInputError)
    assert "stop_when=" in str(result.error)


@pytest.mark.parametrize(("said", "stops"), [(True, 1), (np.True_, 1), (1, 1), (False, 2), (np.False_, 2), (None, 2)])
def test_numpy_says_yes_and_no_too(searcher: Searcher, said: Any, stops: int) -> None:
    result = searcher.search("Why?", strategy=BestOfN(n=2, wave=1), stop_when=lambda tree: said)
    assert len(result.candidates) == stops


@pytest.mark.parametrize("left", [-1, math.nan, "2", 0.5, [1], np.array([1, 2])])
def test_what_remains_is_a_whole_number(searcher: Searcher, left: Any) -> None:
    class Counts(BestOfN):
        def remaining(self, tree: Tree) -> Any:
            return left

    with pytest.raises(StrategyError, match=r"Counts\(n=4, wave=2\) says that .* candidates remain"):
        searcher.search("Why?", strategy=Counts(n=4, wave=2), selector="majority", early_stop=0.0)


def test_a_selector_that_says_true_chose_nobody(searcher: Searcher) -> None:
    with pytest.raises(InvalidInputError, match="chose True of 2 candidates"):
        searcher.search("Why?", strategy=BestOfN(n=2), selector=lambda candidates: True)


def test_candidates_and_trajectories_keep_their_order(searcher: Searcher) -> None:
    """Sorted in place, an index would mean another one."""

    def sorts(candidates: Any) -> int:
        candidates.sort(key=lambda candidate: candidate.mean_logprob)
        return 0

    class Sorts:
        def score(self, trajectories: Any) -> Any:
            trajectories.sort(key=len)

    with pytest.raises(InvalidInputError, match="no attribute 'sort'"):
        searcher.search("Why?", selector=sorts)
    with pytest.raises(ScorerError, match="no attribute 'sort'"):
        run_search(FakeGenerator(), scorer=Sorts())


class Changed(FakeGenerator):
    def __init__(self, change: Callable[[Completion], dict[str, Any]]) -> None:
        super().__init__()
        object.__setattr__(self, "change", change)

    async def generate(self, request: Request) -> list[Completion]:
        completions = await super().generate(request)
        return [replace(c, **self.change(c)) for c in completions]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    "change",
    [
        *[lambda c, v=v: {"cached_tokens": v} for v in (None, "1", 0.5, math.nan, math.inf, -1, [1], np.float64(1))],
        *[lambda c, v=v: {"sampled_tokens": v} for v in (None, "1", np.float64(99), math.nan)],
        lambda c: {"sampled_tokens": float(c.sampled_tokens)},
        lambda c: {"token_ids": [float(i) for i in c.token_ids]},
        *[lambda c, v=v: {"logprobs": [v] * len(c.token_ids)} for v in (math.inf, math.nan, "0", None)],
        *[lambda c, v=v: {"scores": [v] * len(c.token_ids)} for v in ("0", None, 1j, [1.0])],
    ],
)
def test_a_completion_of_no_numbers_names_its_generator(change: Any) -> None:
    with pytest.raises(GeneratorError, match="the generator returned"):
        run_search(Changed(change))


@pytest.mark.parametrize("logit", [math.inf, -math.inf])
def test_an_infinite_logit_is_no_sure_step(logit: float) -> None:
    with pytest.raises(ScorerError, match=f"SPRM head gave {logit} for step 1"):
        run_search(Changed(lambda c: {"scores": [logit] * len(c.token_ids)}))


def test_a_completion_of_numpy_is_as_good_as_one_of_ints() -> None:
    def numpy(completion: Completion) -> dict[str, Any]:
        return {
            "token_ids": np.array(completion.token_ids),
            "logprobs": np.array(completion.logprobs, dtype=np.float32),
            "scores": np.array(completion.scores),
            "sampled_tokens": np.int64(completion.sampled_tokens),
            "cached_tokens": np.int32(1),
        }

    plain, same = run_search(FakeGenerator()), run_search(Changed(numpy))
    assert (same.answer, same.score) == (plain.answer, plain.score)
    assert same.usage.sampled_tokens == json.loads(same.to_json())["usage"]["sampled_tokens"]


def test_the_samples_of_a_whole_round_are_counted_before_they_are_made() -> None:
    def many(tree: Tree) -> Plan:
        yield [Expand(tree.root, n=60_000, until=Until.THOUGHT)] * 2

    def more(tree: Tree) -> Plan:
        yield [Expand(tree.root, n=100_000, until=Until.THOUGHT)] * 100_000

    with pytest.raises(StrategyError, match=r"more.* asked for n=200000 samples at once"):
        run_search(FakeGenerator(), more)
    with pytest.raises(StrategyError, match=r"many.* asked for n=120000 samples at once"):
        run_search(FakeGenerator(), many)
    drawn: list[SearchResult] = [run_search(FakeGenerator(), plan, budget=100) for plan in (many, more)]
    assert [result.usage.sampled_tokens <= 100 for result in drawn] == [True, True]


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        *[("seconds", v, "seconds must be positive") for v in ("5", True, math.nan, [1], object())],
        *[("early_stop", v, "early_stop is a margin") for v in ("0.1", True, math.nan, [1], object())],
        *[("halt", v, r"halt must be a threading\.Event") for v in (True, "now", object())],
        *[("stop_when", v, "stop_when must be callable") for v in (True, 5, "now")],
        *[("repeat", v, "repeat must be True or False") for v in ("no", 1, None, math.nan)],
        *[("keep_tree", v, "keep_tree must be True or False") for v in ("no", 0, None)],
        *[("effort", v, "unknown effort") for v in ("", 0, [], {}, ["low"])],
        *[("selector", v, "unknown selector") for v in ("", 0, [], {}, ["best"])],
        *[("aggregation", v, "unknown aggregation") for v in ("", 0, [], {}, ["min"])],
        *[("extract", v, "unknown extract") for v in (None, [], {}, ["math"])],
        ("max_token", 5, r"unknown option 'max_token' \(did you mean max_tokens\?\)"),
        ("top_p", 0.5, r"unknown option 'top_p' \(say sampling=\{'top_p': \.\.\.\}\)"),
    ],
)
def test_an_option_of_another_kind_is_refused_by_name(searcher: Searcher, option: str, value: Any, says: str) -> None:
    for call in (searcher.search, searcher.search_many):
        with pytest.raises(InvalidInputError, match=says):
            call("Why?", **{option: value})


@pytest.mark.parametrize("value", ["5", True, math.nan, [1], 0])
def test_limits_of_time_are_numbers(value: Any) -> None:
    for name in ("scorer_seconds", "generator_seconds"):
        with pytest.raises(InvalidInputError, match=f"{name} must be positive"):
            Searcher(generator=FakeGenerator(), **{name: value})


@pytest.mark.parametrize("value", [5, True, b"auto", {}, object(), lambda: 1])
def test_what_is_no_engine_and_no_scorer_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"is no Generator: it has no name, tokenizer, .*generate"):
        Searcher(generator=value)
    with pytest.raises(InvalidInputError, match="is no Scorer: it has no score"):
        Searcher(generator=FakeGenerator(), scorer=value)


@pytest.mark.parametrize("value", [True, 1.5, math.nan, "3", np.float64(3)])
@pytest.mark.parametrize(
    "make",
    [
        lambda v: BestOfN(n=v),
        lambda v: BestOfN(wave=v),
        lambda v: StepBeamSearch(width=v),
        lambda v: StepBeamSearch(branching=v),
        lambda v: StepBeamSearch(chunk_tokens=v),
        lambda v: DVTS(subtrees=v),
        lambda v: BestFirst(leaves=v),
    ],
)
def test_counts_of_a_strategy_are_whole_numbers(make: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"of \w+ must be a whole number of at least 1, got"):
        make(value)
    assert repr(make(np.int64(3))) == repr(make(3)), "in a log, the same"


def test_a_class_for_a_handler_or_a_question_of_stopping_is_named(searcher: Searcher) -> None:
    for name in ("on_event", "on_progress", "stop_when"):
        with pytest.raises(InvalidInputError, match=f"{name}=FakeScorer is a class"):
            searcher.search("Why?", **{name: FakeScorer})  # pyright: ignore[reportArgumentType]


def test_step_rules_of_numpy_and_of_nothing(searcher: Searcher) -> None:
    plain = searcher.search("Why?", step_rule={46, 259})
    assert searcher.search("Why?", step_rule={np.int64(46), np.int32(259)}).steps == plain.steps  # pyright: ignore
    with pytest.raises(InvalidInputError, match="a step rule is a text, a set of token ids"):
        searcher.search("Why?", step_rule=b".")
    with pytest.raises(InvalidInputError, match=r"step_rule=<function .* raised ZeroDivisionError"):
        searcher.search("Why?", step_rule=lambda text: 1 / 0 > 0)


def test_a_new_step_rule_for_every_call_fills_no_memory(searcher: Searcher) -> None:
    for _ in range(50):
        searcher.search("Why?", strategy="single", step_rule=lambda text: "a" in text)
    assert len(searcher._segmenters) < 40


@pytest.mark.parametrize("count", [math.nan, "7", None, 1.5])
def test_tokens_are_told_in_whole_numbers(count: Any) -> None:
    class Tells(FakeGenerator):
        async def generate(self, request: Request) -> list[Completion]:
            if request.on_tokens is not None:
                request.on_tokens(count)
            return await super().generate(request)

    with pytest.raises(GeneratorError, match=r"fake.* raised TypeError"):
        run_search(Tells(), on_progress=lambda _: None)


def test_errors_of_ones_own_pass_as_they_are(searcher: Searcher) -> None:
    class OwnError(TTSError):
        pass

    (result,) = searcher.search_many(["Why?"], selector=raising(OwnError("mine")))
    assert type(result.error) is OwnError
