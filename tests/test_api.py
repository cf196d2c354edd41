"""search(), Searcher and their async twins, with a fake engine."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tts_search import BestOfN, Completion, Options, Repeat, Request, Searcher, StepBeamSearch, asearch, search
from tts_search.errors import GeneratorError, InvalidInputError, ModelNotFoundError
from tts_search.result import StopReason
from tts_search.testing import FakeGenerator, FakeScorer


@pytest.fixture
def searcher() -> Iterator[Searcher]:
    with Searcher(generator=FakeGenerator(), scorer=FakeScorer()) as searcher:
        yield searcher


def test_importing_the_package_imports_no_engine() -> None:
    code = "import sys, tts_search; sys.exit(any(m in sys.modules for m in ('torch', 'vllm', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_exist() -> None:
    import tts_search

    assert all(getattr(tts_search, name) is not None for name in tts_search.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tts_search.nothing  # noqa: B018


@pytest.mark.parametrize(("effort", "k"), [("low", 2), ("medium", 8), ("high", 32)])
def test_efforts_are_best_of_2_8_32(searcher: Searcher, effort: Any, k: int) -> None:
    result = searcher.search("Why?", effort=effort)
    assert result.strategy == repr(BestOfN(n=k))
    assert len(result.candidates) == k


def test_medium_is_the_default(searcher: Searcher) -> None:
    assert searcher.search("Why?").strategy == repr(BestOfN(n=8))


def test_a_text_is_one_user_turn(searcher: Searcher) -> None:
    text = searcher.search("Why?", strategy="single")
    chat = searcher.search([{"role": "user", "content": "Why?"}], strategy="single")
    assert text.answer == chat.answer
    assert len(text.candidates) == 1


def test_one_call_functions() -> None:
    result = search("Why?", generator=FakeGenerator(), scorer=FakeScorer(), effort="low", seed=3)
    twin = asyncio.run(asearch("Why?", generator=FakeGenerator(), scorer=FakeScorer(), effort="low", seed=3))
    assert result.answer == twin.answer
    assert (result.seed, result.model) == (3, "fake")


def test_works_inside_a_running_loop(searcher: Searcher) -> None:
    async def notebook() -> tuple[str, str]:
        return searcher.search("Why?").answer, (await searcher.asearch("Why?")).answer

    here, there = asyncio.run(notebook())
    assert here == there


def test_many_questions_come_as_they_complete() -> None:
    class Slow(FakeGenerator):
        async def generate(self, request: Request) -> list[Completion]:
            if request.prefix[0] == ord("a"):
                await asyncio.sleep(0.3)
            return await super().generate(request)

    with Searcher(generator=Slow(), scorer=FakeScorer(), concurrency=3) as searcher:
        results = list(searcher.search_many(f"{'a' if i == 0 else 'b'}{i}" for i in range(6)))
    assert sorted(r.index for r in results) == list(range(6))
    assert results[-1].index == 0
    assert all(r.question.endswith(str(r.index)) for r in results)


def test_many_equals_one_by_one(searcher: Searcher) -> None:
    questions = [f"q{i}" for i in range(8)]
    together = {r.index: r.answer for r in searcher.search_many(questions, seed=5)}
    assert together == {i: searcher.search(q, seed=5).answer for i, q in enumerate(questions)}


def test_async_many(searcher: Searcher) -> None:
    async def collect() -> list[int]:
        return [r.index async for r in searcher.asearch_many(["a", "b", "c"])]

    assert sorted(asyncio.run(collect())) == [0, 1, 2]


def test_a_failed_question_is_data(searcher: Searcher) -> None:
    results = {r.index: r for r in searcher.search_many(["fine", " ", "also fine"])}
    assert results[1].stop_reason is StopReason.ERROR
    assert isinstance(results[1].error, InvalidInputError)
    assert results[0].error is None
    assert results[2].answer
    assert "InvalidInputError: the question is empty" in results[1].to_json()


def test_no_more_than_concurrency_in_flight_and_leaving_cancels() -> None:
    running, most, cancelled = 0, 0, 0

    class Counting(FakeGenerator):
        async def generate(self, request: Request) -> list[Completion]:
            nonlocal running, most, cancelled
            running += 1
            most = max(most, running)
            try:
                await asyncio.sleep(10 if request.prefix[0] == ord("z") else 0.01)
            except asyncio.CancelledError:
                cancelled += 1
                raise
            finally:
                running -= 1
            return await super().generate(request)

    with Searcher(generator=Counting(), scorer=FakeScorer(), concurrency=3) as searcher:
        many = searcher.search_many(["z", "z", *"abcdef"], strategy="single")
        next(many)
        many.close()  # type: ignore[attr-defined]
        time.sleep(0.1)
    assert most == 3
    assert cancelled >= 2
    assert running == 0


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ([], "non-empty list"),
        ([{"role": "user"}], "content"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "user's"),
        ([{"role": "user", "content": ["image"]}], "must be a string"),
        ("\ud800", "not valid Unicode"),
    ],
)
def test_bad_questions(searcher: Searcher, question: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        searcher.search(question)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"budget": 0}, "budget must be a whole number of at least 1, got 0"),
        ({"budget": -5}, "got -5"),
        ({"budget": 1.5}, "got 1.5"),
        ({"budget": True}, "got True"),
        ({"strategy": "magic"}, "unknown strategy 'magic': choose from best_of_n, single, beam, dvts, mcts"),
        ({"effort": "extreme"}, "unknown effort 'extreme': choose from low, medium, high"),
        ({"effort": "low", "strategy": "single"}, "not both"),
        ({"selector": "worst"}, "unknown selector 'worst'"),
        ({"strategy": "mcts"}, "give it a budget"),
        ({"seconds": 0}, "seconds must be positive"),
        ({"early_stop": 2.0}, "margin in"),
        ({"early_stop": 0.1, "selector": "logprob"}, "'logprob'"),
        ({"temperature": 1.0}, "unknown option 'temperature'"),
    ],
)
def test_bad_options_are_refused_before_any_question(searcher: Searcher, options: Options, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        searcher.search("Why?", **options)
    with pytest.raises(InvalidInputError, match=says):
        searcher.search_many(["Why?"], **options)


def test_no_samples_are_no_search() -> None:
    with pytest.raises(InvalidInputError, match="n=0"):
        BestOfN(n=0)


def test_without_a_scorer_the_majority_decides() -> None:
    with Searcher(generator=FakeGenerator(scores=False)) as searcher:
        result = searcher.search("Why?")
        assert (result.selector, result.score) == ("majority", None)
        assert all(step.score is None for step in result.steps)
        with pytest.raises(InvalidInputError, match=r"needs step scores.*selector='majority'"):
            searcher.search("Why?", selector="best")
        for strategy in ("beam", "dvts", "mcts", "best_first", Repeat(StepBeamSearch())):
            with pytest.raises(InvalidInputError, match=r"where step scores are high.*fit-head.*'best_of_n'"):
                searcher.search("Why?", strategy=strategy, budget=50)
    with pytest.raises(InvalidInputError, match="no SPRM head"):
        Searcher(generator=FakeGenerator(scores=False), scorer="sprm")


def test_unknown_models_and_engines() -> None:
    with pytest.raises(ModelNotFoundError, match="/no/such/folder"):
        Searcher("/no/such/folder")
    with pytest.raises(InvalidInputError, match="unknown generator 'llama'"):
        Searcher(generator="llama")


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


def test_results_are_json(searcher: Searcher) -> None:
    result = searcher.search([{"role": "user", "content": "Why? é"}], budget=500)
    read = json.loads(result.to_json())
    assert read["question"] == [{"role": "user", "content": "Why? é"}]
    assert read["budget"] == 500
    assert read["usage"]["sampled_tokens"] == result.usage.sampled_tokens
    assert read["stop_reason"] == "completed"


def test_closing_twice_is_harmless_and_leaves_no_thread() -> None:
    searcher = Searcher(generator=FakeGenerator(), scorer=FakeScorer())
    searcher.search("Why?")
    searcher.close()
    searcher.close()
    time.sleep(0.1)
    assert not [t for t in threading.enumerate() if t.name == "tts-search"]


def test_from_many_threads_at_once(searcher: Searcher) -> None:
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(searcher.search("Why?").answer)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1
