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

from tts_search import (
    BestOfN,
    Completion,
    Options,
    Repeat,
    Request,
    Sampling,
    Searcher,
    StepBeamSearch,
    asearch,
    search,
)
from tts_search.core.result import StopReason
from tts_search.errors import InvalidInputError, ModelNotFoundError
from tts_search.scorers.engine_sprm import EngineSPRM
from tts_search.segmentation import Exact
from tts_search.sprm.config import SPRMConfig
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


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ([], "non-empty list"),
        ([{"role": "user"}], "content"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "user's"),
        ([{"role": "user", "content": ["image"]}], "cannot be read"),
        ([{"role": "user", "content": "a", "weight": float("nan")}], "JSON has no words for.*float"),
        ([{"role": "system", "content": 7}, {"role": "user", "content": "a"}], "must be a string"),
        ([{"role": "system", "content": "\ud800"}, {"role": "user", "content": "a"}], "not valid Unicode"),
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
        ({"early_stop": -0.1}, "margin in"),
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
    with pytest.raises(InvalidInputError, match=r"n of BestOfN must be .* at least 1, got 0"):
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


# What a call says is what happens.


def test_the_ways_to_end_a_search_are_passed_on(searcher: Searcher) -> None:
    class Hanging(FakeGenerator):
        async def generate(self, request: Request) -> list[Completion]:
            if len(request.stop_ids) > 1:  # all but an answer
                await asyncio.Event().wait()
            return await super().generate(request)

    called = threading.Event()
    called.set()
    with Searcher(generator=Hanging(), scorer=FakeScorer()) as hanging:
        assert hanging.search("Why?", strategy="mcts", halt=called).stop_reason is StopReason.HALTED
        assert hanging.search("Why?", strategy="mcts", seconds=0.01).stop_reason is StopReason.TIME
    stopped = searcher.search("Why?", strategy=BestOfN(n=8, wave=1), stop_when=lambda tree: len(tree) > 3)
    assert (stopped.stop_reason, len(stopped.candidates)) == (StopReason.EARLY, 3)
    early = searcher.search("Why?", strategy=BestOfN(n=8, wave=1), early_stop=1.0)
    assert (early.stop_reason, len(early.candidates)) == (StopReason.EARLY, 1)
    seen: list[object] = []
    assert searcher.search("Why?", strategy="single", on_progress=seen.append, early_stop=0).answer is not None
    assert seen


def test_without_any_of_them_an_endless_search_is_refused(searcher: Searcher) -> None:
    for strategy in ("mcts", "best_first", Repeat(BestOfN())):
        with pytest.raises(InvalidInputError, match="searches until it is stopped: give it a budget"):
            searcher.search("Why?", strategy=strategy)


@pytest.mark.parametrize(
    ("strategy", "followed"),
    [
        ("best_of_n", "Repeat(strategy=BestOfN(n=8))"),
        (BestOfN(n=3), "Repeat(strategy=BestOfN(n=3))"),
        ("single", "BestOfN(n=1)"),
        (BestOfN(n=1), "BestOfN(n=1)"),
        ("beam", "Repeat(strategy=StepBeamSearch("),
        (StepBeamSearch(), "Repeat(strategy=StepBeamSearch("),
        ("dvts", "Repeat(strategy=DVTS("),
        ("mcts", "MCTS("),
        (Repeat(BestOfN()), "Repeat(strategy=BestOfN(n=8))"),
        ("best_first", "BestFirst("),
    ],
)
def test_what_is_repeated_is_said_and_names_are_as_good_as_objects(
    searcher: Searcher, strategy: Any, followed: str
) -> None:
    assert searcher.search("Why?", strategy=strategy, budget=60, repeat=True).strategy.startswith(followed)
    once = searcher.search("Why?", strategy=strategy, budget=60).strategy
    assert once.startswith("Repeat(") == isinstance(strategy, Repeat), "a budget alone is a cap"


def test_a_searcher_keeps_its_own_settings() -> None:
    generator = FakeGenerator(close=0.0, step=0.4, sampling=Sampling(temperature=0.1))
    options: dict[str, Any] = {"max_tokens": 20, "answer_tokens": 7, "extract": lambda answer: answer[:1]}
    with Searcher(generator=generator, scorer=FakeScorer(), step_rule="a", aggregation="min", **options) as searcher:
        result = searcher.search("Why?", strategy="single", seed=3)
        settings = searcher.settings
    assert result.seed == 3
    assert {request.sampling for request in generator.requests} == {Sampling(temperature=0.1)}
    assert generator.requests[0].max_tokens == 20
    assert generator.requests[-1].max_tokens == 7
    assert [candidate.vote for candidate in result.candidates] == [result.answer[:1]]
    assert all(step.text.endswith("a") for step in result.steps)
    assert result.score == min(step.score or 0.0 for step in result.steps)
    assert settings == {
        "model": "fake",
        "scorer": "FakeScorer(value=None)",
        "aggregation": "minimum",
        "step_rule": "Contains(text='a')",
        "sampling": {"temperature": 0.1, "top_p": 0.95, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
        "max_tokens": 20,
        "answer_tokens": 7,
        "extract": "test_a_searcher_keeps_its_own_settings.<locals>.<lambda>",
    }
    greedy = FakeGenerator(sampling=Sampling(temperature=0.1))
    with Searcher(generator=greedy, scorer=Unwritten(), sampling=Sampling(temperature=0.0)) as searcher:
        searcher.search("Why?", strategy="single")
        assert searcher.settings["scorer"] == "Unwritten", "an address would make every run another"
    assert {request.sampling.temperature for request in greedy.requests} == {0.0}


class Unwritten(EngineSPRM):
    """Has no `repr` of its own."""


def test_a_head_says_how_it_is_read() -> None:
    head = SPRMConfig(hidden_size=1, step_rule=Exact("\n\n"), aggregation="min")
    with Searcher(generator=FakeGenerator(head_config=head)) as searcher:
        assert (searcher.settings["step_rule"], searcher.settings["aggregation"]) == ("Exact(text='\\n\\n')", "minimum")
    with Searcher(generator=FakeGenerator(head_config=head), step_rule="a", aggregation="mean") as searcher:
        assert (searcher.settings["step_rule"], searcher.settings["aggregation"]) == ("Contains(text='a')", "mean")
    with Searcher(generator=FakeGenerator(scores=False)) as searcher:
        assert searcher.settings["aggregation"] == "geometric_mean"


@pytest.mark.parametrize("name", ["max_tokens", "answer_tokens", "concurrency"])
def test_limits_are_whole_numbers_of_at_least_1(name: str) -> None:
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(InvalidInputError, match=f"{name} must be a whole number of at least 1, got {wrong}"):
            Searcher(generator=FakeGenerator(), **{name: wrong})  # pyright: ignore[reportArgumentType]
    with Searcher(generator=FakeGenerator(), **{name: 1}) as searcher:  # pyright: ignore[reportArgumentType]
        assert searcher.search("Why?", strategy="single", budget=50).candidates
