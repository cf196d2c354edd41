"""A `Searcher` where people use it: its own handlers, closed ones, many questions that cannot be read to their end."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tts_search import BestOfN, Completion, Request, Searcher, SearchResult, api
from tts_search.core.events import Event
from tts_search.errors import GeneratorError, InvalidInputError, TTSError
from tts_search.testing import FakeGenerator, FakeScorer, run_search


@pytest.fixture
def searcher() -> Iterator[Searcher]:
    with Searcher(generator=FakeGenerator(), scorer=FakeScorer(), max_tokens=60, answer_tokens=20) as searcher:
        yield searcher


@pytest.mark.parametrize(
    "use",
    [
        lambda searcher: searcher.search("Inner?"),
        lambda searcher: list(searcher.search_many(["Inner?"])),
        lambda searcher: searcher.close(),
    ],
)
@pytest.mark.parametrize("option", ["on_event", "stop_when", "selector", "extract", "aggregation", "strategy"])
def test_it_does_not_wait_for_itself(searcher: Searcher, option: str, use: Callable[[Searcher], Any]) -> None:
    options: dict[str, Any] = {"strategy": BestOfN(n=2, wave=1), option: lambda *_: use(searcher)}
    with pytest.raises(TTSError, match="at work in this very thread"):
        searcher.search("Why?", **options)
    assert searcher.search("And now?").error is None


def test_a_handler_may_use_another_searcher(searcher: Searcher) -> None:
    answers: list[SearchResult] = []

    def asks(_: Event) -> None:
        if not answers:
            with Searcher(generator=FakeGenerator(), scorer=FakeScorer(), max_tokens=60) as other:
                answers.append(other.search("Inner?"))

    searcher.search("Why?", on_event=asks)
    assert len(answers) == 1


def test_a_closed_one_says_so() -> None:
    searcher = Searcher(generator=FakeGenerator(), scorer=FakeScorer(), concurrency=2)
    many = searcher.search_many(["One?", "Two?", "Three?", "Four?"], strategy="single")
    next(many)
    later = searcher.search_many(["One?"])
    searcher.close()
    searcher.close()
    for use in (lambda: searcher.search("Why?"), lambda: list(many), lambda: list(later)):
        with pytest.raises(InvalidInputError, match="this Searcher is closed: make a new one"):
            use()
    unused = Searcher(generator=FakeGenerator(), scorer=FakeScorer())
    unused.close()
    with pytest.raises(InvalidInputError, match="closed"):
        asyncio.run(unused.asearch("Why?"))


def test_an_engine_that_does_not_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stays(FakeGenerator):
        async def aclose(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(api, "ENGINE_CLOSING_SECONDS", 0.05)
    searcher = Searcher(generator=Stays(), scorer=FakeScorer())
    assert searcher.search("Why?").error is None
    with pytest.raises(GeneratorError, match=r"'fake' was not closed within 0\.05 seconds"):
        searcher.close()


@pytest.mark.parametrize("one", ["Why?", b"Why?", {"role": "user", "content": "Why?"}, None, 7, object()])
def test_one_question_is_not_many(searcher: Searcher, one: Any) -> None:
    """The letters of a text would be answered one by one."""
    with pytest.raises(InvalidInputError, match="many questions are a list"):
        searcher.search_many(one)

    async def asked() -> None:
        async for _ in searcher.asearch_many(one):
            pass

    with pytest.raises(InvalidInputError, match="many questions are a list"):
        asyncio.run(asked())


@pytest.mark.parametrize("concurrency", [1, 2, 64])
def test_what_was_read_is_answered_before_the_reader_fails(concurrency: int) -> None:
    def lines() -> Iterator[str]:
        yield from ("One?", "Two?", "Three?")
        raise UnicodeError("line 4 is no text")

    answered: list[int] = []
    with Searcher(generator=FakeGenerator(), scorer=FakeScorer(), concurrency=concurrency) as searcher:
        with pytest.raises(UnicodeError, match="line 4"):
            answered.extend(result.index for result in searcher.search_many(lines(), strategy="single"))
        assert sorted(answered) == [0, 1, 2]
        assert searcher.search("And now?").error is None


def test_a_question_with_other_keys_is_json_all_the_same(searcher: Searcher) -> None:
    turns: Any = [{"role": "user", "content": "Why?", "id": np.int64(4), "of": object(), "at": np.float32(0.5)}]
    question = json.loads(searcher.search(turns, strategy="single").to_json())["question"]
    assert (question[0]["id"], question[0]["at"]) == (4, 0.5)
    assert question[0]["of"].startswith("<object")


def test_an_error_that_cannot_speak_is_json_all_the_same(searcher: Searcher) -> None:
    class MuteError(TTSError):
        def __str__(self) -> str:
            raise ValueError

    def mute(_: Any) -> int:
        raise MuteError

    (result,) = searcher.search_many(["Why?"], selector=mute)
    assert "MuteError" in result.to_json()


def test_results_are_copied_whole(searcher: Searcher) -> None:
    class Carries:
        """An aggregation whose carry no pickle takes."""

        def extend(self, carry: Any, scores: Any) -> Any:
            return lambda: scores

        def value(self, carry: Any) -> float:
            return 0.5

        def __call__(self, scores: Any) -> float:
            return 0.5

    result = searcher.search("Why?", strategy="beam", aggregation=Carries(), seed=2**80)  # pyright: ignore
    for again in (copy.copy(result), copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert again == result
        assert again.to_json() == result.to_json()
        assert again.tree is not None
        assert result.tree is not None
        assert [again.tree.split(node) for node in again.tree] == [result.tree.split(node) for node in result.tree]


def test_numbers_of_numpy_in_a_completion_travel() -> None:
    class Numpy(FakeGenerator):
        async def generate(self, request: Request) -> list[Completion]:
            return [replace(c, cached_tokens=np.int64(1)) for c in await super().generate(request)]

    result = run_search(Numpy())
    assert pickle.loads(pickle.dumps(result)).to_json() == result.to_json()


def test_a_probability_that_underflowed_is_json_all_the_same() -> None:
    class Sure(FakeGenerator):
        async def generate(self, request: Request) -> list[Completion]:
            completions = await super().generate(request)
            return [replace(c, logprobs=[-math.inf] * len(c.token_ids)) for c in completions]

    def refused(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    told = json.loads(run_search(Sure()).to_json(), parse_constant=refused)
    assert told["candidates"][0]["mean_logprob"] == "-Infinity"
