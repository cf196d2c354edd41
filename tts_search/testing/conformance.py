"""Conformance suites for generators, scorers and strategies: subclass one in pytest, say how to make yours, run.

    from tts_search.testing.conformance import GeneratorConformance

    class TestMyGenerator(GeneratorConformance):
        def make_generator(self):
            return MyGenerator("a-small-model")

A suite knows the contract of `tts_search.protocols` and nothing of the implementation. It needs pytest and no plug-in.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import pytest

from tts_search.api import Searcher
from tts_search.errors import GeneratorError, TTSError
from tts_search.protocols import Completion, Generator, Request, Sampling, Scorer, Strategy
from tts_search.result import SearchResult
from tts_search.testing.fakes import FakeGenerator, FakeScorer
from tts_search.tree import Trajectory

T = TypeVar("T")

TEXTS = (
    "",
    "Add 13 and 9.\n\nThat is 22.\n\n",
    "naïve café, 你好,世界。 Ελληνικά, русский, עברית",
    "👩‍🔬 emoji, tabs\tand\r\nline breaks\n\n\n    indented(code) = {'x': 1}",
)


class Engine:
    """A generator and the event loop that it lives in, shared by the tests of one class."""

    def __init__(self, make: Callable[[], Generator], timeout_seconds: float) -> None:
        self._make = make
        self._timeout_seconds = timeout_seconds
        self._loop = asyncio.new_event_loop()
        self._generator: Generator | None = None

    @property
    def generator(self) -> Generator:
        """The generator, made on first use."""
        if self._generator is None:
            self._generator = self._make()
        return self._generator

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end; a hang fails the test."""
        return self._loop.run_until_complete(asyncio.wait_for(work, self._timeout_seconds))

    def generate(self, request: Request) -> Sequence[Completion]:
        """One call, alone."""

        async def call() -> Sequence[Completion]:
            return await self.generator.generate(request)

        return self.run(call())

    def forget(self) -> Generator:
        """Hand the generator over: the next test makes a new one."""
        generator, self._generator = self.generator, None
        return generator

    def close(self) -> None:
        """Close both."""
        if self._generator is not None:
            self.run(self._generator.aclose())
        self._loop.close()


class GeneratorConformance:
    """What every `Generator` must do. Override `make_generator`, and the attributes where they do not fit."""

    question = "Using the numbers 4, 6, 9 and 13, make 87."
    max_tokens = 24
    timeout_seconds = 120.0
    score_tolerance = 1e-3
    """In the head's logit, between a completion in one go and the same one in pieces."""
    seeded = True
    """Whether equal seeds give equal tokens: False for endpoints that do not honour seeds."""
    exact = True
    """Whether greedy tokens do not depend on what else is in flight: False where bfloat16 rounding may tip a tie."""

    def make_generator(self) -> Generator:
        """A new generator, of a model small enough to answer in seconds."""
        raise NotImplementedError("override make_generator")

    @pytest.fixture(scope="class")
    def engine(self) -> Iterator[Engine]:
        """One generator for all tests of the class."""
        engine = Engine(self.make_generator, self.timeout_seconds)
        yield engine
        engine.close()

    def request(
        self,
        engine: Engine,
        *seeds: int,
        temperature: float = 1.0,
        text: str | None = None,
        max_tokens: int | None = None,
    ) -> Request:
        """A request for the suite's question: one completion per seed."""
        tokenizer = engine.generator.tokenizer
        return Request(
            prefix=tokenizer.render(text or self.question),
            seeds=seeds or (0,),
            max_tokens=max_tokens or self.max_tokens,
            stop_ids=tokenizer.eos_ids,
            sampling=Sampling(temperature=temperature, top_p=1.0),
        )

    def check(self, request: Request, completions: Sequence[Completion]) -> None:
        """What holds for every answer."""
        assert len(completions) == len(request.seeds), "one completion per seed"
        for one in completions:
            assert 1 <= len(one.token_ids) <= request.max_tokens
            assert len(one.token_ids) <= one.sampled_tokens <= request.max_tokens
            assert not request.stop_ids.intersection(one.token_ids[:-1]), "a stop id ends the completion"
            if len(one.token_ids) < request.max_tokens:
                assert one.token_ids[-1] in request.stop_ids, "the stop id stays in the completion"
            assert len(one.logprobs) == len(one.token_ids)
            assert all(math.isfinite(p) and p <= 0 for p in one.logprobs)
            assert one.scores is None or len(one.scores) == len(one.token_ids)
            assert 0 <= one.cached_tokens <= len(request.prefix)
        assert len({one.scores is None for one in completions}) == 1, "either all completions have scores, or none"

    def test_describes_itself(self, engine: Engine) -> None:
        generator = engine.generator
        assert isinstance(generator, Generator)
        assert generator.name
        assert generator.context_tokens > self.max_tokens
        assert generator.tokenizer.eos_ids
        sampling = generator.sampling
        assert sampling.temperature >= 0
        assert 0 < sampling.top_p <= 1
        assert sampling.top_k >= 0

    def test_tokenizer_round_trip(self, engine: Engine) -> None:
        tokenizer = engine.generator.tokenizer
        for text in TEXTS:
            ids = tokenizer.encode(text)
            assert tokenizer.decode(ids) in (text, " " + text)  # some SentencePiece models begin with a space
            pieces = b"".join(tokenizer.pieces[i] for i in ids)
            assert pieces.decode() == tokenizer.decode(ids)

    def test_renders_questions(self, engine: Engine) -> None:
        tokenizer = engine.generator.tokenizer
        text = tokenizer.render(self.question)
        assert text
        assert self.question in tokenizer.decode(text)
        with contextlib.suppress(TTSError):  # a model without a chat template may refuse messages, but not the text
            assert tokenizer.render([{"role": "user", "content": self.question}]) == text

    def test_one_completion_per_seed(self, engine: Engine) -> None:
        request = self.request(engine, 1, 2, 3)
        completions = engine.generate(request)
        self.check(request, completions)
        has_head = engine.generator.head_config is not None
        assert all((one.scores is not None) == has_head for one in completions), "scores come with a head, and only so"

    def test_single_token(self, engine: Engine) -> None:
        request = self.request(engine, 1, 2, max_tokens=1)
        self.check(request, engine.generate(request))

    def test_equal_seeds_give_equal_tokens(self, engine: Engine) -> None:
        if not self.seeded:
            pytest.skip("this generator honours no seeds")
        together = engine.generate(self.request(engine, 5, 6, 7, 5))
        assert together[0].token_ids == together[3].token_ids
        for seed, expected in zip((5, 6, 7), together, strict=False):
            alone = engine.generate(self.request(engine, seed))[0]
            assert alone.token_ids == expected.token_ids, "a completion depends on its seed, not on its neighbours"

    def test_different_seeds_differ(self, engine: Engine) -> None:
        completions = engine.generate(self.request(engine, *range(8)))
        assert len({one.token_ids for one in completions}) > 1

    def test_greedy_ignores_seeds(self, engine: Engine) -> None:
        completions = engine.generate(self.request(engine, 1, 2, 3, temperature=0.0))
        if self.exact:
            assert len({one.token_ids for one in completions}) == 1

    def test_stop_id_ends_a_completion(self, engine: Engine) -> None:
        if not self.exact:
            pytest.skip("greedy tokens are not exact")
        request = self.request(engine, 0, temperature=0.0)
        whole = engine.generate(request)[0].token_ids
        stop = whole[len(whole) // 2]
        stops = request.stop_ids | {stop}
        again = Request(
            prefix=request.prefix,
            seeds=(0, 1),
            max_tokens=request.max_tokens,
            stop_ids=stops,
            sampling=request.sampling,
        )
        completions = engine.generate(again)
        self.check(again, completions)
        assert all(one.token_ids == whole[: whole.index(stop) + 1] for one in completions)

    def test_concurrent_requests(self, engine: Engine) -> None:
        requests = [
            self.request(engine, i, i + 100, text=f"{self.question} " * (i % 3 + 1), max_tokens=4 + 5 * (i % 4))
            for i in range(6)
        ]

        async def together() -> list[Sequence[Completion]]:
            return await asyncio.gather(*(engine.generator.generate(r) for r in requests))

        for request, completions in zip(requests, engine.run(together()), strict=True):
            self.check(request, completions)
            if self.seeded and self.exact:
                alone = engine.generate(request)
                assert [one.token_ids for one in alone] == [one.token_ids for one in completions]

    def test_reports_progress(self, engine: Engine) -> None:
        counts: list[int] = []
        plain = self.request(engine, 1, 2, 3)
        request = Request(
            prefix=plain.prefix,
            seeds=plain.seeds,
            max_tokens=plain.max_tokens,
            stop_ids=plain.stop_ids,
            on_tokens=counts.append,
        )
        completions = engine.generate(request)
        assert sum(counts) == sum(one.sampled_tokens for one in completions)

    def test_cancelling_frees_the_engine(self, engine: Engine) -> None:
        generator = engine.generator
        prefix = generator.tokenizer.render(self.question)
        endless = Request(
            prefix=prefix,
            seeds=tuple(range(16)),
            max_tokens=generator.context_tokens - len(prefix),
            stop_ids=generator.tokenizer.eos_ids,
        )

        async def cancel_then_ask() -> Sequence[Completion]:
            task = asyncio.ensure_future(generator.generate(endless))
            await asyncio.sleep(0.02)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            return await generator.generate(short)

        short = self.request(engine, 1, max_tokens=2)
        self.check(short, engine.run(cancel_then_ask()))

    def test_context_overflow_is_an_error(self, engine: Engine) -> None:
        generator = engine.generator
        word = generator.tokenizer.encode("a")[-1]
        too_long = Request(
            prefix=(word,) * generator.context_tokens, seeds=(0,), max_tokens=1, stop_ids=generator.tokenizer.eos_ids
        )
        with pytest.raises(TTSError, match=r"\d"):
            engine.generate(too_long)
        request = self.request(engine, 1)
        self.check(request, engine.generate(request))  # and others go on

    @pytest.mark.parametrize("size", [1, 2, 5])
    def test_continuing_in_pieces_is_the_same(self, engine: Engine, size: int) -> None:
        if not self.exact:
            pytest.skip("greedy tokens are not exact")
        request = self.request(engine, 0, temperature=0.0)
        whole = engine.generate(request)[0]
        tokens: list[int] = []
        scores: list[float] = []
        while len(tokens) < len(whole.token_ids):
            piece = engine.generate(
                Request(
                    prefix=(*request.prefix, *tokens),
                    seeds=(0,),
                    max_tokens=min(size, request.max_tokens - len(tokens)),
                    stop_ids=request.stop_ids,
                    sampling=request.sampling,
                )
            )[0]
            tokens += piece.token_ids
            scores += piece.scores or ()
        assert tuple(tokens) == whole.token_ids
        for got, expected in zip(scores, whole.scores or (), strict=True):
            if not (math.isnan(got) or math.isnan(expected)):  # a position whose hidden state the engine did not show
                assert got == pytest.approx(expected, abs=self.score_tolerance)

    def test_closing_twice_is_harmless(self, engine: Engine) -> None:
        request = self.request(engine, 1)
        generator = engine.forget()
        engine.run(generator.aclose())
        engine.run(generator.aclose())

        async def call() -> Sequence[Completion]:
            return await generator.generate(request)

        with pytest.raises(GeneratorError):
            engine.run(call())


def _trajectory(steps: Sequence[str]) -> Trajectory:
    """Steps as a scorer sees them; token ids are bytes, and a token's logit says how much of "good" its step has."""
    data = [step.encode() for step in steps]
    ends = tuple(sum(map(len, data[: i + 1])) for i in range(len(data)))
    return Trajectory(
        question="Is this good?",
        prompt_ids=(63,),
        token_ids=tuple(b"".join(data)),
        step_ends=ends,
        token_scores=tuple(2.0 * step.count("good") - 1.0 for step, raw in zip(steps, data, strict=True) for _ in raw),
        known_scores=(),
        decode=lambda ids: bytes(ids).decode("utf-8", "replace"),
    )


class ScorerConformance:
    """What every `Scorer` must do.

    Override `make_scorer`, and `make_trajectories` where token ids must be a model's.
    """

    tolerance = 1e-6
    """Between two calls, and between a trajectory scored alone and among others."""

    def make_scorer(self) -> Scorer:
        """A new scorer."""
        raise NotImplementedError("override make_scorer")

    def make_trajectories(self) -> list[Trajectory]:
        """Trajectories of different lengths; one has no finished step."""
        lines = ["This is good.\n\n", "This is not so.\n\n", "Really good, good.\n\n"]
        return [_trajectory(lines), _trajectory([]), _trajectory(lines[:1])]

    def test_one_value_per_step(self) -> None:
        trajectories = self.make_trajectories()
        values = self.make_scorer().score(trajectories)
        assert [len(v) for v in values] == [len(t.step_ends) for t in trajectories]
        assert all(math.isfinite(x) and 0 <= x <= 1 for v in values for x in v)

    def test_nothing_to_score(self) -> None:
        assert len(self.make_scorer().score([])) == 0

    def test_a_value_depends_on_its_trajectory_alone(self) -> None:
        scorer, trajectories = self.make_scorer(), self.make_trajectories()
        together = scorer.score(trajectories)
        for trajectory, expected in zip(trajectories, together, strict=True):
            assert list(scorer.score([trajectory])[0]) == pytest.approx(list(expected), abs=self.tolerance)


class StrategyConformance:
    """What every `Strategy` must do. Override `make_strategy`. It is driven by the real runner, on fake engines."""

    budgets = (1, 2, 7, 50, 400, 3000)

    def make_strategy(self) -> Strategy:
        """A new strategy, small enough for a test."""
        raise NotImplementedError("override make_strategy")

    def search(self, generator: FakeGenerator, *, seed: int = 0, budget: int | None = 3000) -> SearchResult:
        """One search of a fake engine."""
        with Searcher(generator=generator, scorer=FakeScorer(), max_tokens=200, answer_tokens=50) as searcher:
            return searcher.search("What is it?", strategy=self.make_strategy(), seed=seed, budget=budget)

    @pytest.mark.parametrize(
        "generator",
        [
            FakeGenerator(),
            FakeGenerator(thinks=False),
            FakeGenerator(step=0.0, close=0.0),  # never ends a step, never closes its thinking part
            FakeGenerator(step=0.9, close=0.0),  # step tokens in long runs
            FakeGenerator(close=0.0, end=0.9, ends_anywhere=True),  # stops at once
            FakeGenerator(delay_seconds=0.005),  # completions out of order
        ],
        ids=["thinking", "plain", "stepless", "steps", "terse", "late"],
    )
    def test_ends_with_a_result(self, generator: FakeGenerator) -> None:
        result = self.search(generator)
        assert result.usage.sampled_tokens <= 3000
        assert result.candidates

    def test_budget_is_never_exceeded(self) -> None:
        for budget in self.budgets:
            assert self.search(FakeGenerator(), budget=budget).usage.sampled_tokens <= budget

    def test_equal_seeds_give_equal_results(self) -> None:
        first, second = self.search(FakeGenerator(), seed=3), self.search(FakeGenerator(delay_seconds=0.005), seed=3)
        assert first.tree is not None
        assert second.tree is not None
        assert [n.token_ids for n in first.tree] == [n.token_ids for n in second.tree]
        assert (first.answer, first.chosen) == (second.answer, second.chosen)

    def test_is_a_value(self) -> None:
        assert repr(self.make_strategy()) == repr(self.make_strategy()), "its repr is part of the key of a stored run"
