"""The face of the package: `search()`, `asearch()` and `Searcher`.

All engine work happens in one background event loop per searcher, so the same calls work in a script, inside a running
loop, and in a notebook. What names mean is resolved in `options`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from tts_search.core.loop import LoopThread
from tts_search.core.protocols import Generator, Question, Sampling
from tts_search.core.result import SearchResult, StopReason
from tts_search.core.runner import Job, Runner
from tts_search.core.scoring import SCORER_SECONDS, Scoring
from tts_search.errors import InvalidInputError, TTSError
from tts_search.models import EMBEDDED
from tts_search.options import (
    Options,
    ScorerLike,
    check_positive,
    check_question,
    resolve_generator,
    resolve_job,
    resolve_scorer,
)
from tts_search.scorers.aggregate import Aggregation, resolve_aggregation
from tts_search.segmentation import DEFAULT_STEP_RULE, Segmenter, StepRule
from tts_search.selection.votes import final_answer


class Searcher:
    """A loaded engine with its scorer, ready for any number of questions. Use it as a context manager, or `close()` it.

    Args:
        model: `"embedded"` (the small model that ships with the package), a Hugging Face folder, or a hub id.
        generator: `"vllm"`, `"transformers"`, `"auto"` (vLLM where it is installed; transformers for the
            embedded model, which is answered before vLLM has started), the URL of an OpenAI-compatible server
            (`"http://localhost:8000/v1"`; `model` is then what it serves, or left out), or a `Generator` of your own,
            whose `model` then counts.
        scorer: `"auto"` (the generator's own SPRM head; no scorer where it has none), `"sprm"` (the same,
            but refuse to go without), a `Scorer`, the name of one that an installed package offers (entry points in the
            group `tts_search.scorers`), or None.
        step_rule: what ends a step; the head's own rule by default. A string, a set of token ids, or a function of a
            token's text.
        aggregation: from step scores to the trajectory's; the scorer's or the head's own by default, else the geometric
            mean.
        sampling: how tokens are drawn; the model's own defaults if None.
        max_tokens: limit of one path's thinking.
        answer_tokens: limit of one answer.
        concurrency: questions in flight at once in `search_many`.
        scorer_seconds: limit of one call of the scorer, in which a question that hangs it fails; None for no limit.
        extract: from an answer's text to what votes are counted on.

    Raises:
        ModelNotFoundError, HeadMismatchError, InvalidInputError, MissingDependencyError: see their messages.
    """

    def __init__(
        self,
        model: str | Path = EMBEDDED,
        *,
        generator: str | Generator = "auto",
        scorer: ScorerLike = "auto",
        step_rule: StepRule | str | Collection[int] | None = None,
        aggregation: str | Aggregation | None = None,
        sampling: Sampling | None = None,
        max_tokens: int = 32_768,
        answer_tokens: int = 1024,
        concurrency: int = 64,
        scorer_seconds: float | None = SCORER_SECONDS,
        extract: Callable[[str], str | None] = final_answer,
    ) -> None:
        for name, value in (("max_tokens", max_tokens), ("answer_tokens", answer_tokens), ("concurrency", concurrency)):
            check_positive(name, value)
        if scorer_seconds is not None and not scorer_seconds > 0:
            raise InvalidInputError(f"scorer_seconds must be positive, or None for no limit; got {scorer_seconds!r}")
        engine = resolve_generator(model, generator)
        config = engine.head_config
        rule = step_rule if step_rule is not None else config.step_rule if config else DEFAULT_STEP_RULE
        judge = resolve_scorer(scorer, engine)
        published = getattr(judge, "aggregation", None) or (config.aggregation if config else "geometric_mean")
        self._concurrency = concurrency
        self._runner = Runner(
            generator=engine,
            scoring=None if judge is None else Scoring(judge, scorer_seconds),
            segmenter=Segmenter(engine.tokenizer, rule),
            aggregate=resolve_aggregation(aggregation or published),
            extract=extract,
            sampling=sampling or engine.sampling,
            max_tokens=max_tokens,
            answer_tokens=answer_tokens,
        )
        self._loop = LoopThread()

    @property
    def generator(self) -> Generator:
        """The engine at work."""
        return self._runner.generator

    @property
    def settings(self) -> dict[str, Any]:
        """What all searches of this one share, as plain JSON values: what a log must know to tell runs apart."""
        runner = self._runner
        scorer = None if runner.scoring is None else runner.scoring.scorer
        return {
            "model": runner.generator.name,
            "scorer": None
            if scorer is None
            else type(scorer).__qualname__
            if " at 0x" in repr(scorer)
            else repr(scorer),
            "aggregation": getattr(runner.aggregate, "__name__", type(runner.aggregate).__qualname__),
            "step_rule": repr(runner.segmenter.rule),
            "sampling": asdict(runner.sampling),
            "max_tokens": runner.max_tokens,
            "answer_tokens": runner.answer_tokens,
        }

    def search(self, question: Question, **options: Unpack[Options]) -> SearchResult:
        """Answer one question: a text, or chat messages that end with the user's turn.

        Raises:
            InvalidInputError: the question or an option cannot be used.
            TTSError: the strategy, the generator or the scorer failed; the message says which.
        """
        return self._loop.call(self._search(question, self._resolve(options)))

    async def asearch(self, question: Question, **options: Unpack[Options]) -> SearchResult:
        """`search` for async code, in any event loop. Cancelling it stops the engine's work for this question."""
        return await asyncio.wrap_future(self._loop.submit(self._search(question, self._resolve(options))))

    def search_many(self, questions: Iterable[Question], **options: Unpack[Options]) -> Iterator[SearchResult]:
        """Answer many questions through one engine; results come in order of completion, `result.index` says whose.

        The budget is per question. A question that fails is a result with its `error`; the others go on. Questions are
        read as they are needed, `concurrency` at a time. Leaving the loop cancels what is in flight.
        """
        return self._many(_Batch(self, questions, self._resolve(options)))

    def _many(self, batch: _Batch) -> Iterator[SearchResult]:
        with batch:
            while batch.refill():
                yield self._loop.call(batch.next_result())

    async def asearch_many(
        self, questions: Iterable[Question], **options: Unpack[Options]
    ) -> AsyncIterator[SearchResult]:
        """`search_many` for async code."""
        with _Batch(self, questions, self._resolve(options)) as batch:
            while batch.refill():
                yield await asyncio.wrap_future(self._loop.submit(batch.next_result()))

    def close(self) -> None:
        """Free the engine. Calling it twice is harmless."""
        try:
            self._loop.call(self.generator.aclose())
        finally:
            self._loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _resolve(self, options: Options) -> Job:
        return resolve_job(options, self.generator, scored=self._runner.scoring is not None)

    async def _search(self, question: Question, job: Job) -> SearchResult:
        check_question(question)
        return await self._runner.run(question, job)

    async def _search_one_of_many(self, index: int, question: Question, job: Job) -> SearchResult:
        try:
            return replace(await self._search(question, job), index=index)
        except TTSError as error:
            return SearchResult(
                question=question,
                stop_reason=StopReason.ERROR,
                strategy=repr(job.strategy),
                selector=job.selector.name,
                model=self.generator.name,
                seed=job.seed,
                budget=job.budget,
                error=error,
                index=index,
            )


def search(
    question: Question,
    *,
    model: str | Path = EMBEDDED,
    generator: str | Generator = "auto",
    scorer: ScorerLike = "auto",
    **options: Unpack[Options],
) -> SearchResult:
    """Answer one question with search: load, search, close. For more than one question make a `Searcher`.

    >>> result = search("Using the numbers 7, 5, 15 and 11, make 24.", effort="high")
    >>> result.answer
    '...'

    See `Searcher` for `model`, `generator` and `scorer`, and `Options` for the rest.
    """
    with Searcher(model, generator=generator, scorer=scorer) as searcher:
        return searcher.search(question, **options)


async def asearch(
    question: Question,
    *,
    model: str | Path = EMBEDDED,
    generator: str | Generator = "auto",
    scorer: ScorerLike = "auto",
    **options: Unpack[Options],
) -> SearchResult:
    """`search` for async code; loading and closing happen beside the event loop too."""
    searcher = await asyncio.to_thread(Searcher, model, generator=generator, scorer=scorer)
    try:
        return await searcher.asearch(question, **options)
    finally:
        await asyncio.to_thread(searcher.close)


class _Batch:
    """The questions of one `search_many`: read as they are needed, at most `concurrency` of them in flight."""

    def __init__(self, searcher: Searcher, questions: Iterable[Question], job: Job) -> None:
        self._searcher = searcher
        self._questions = enumerate(questions)
        self._job = job
        self._results: asyncio.Queue[SearchResult] = asyncio.Queue()
        self._running: set[concurrent.futures.Future[None]] = set()
        self._due = 0  # results that nobody has taken yet

    def refill(self) -> bool:
        """Start questions, in the caller's thread; whether there is any result to wait for."""
        self._running = {work for work in self._running if not work.done()}
        for index, question in islice(self._questions, self._searcher._concurrency - self._due):
            self._running.add(self._searcher._loop.submit(self._run(index, question)))
            self._due += 1
        return self._due > 0

    async def next_result(self) -> SearchResult:
        """The result that is ready next, in the loop's thread."""
        result = await self._results.get()
        self._due -= 1
        return result

    async def _run(self, index: int, question: Question) -> None:
        self._results.put_nowait(await self._searcher._search_one_of_many(index, question, self._job))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for work in self._running:
            work.cancel()
