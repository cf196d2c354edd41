"""Many questions through one engine: in order of completion, so many at once, each with its own fate."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest

from tts_search import BestOfN, Completion, Request, Searcher, SearchResult
from tts_search.core.result import StopReason
from tts_search.errors import GeneratorError, InvalidInputError
from tts_search.testing import FakeGenerator, FakeScorer

Many = Callable[..., Iterator[SearchResult]]


def in_async_code(searcher: Searcher, questions: Iterable[str], **options: Any) -> Iterator[SearchResult]:
    """`asearch_many`, one result at a time; leaving it leaves that."""
    loop = asyncio.new_event_loop()
    results: AsyncIterator[SearchResult] = searcher.asearch_many(questions, **options)
    try:
        while True:
            try:
                yield loop.run_until_complete(anext(results))
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(results.aclose())  # pyright: ignore[reportAttributeAccessIssue]
        loop.close()


@pytest.fixture(params=[Searcher.search_many, in_async_code], ids=["search_many", "asearch_many"])
def many(request: pytest.FixtureRequest) -> Many:
    return request.param


@pytest.fixture
def searcher() -> Iterator[Searcher]:
    with Searcher(generator=FakeGenerator(), scorer=FakeScorer()) as searcher:
        yield searcher


class Waiting(FakeGenerator):
    """Answers a question that begins with a z when `others` questions are answered, or never."""

    def __init__(self, others: int | None) -> None:
        super().__init__(script=lambda prefix, seed: 258 if 258 not in prefix else 256)  # </think>, and the end
        state = {"running": 0, "most": 0, "left": others, "cancelled": threading.Semaphore(0), "done": asyncio.Event()}
        object.__setattr__(self, "state", state)

    state: dict[str, Any]

    async def generate(self, request: Request) -> list[Completion]:
        state = self.state
        state["running"] += 1
        state["most"] = max(state["most"], state["running"])
        try:
            if request.prefix[0] == ord("z"):
                await state["done"].wait()
            else:
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            state["cancelled"].release()
            raise
        finally:
            state["running"] -= 1
        if 258 in request.prefix and request.prefix[0] != ord("z") and state["left"]:
            state["left"] -= 1
            if not state["left"]:
                state["done"].set()
        return await super().generate(request)


def test_many_questions_come_as_they_complete(many: Many) -> None:
    with Searcher(generator=Waiting(others=6), scorer=FakeScorer(), concurrency=3) as searcher:
        results = list(many(searcher, ["z0", "z1", *"abcdef"], strategy="single"))
    assert sorted(r.index for r in results) == list(range(8))
    assert {0, 1}.isdisjoint(r.index for r in results[:5]), "they wait for the sixth, which may be read after them"
    assert all(r.question == ["z0", "z1", *"abcdef"][r.index] for r in results)


def test_no_more_than_concurrency_in_flight_and_no_more_are_read(many: Many) -> None:
    """The two that wait keep their places, so the others come one at a time."""
    read, yielded = [], 0

    def source() -> Iterator[str]:
        for question in ["z", "z", *"abcdef"]:
            read.append((question, yielded))
            yield question

    generator = Waiting(others=6)
    with Searcher(generator=generator, scorer=FakeScorer(), concurrency=3) as searcher:
        for _ in many(searcher, source(), strategy="single"):
            yielded += 1
    assert yielded == 8
    assert generator.state["most"] == 3
    assert all(place - answered < 3 for place, (_, answered) in enumerate(read))


def test_leaving_cancels_what_is_in_flight(many: Many) -> None:
    generator = Waiting(others=None)
    with Searcher(generator=generator, scorer=FakeScorer(), concurrency=3) as searcher:
        results = many(searcher, ["z", "z", *"abcdef"], strategy="single")
        next(results)
        results.close()  # pyright: ignore[reportAttributeAccessIssue]
        assert all(generator.state["cancelled"].acquire(timeout=60) for _ in range(2))


def test_what_is_known_of_a_question_that_failed(many: Many, searcher: Searcher) -> None:
    options: dict[str, Any] = {"strategy": BestOfN(n=2), "selector": "majority", "seed": 5, "budget": 70}
    good, bad = sorted(many(searcher, ["fine", " "], **options), key=lambda r: r.index)
    assert (good.index, bad.index, bad.question) == (0, 1, " ")
    assert bad.stop_reason is StopReason.ERROR
    for result in (good, bad):
        told = (result.strategy, result.selector, result.model, result.seed, result.budget)
        assert told == ("BestOfN(n=2)", "majority", "fake", 5, 70)


def test_many_equals_one_by_one(searcher: Searcher) -> None:
    questions = [f"q{i}" for i in range(8)]
    together = {r.index: r.answer for r in searcher.search_many(questions, seed=5)}
    assert together == {i: searcher.search(q, seed=5).answer for i, q in enumerate(questions)}


def test_a_failed_question_is_data(searcher: Searcher) -> None:
    results = {r.index: r for r in searcher.search_many(["fine", " ", "also fine"])}
    assert results[1].stop_reason is StopReason.ERROR
    assert isinstance(results[1].error, InvalidInputError)
    assert results[0].error is None
    assert results[2].thinking, "the answer of a fake may be empty"
    assert "InvalidInputError: the question is empty" in results[1].to_json()


def test_a_dead_engine_fails_its_question_and_only_that() -> None:
    class Dies(FakeGenerator):
        async def generate(self, request: Request) -> list[Completion]:
            if request.prefix[0] == ord("x"):
                raise ConnectionError("gone")
            return await super().generate(request)

    with Searcher(generator=Dies(), scorer=FakeScorer()) as searcher:
        with pytest.raises(GeneratorError, match="'fake' raised ConnectionError: gone"):
            searcher.search("x")
        assert [r.index for r in searcher.search_many(["x", "y"]) if r.error] == [0]
