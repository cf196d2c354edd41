"""One bad thing harms one question: whatever a piece of the user's does, it is named, and the others go on."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tts_search import MCTS, BestOfN, Completion, Expand, Plan, Request, Searcher, SearchResult, Tree
from tts_search.core.events import Event, Failed, Started
from tts_search.errors import (
    GeneratorError,
    InvalidInputError,
    ScorerError,
    SearchCancelledError,
    StrategyError,
    TTSError,
)
from tts_search.testing import FakeGenerator, FakeScorer, run_search

BAD = "Bad?"
GOOD = ["One?", "Two?", "Three?"]


@pytest.fixture
def searcher() -> Iterator[Searcher]:
    with Searcher(generator=FakeGenerator(), scorer=FakeScorer(), max_tokens=100, answer_tokens=20) as searcher:
        yield searcher


def many(searcher: Searcher, questions: list[Any], **options: Any) -> dict[int, SearchResult]:
    return {result.index: result for result in searcher.search_many(questions, **options)}


@pytest.mark.parametrize("question", [None, math.nan, 7, b"Why?", {"role": "user"}, object(), [None], [[]], ("",)])
def test_a_question_that_is_none_harms_itself_alone(searcher: Searcher, question: Any) -> None:
    results = many(searcher, [GOOD[0], question, GOOD[1]])
    assert isinstance(results[1].error, InvalidInputError)
    assert results[0].error is results[2].error is None
    results[1].to_json()


def exits(*_: Any) -> Any:
    raise SystemExit("out")


def raises(*_: Any) -> Any:
    raise KeyError("x")


@pytest.mark.parametrize("bad", [exits, raises])
@pytest.mark.parametrize(
    ("option", "error", "says"),
    [
        ("extract", InvalidInputError, "extract="),
        ("aggregation", InvalidInputError, "aggregation="),
        ("selector", InvalidInputError, "selector '"),
        ("on_progress", InvalidInputError, "on_event="),
        ("on_event", InvalidInputError, "on_event="),
        ("stop_when", InvalidInputError, "stop_when="),
        ("strategy", StrategyError, "strategy <function"),
    ],
)
def test_what_raises_is_named(searcher: Searcher, option: str, error: type, says: str, bad: Callable[..., Any]) -> None:
    options: dict[str, Any] = {"selector": "majority", "strategy": BestOfN(n=4, wave=2), option: bad}
    results = many(searcher, GOOD, **options)
    assert len(results) == 3
    for result in results.values():
        assert isinstance(result.error, error)
        assert says in str(result.error)
        assert "SystemExit: out" in str(result.error) or "KeyError: 'x'" in str(result.error)
    assert searcher.search("And now?").error is None


@pytest.mark.parametrize(
    ("chosen", "says"),
    [(None, "chose None"), (0.5, "chose 0.5"), (99, "chose 99"), (-1, "chose -1"), ("0", "chose '0'")],
)
def test_a_selector_that_returns_nonsense(chosen: Any, says: str) -> None:
    def odd(candidates: Any) -> Any:
        return chosen

    with pytest.raises(InvalidInputError, match=f"selector 'odd' {says}"):
        run_search(FakeGenerator(), selector=odd)


def test_numpy_is_as_good_as_ints(searcher: Searcher) -> None:
    def last(candidates: Any) -> Any:
        return np.int64(len(candidates) - 1)

    result = searcher.search("Why?", seed=np.int64(3), budget=np.int32(200), selector=last, strategy=BestOfN(n=3))  # pyright: ignore
    assert (result.seed, result.budget) == (3, 200)
    assert type(result.seed) is type(result.budget) is int
    result.to_json()
    for wrong in (1.5, "3", None, True):
        with pytest.raises(InvalidInputError, match="seed must be a whole number"):
            searcher.search("Why?", seed=wrong)  # pyright: ignore


@pytest.mark.parametrize("odd", [5, None, "ab", [5], [None], [Expand(None)], [Expand("root")]])  # pyright: ignore
def test_a_strategy_that_yields_nonsense(odd: Any) -> None:
    def strange(tree: Tree) -> Any:
        yield odd

    with pytest.raises(StrategyError, match=r"strategy <function test_a_strategy_that_yields_nonsense.*strange"):
        run_search(FakeGenerator(), strange)


def test_a_node_of_another_tree() -> None:
    other = run_search(FakeGenerator(), BestOfN(n=1)).tree
    assert other is not None

    def strays(tree: Tree) -> Plan:
        yield [Expand(other.root)]

    with pytest.raises(StrategyError, match="no node of this tree"):
        run_search(FakeGenerator(), strays)


def test_budgets_are_asked_before_anything_is_made() -> None:
    result = run_search(FakeGenerator(), BestOfN(n=3_000_000), budget=100)
    assert result.usage.sampled_tokens <= 100
    with pytest.raises(StrategyError, match="asked for n=1000000000 samples at once"):
        run_search(FakeGenerator(), BestOfN(n=10**9))


def test_a_model_that_ends_at_once_does_not_eat_the_budget() -> None:
    ends = FakeGenerator(script=lambda prefix, seed: 256)
    for strategy in (MCTS(), BestOfN(n=5000)):
        result = run_search(ends, strategy, budget=4000)
        assert str(result.stop_reason) == "empty"
        assert result.usage.sampled_tokens <= 100 if isinstance(strategy, MCTS) else 4000


class Broken(FakeGenerator):
    """For the bad question does what `bad` says instead of what it should."""

    def __init__(self, bad: Callable[[list[Completion]], Any]) -> None:
        super().__init__(scores=False)
        object.__setattr__(self, "bad", bad)

    async def generate(self, request: Request) -> Any:
        completions = await super().generate(request)
        if bytes(i for i in request.prefix if i < 256).startswith(BAD.encode()):
            answer = self.bad(completions)  # pyright: ignore[reportAttributeAccessIssue]
            return await answer if asyncio.iscoroutine(answer) else answer
        return completions


def changed(**changes: Any) -> Callable[[list[Completion]], Any]:
    return lambda completions: [replace(one, **changes) for one in completions]


def cancels(_: Any) -> Any:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (lambda _: None, "returned None"),
        (lambda _: [], "0 completions"),
        (lambda _: [None], r"returned \[None\]"),
        (lambda _: 7, "returned 7"),
        (changed(token_ids=(5000,), logprobs=(-1.0,), sampled_tokens=1), "token 5000, and its vocabulary has 260"),
        (changed(token_ids=(-1,), logprobs=(-1.0,), sampled_tokens=1), "token -1"),
        (changed(token_ids=("a",), logprobs=(-1.0,), sampled_tokens=1), "returned Completion"),
        (changed(token_ids=(None,), logprobs=(-1.0,), sampled_tokens=1), "returned Completion"),
        (changed(logprobs=7), "returned Completion"),
        (cancels, "CancelledError"),
        (exits, "SystemExit: out"),
        (raises, "KeyError"),
        (lambda _: asyncio.sleep(3600), "told nothing for 0.3 seconds"),
    ],
)
def test_an_engine_that_breaks_its_contract_harms_one_question(bad: Callable[..., Any], says: str) -> None:
    with Searcher(generator=Broken(bad), scorer=FakeScorer(), generator_seconds=0.3, max_tokens=50) as searcher:
        results = many(searcher, [GOOD[0], BAD, GOOD[1]], strategy=BestOfN(n=2))
        assert isinstance(results[1].error, GeneratorError), results[1]
        with pytest.raises(GeneratorError, match=says):
            raise results[1].error
        assert results[0].error is results[2].error is None


def test_an_engine_whose_own_task_exits_stops_nobody() -> None:
    async def leaves() -> None:
        raise SystemExit("gone")

    class Spawns(FakeGenerator):
        async def generate(self, request: Request) -> list[Completion]:
            asyncio.ensure_future(leaves()).add_done_callback(lambda task: task.exception())
            await asyncio.sleep(0.01)
            return await super().generate(request)

    with Searcher(generator=Spawns(), scorer=FakeScorer(), max_tokens=50) as searcher:
        assert all(result.error is None for result in many(searcher, GOOD).values())


def test_a_scorer_that_exits_or_cancels_is_named(searcher: Searcher) -> None:
    class Inline:
        inline = True

        def __init__(self, error: BaseException) -> None:
            self.error = error

        def score(self, trajectories: Any) -> Any:
            raise self.error

    for error in (SystemExit("out"), asyncio.CancelledError()):
        with (
            Searcher(generator=FakeGenerator(), scorer=Inline(error), max_tokens=50) as searching,
            pytest.raises(ScorerError, match=type(error).__name__),
        ):
            searching.search("Why?", strategy="single")


def test_the_handler_of_events_hears_of_its_own_failure_no_more(searcher: Searcher) -> None:
    heard: list[Event] = []

    def handler(event: Event) -> None:
        heard.append(event)
        if not isinstance(event, Started):
            raise ValueError("enough")

    with pytest.raises(InvalidInputError, match="ValueError: enough"):
        searcher.search("Why?", on_event=handler)
    assert len(heard) == 2
    assert not any(isinstance(event, Failed) for event in heard)


def test_classes_are_no_objects(searcher: Searcher) -> None:
    with pytest.raises(InvalidInputError, match=r"strategy=MCTS is a class: give an object of it, MCTS\(\.\.\.\)"):
        searcher.search("Why?", strategy=MCTS, budget=100)  # pyright: ignore
    with pytest.raises(InvalidInputError, match="scorer=FakeScorer is a class"):
        Searcher(generator=FakeGenerator(), scorer=FakeScorer)  # pyright: ignore
    with pytest.raises(InvalidInputError, match="generator=FakeGenerator is a class"):
        Searcher(generator=FakeGenerator)  # pyright: ignore


def test_closing_under_a_running_batch_ends_it() -> None:
    class Slow(FakeGenerator):
        async def generate(self, request: Request) -> list[Completion]:
            await asyncio.sleep(3600)
            return []

    searcher = Searcher(generator=Slow(), scorer=FakeScorer())
    ended: list[BaseException] = []

    def consume() -> None:
        try:
            list(searcher.search_many(GOOD))
        except TTSError as error:
            ended.append(error)

    thread = threading.Thread(target=consume)
    thread.start()
    while not searcher._loop._loop:  # it has begun
        thread.join(0.01)
    searcher.close()
    thread.join(60)
    assert not thread.is_alive()
    (error,) = ended  # it waited for a result, or was about to
    assert isinstance(error, SearchCancelledError) or "this Searcher is closed" in str(error)


def test_what_comes_while_it_closes_is_refused() -> None:
    closing, free = threading.Event(), threading.Event()

    class Lingering(FakeGenerator):
        async def aclose(self) -> None:
            closing.set()
            await asyncio.to_thread(free.wait, 60)

    searcher = Searcher(generator=Lingering(), scorer=FakeScorer())
    assert searcher.search("Why?").answer
    thread = threading.Thread(target=searcher.close)
    thread.start()
    assert closing.wait(60)
    try:
        with pytest.raises(InvalidInputError, match="this Searcher is closed"):
            searcher.search("Why?")
        searcher.close()  # it is at it
    finally:
        free.set()
        thread.join(60)
    assert not thread.is_alive()


def in_a_fork(searcher: Searcher, answers: Any) -> None:
    try:
        searcher.search("Why?")
        answers.send("answered")
    except InvalidInputError as error:
        searcher.close()
        answers.send(str(error))
    os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_used_searcher_refuses_a_fork(searcher: Searcher) -> None:
    searcher.search("Why?")
    context: Any = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=in_a_fork, args=(searcher, there))
    child.start()
    assert here.poll(60)
    assert "cannot be used in its fork" in here.recv()
    child.join(60)
    assert searcher.search("Still here?").error is None
