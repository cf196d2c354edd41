"""The contract of a `Generator` as tests to inherit; import it from `tts_search.testing.conformance`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest

from tts_search.core.protocols import Completion, Generator, Request, Sampling
from tts_search.errors import GeneratorError, TTSError

T = TypeVar("T")

TEXTS = {
    "empty": "",
    "steps": "Add 13 and 9.\n\nThat is 22.\n\n",
    "scripts": "naïve café, 你好,世界。 Ελληνικά, русский, עברית",
    "code": "👩‍🔬 emoji, tabs\tand\r\nline breaks\n\n\n    indented(code) = {'x': 1}",
}

NOT_WHOLE = "this generator answers from the beginning alone"


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
    """What every `Generator` must do. Override `make_generator`, and the attributes where they do not fit.

    Of one with `starts_anywhere` False it is asked what such a one promises: whole responses to messages.
    """

    question = "Using the numbers 4, 6, 9 and 13, make 87."
    max_tokens = 24
    timeout_seconds = 120.0
    _engine: Engine
    score_tolerance = 1e-3
    """In the head's logit, between a completion in one go and the same one in pieces."""
    seeded = True
    """Whether equal seeds give equal tokens: False for endpoints that do not honour seeds."""
    exact = True
    """Whether greedy tokens do not depend on what else is in flight: False where bfloat16 rounding may tip a tie."""

    def make_generator(self) -> Generator:
        """A new generator, of a model small enough to answer in seconds."""
        raise NotImplementedError("override make_generator")

    @pytest.fixture
    def engine(self, request: pytest.FixtureRequest) -> Engine:
        """One generator for all tests of the class."""
        cls = type(self)
        if "_engine" not in cls.__dict__:
            node = request.node.getparent(pytest.Class)
            assert node is not None
            cls._engine = engine = Engine(self.make_generator, self.timeout_seconds)

            def close() -> None:
                del cls._engine
                engine.close()

            node.addfinalizer(close)
        return cls._engine

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
            messages=text or self.question,
        )

    @property
    def whole(self) -> bool:
        """Whether the generator answers from the beginning alone, with ids that are not those it samples."""
        return not getattr(type(self)._engine.generator, "starts_anywhere", True)

    def check(self, request: Request, completions: Sequence[Completion]) -> None:
        """What holds for every answer."""
        assert len(completions) == len(request.seeds), "one completion per seed"
        for one in completions:
            assert one.token_ids, "a completion has at least one token"
            assert (1 if self.whole else len(one.token_ids)) <= one.sampled_tokens <= request.max_tokens
            assert not request.stop_ids.intersection(one.token_ids[:-1]), "a stop id ends the completion"
            if one.sampled_tokens < request.max_tokens and not self.whole:
                assert one.token_ids[-1] in request.stop_ids, "the stop id stays in the completion"
            assert self.whole or one.logprobs is None or len(one.logprobs) == len(one.token_ids)
            assert all(-math.inf < p <= 0 for p in one.logprobs or ())
            assert one.scores is None or len(one.scores) == len(one.token_ids)
            prompt = len(request.prefix) if one.prompt_tokens is None else one.prompt_tokens
            assert 0 <= one.cached_tokens <= prompt
        assert len({one.scores is None for one in completions}) == 1, "either all completions have scores, or none"

    def test_describes_itself(self, engine: Engine) -> None:
        generator = engine.generator
        assert generator.name
        assert generator.context_tokens > self.max_tokens
        assert generator.tokenizer.eos_ids

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    def test_tokenizer_round_trip(self, engine: Engine, text: str) -> None:
        tokenizer = engine.generator.tokenizer
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) in (text, " " + text)  # some SentencePiece models begin with a space
        pieces = b"".join(tokenizer.pieces[i] for i in ids)
        assert pieces.decode() == tokenizer.decode(ids)

    def test_renders_questions(self, engine: Engine) -> None:
        tokenizer = engine.generator.tokenizer
        text = tokenizer.render(self.question)
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
        if not self.exact:
            pytest.skip("greedy tokens are not exact")
        completions = engine.generate(self.request(engine, 1, 2, 3, temperature=0.0))
        assert len({one.token_ids for one in completions}) == 1

    def test_stop_id_ends_a_completion(self, engine: Engine) -> None:
        if self.whole:
            pytest.skip(NOT_WHOLE)
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
            messages=plain.messages,
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
            messages=self.question,
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

    def test_what_cannot_be_gone_on_with_is_refused(self, engine: Engine) -> None:
        if not self.whole:
            pytest.skip("this generator goes on from any prefix")
        request = self.request(engine, 1)
        with pytest.raises(TTSError):
            engine.generate(dataclasses.replace(request, messages=None))
        self.check(request, engine.generate(request))  # and others go on

    def test_context_overflow_is_an_error(self, engine: Engine) -> None:
        if self.whole:
            pytest.skip(NOT_WHOLE)
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
        if self.whole:
            pytest.skip(NOT_WHOLE)
        if not self.exact:
            pytest.skip("greedy tokens are not exact")
        request = self.request(engine, 0, temperature=0.0)
        whole = engine.generate(request)[0]
        tokens: list[int] = []
        scores: list[float] = []
        while len(tokens) < len(whole.token_ids):
            further = Request(
                prefix=(*request.prefix, *tokens),
                seeds=(0,),
                max_tokens=min(size, request.max_tokens - len(tokens)),
                stop_ids=request.stop_ids,
                sampling=request.sampling,
            )
            completions = engine.generate(further)
            self.check(further, completions)
            tokens += completions[0].token_ids
            scores += completions[0].scores or ()
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
