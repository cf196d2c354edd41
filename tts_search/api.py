"""The face of the package: `search()`, `asearch()` and `Searcher`.

All engine work happens in one background event loop per searcher, so the same calls work in a script, inside a running
loop, and in a notebook. What names mean is resolved in `options`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self, Unpack

from tts_search.checks import check_question, check_questions, check_seconds, check_whole
from tts_search.confidential import without_secrets
from tts_search.core.job import Job
from tts_search.core.loop import LoopThread
from tts_search.core.protocols import Generator, Question
from tts_search.core.result import SearchResult, StopReason
from tts_search.core.runner import Runner
from tts_search.core.sampler import GENERATOR_SECONDS
from tts_search.core.scoring import SCORER_SECONDS, Scoring
from tts_search.errors import GeneratorError, InvalidInputError, TTSError, shown, told
from tts_search.log.calls import Runs, runs_of, unless_given
from tts_search.log.identity import identity
from tts_search.models import EMBEDDED
from tts_search.options import (
    Options,
    ScorerLike,
    StepRuleLike,
    check_names,
    lists_options,
    resolve_generator,
    resolve_job,
    resolve_scorer,
)
from tts_search.segmentation import AUTO, Segmenter, StepRule, as_rule
from tts_search.selection.votes import extract_name
from tts_search.step_rules import StepRules
from tts_search.thinking import ThinkingTags

SEGMENTERS_KEPT = 32
ENGINE_CLOSING_SECONDS = 120.0  # how long an engine may take to end


class Searcher:
    """A loaded engine with its scorer, ready for any number of questions. Use it as a context manager, or `close()` it.

    Args:
        model: `"embedded"` (the small model that ships with the package), a Hugging Face folder, or a hub id.
        generator: `"vllm"`, `"transformers"`, `"auto"` (vLLM where it is installed; transformers for the
            embedded model, which is answered before vLLM has started), `"none"` (no engine and no weights: for
            replays of a log), the URL of an OpenAI-compatible server
            (`"http://localhost:8000/v1"`, also as `model`; `model` is then what it serves, or left out), or a
            `Generator` of your own, whose `model` then counts.
        scorer: `"auto"` (the generator's own SPRM head; no scorer where it has none), `"sprm"` (the same,
            but refuse to go without), the folder or hub id of a reward model (see `scorers.published.read_scorer`), a
            `Scorer`, the name of one that an installed package offers (entry points in the group `tts_search.scorers`),
            or None.
        engine_args: what else the engine's constructor takes, for an engine that is named: `{"max_batch": 16}`. What
            `VLLMGenerator` does not take itself goes to vLLM.
        concurrency: questions in flight at once in `search_many`.
        scorer_seconds: limit of one call of the scorer, in which a question that hangs it fails; None for no limit.
        generator_seconds: limit of the engine's silence, its start included, in which a question fails; None for none.
        defaults: any option of a call, for all calls that do not say otherwise.

    Raises:
        ModelNotFoundError, HeadMismatchError, InvalidInputError, MissingDependencyError: see their messages.
    """

    @lists_options
    def __init__(
        self,
        model: str | Path = EMBEDDED,
        *,
        generator: str | Generator = "auto",
        scorer: ScorerLike = "auto",
        engine_args: Mapping[str, Any] | None = None,
        concurrency: int = 64,
        scorer_seconds: float | None = SCORER_SECONDS,
        generator_seconds: float | None = GENERATOR_SECONDS,
        **defaults: Unpack[Options],
    ) -> None:
        """The options of a call are defaults for all calls here."""
        check_names(defaults)
        scorer_seconds = check_seconds("scorer_seconds", scorer_seconds)
        generator_seconds = check_seconds("generator_seconds", generator_seconds)
        self._concurrency = check_whole("concurrency", concurrency, at_least=1)
        for name, value in defaults.items():  # before a model is loaded for nothing
            if name in ("max_tokens", "answer_tokens"):
                check_whole(name, value, at_least=1)
        self._defaults = defaults
        engine = resolve_generator(model, generator, engine_args)
        self._scorer = resolve_scorer(scorer, engine)
        for thing in (engine, self._scorer):
            identity(thing)  # before it has done anything: what a log knows it by
        self._segmenters: dict[str, Segmenter] = {}
        self._rules = StepRules(engine)
        self._runner = Runner(
            generator=engine,
            scoring=None if self._scorer is None else Scoring(self._scorer, scorer_seconds),
            generator_seconds=generator_seconds,
        )
        self._loop = LoopThread()
        common: Options = {"strategy": "single", "selector": "logprob"}  # what every engine and scorer allows
        self._usual = self._resolve({**defaults, **common, "effort": None, "repeat": False, "early_stop": None})

    @property
    def generator(self) -> Generator:
        """The engine at work."""
        return self._runner.generator

    @property
    def settings(self) -> dict[str, Any]:
        """What all searches of this one share, as plain JSON values: what a log must know to tell runs apart."""
        scorer, usual = self._scorer, self._usual
        return {
            "model": self.generator.name,
            "scorer": None
            if scorer is None
            else type(scorer).__qualname__
            if " at 0x" in repr(scorer)
            else without_secrets(repr(scorer)),
            "aggregation": getattr(usual.aggregate, "__name__", type(usual.aggregate).__qualname__),
            "step_rule": AUTO if usual.finds_rule else repr(usual.segmenter.rule),
            **({} if (tags := self._defaults.get("thinking_tags", "auto")) == "auto" else {"thinking_tags": tags}),
            "sampling": asdict(usual.sampling),
            "max_tokens": usual.max_tokens,
            "answer_tokens": usual.answer_tokens,
            **({} if (extract := extract_name(usual.extract)) == "auto" else {"extract": extract}),
            **({} if usual.system is None else {"system": usual.system}),
        }

    @lists_options
    def search(self, question: Question, **options: Unpack[Options]) -> SearchResult:
        """Answer one question: a text, or chat messages that end with the user's turn.

        Raises:
            InvalidInputError: the question or an option cannot be used.
            TTSError: the strategy, the generator or the scorer failed; the message says which.
        """
        with self._call(options) as call:
            return self._loop.call(self._search(question, call))

    @lists_options
    async def asearch(self, question: Question, **options: Unpack[Options]) -> SearchResult:
        """`search` for async code, in any event loop. Cancelling it stops the engine's work for this question."""
        with self._call(options) as call:
            return await self._loop.acall(self._search(question, call))

    @lists_options
    async def acheck(self, question: Question, **options: Unpack[Options]) -> int:
        """Refuse now what `asearch` would refuse before it begins; the length of the prompt in tokens, if it would not.

        Raises:
            InvalidInputError: the question or an option cannot be used, or the question does not fit the model.
        """
        return await self._loop.acall(self._check(question, self._resolve(options)))

    @lists_options
    def search_many(self, questions: Iterable[Question], **options: Unpack[Options]) -> Iterator[SearchResult]:
        """Answer many questions through one engine; results come in order of completion, `result.index` says whose.

        The budget is per question. A question that fails is a result with its `error`; the others go on. Questions are
        read as they are needed, `concurrency` at a time. Leaving the loop cancels what is in flight. If reading them
        raises, that is raised once all those that were read are answered.

        Raises:
            InvalidInputError: an option cannot be used, or this is no collection of questions.
        """
        self._resolve(options)  # what cannot be used is refused now, not when the first result is asked for
        return self._many(check_questions(questions), options)

    def _many(self, questions: Iterable[Question], options: Options) -> Iterator[SearchResult]:
        with self._call(options) as call, _Batch(self, questions, call) as batch:
            while batch.refill():
                yield self._loop.call(batch.next_result())

    @lists_options
    async def asearch_many(
        self, questions: Iterable[Question], **options: Unpack[Options]
    ) -> AsyncIterator[SearchResult]:
        """`search_many` for async code."""
        with self._call(options) as call, _Batch(self, questions, call) as batch:
            while batch.refill():
                yield await self._loop.acall(batch.next_result())

    def close(self) -> None:
        """Cancel what is under way and free the engine. Calling it twice, or in a fork, is harmless.

        Raises:
            GeneratorError: the engine raised, or did not end within some time.
        """
        if self._loop.forked or self._loop.closed:
            return
        self._loop.check_thread()
        try:
            self._loop.call(self._close(), last=True)
        finally:
            self._loop.stop()

    async def _close(self) -> None:
        await self._loop.cancel_others()
        clock = asyncio.timeout(ENGINE_CLOSING_SECONDS)
        try:
            async with clock:
                await self.generator.aclose()
        except TTSError:
            raise
        except BaseException as error:
            if isinstance(error, TimeoutError) and clock.expired():
                raise GeneratorError(
                    f"generator {self.generator.name!r} was not closed within {ENGINE_CLOSING_SECONDS:g} seconds: "
                    "it is left as it is"
                ) from error
            raise GeneratorError(f"generator {self.generator.name!r} raised as it was closed: {told(error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _call(self, options: Options) -> Iterator[_Call]:
        """A call's job, and who runs it; its log is open as long as the call lasts."""
        said = self._said(options)
        with runs_of(self._runner, self._resolve(options), said) as (runs, job):
            yield _Call(runs, job, replays=bool(said.get("replay")))

    def _resolve(self, options: Options) -> Job:
        said = self._said(options)
        return resolve_job(said, self.generator, unless_given(self._scorer, said), self._segmenter)

    def _said(self, options: Options) -> Options:
        said: Options = {**self._defaults, **options}
        if "strategy" in options and "effort" not in options:
            said["effort"] = None  # what a call names goes before a default of the other kind
        if "effort" in options and "strategy" not in options:
            said["strategy"] = None
        return said

    def _segmenter(self, rule: StepRuleLike, tags: ThinkingTags) -> Segmenter:
        """One for each rule: to make one takes a look at the whole vocabulary."""
        rule = as_rule(rule)
        key = f"{tags!r} {rule!r} {id(rule) if callable(rule) else 0}"
        if key not in self._segmenters:
            while len(self._segmenters) >= SEGMENTERS_KEPT:  # a new function a call would fill the memory
                self._segmenters.pop(next(iter(self._segmenters)))
            self._segmenters[key] = self._make_segmenter(rule, tags)
        return self._segmenters[key]

    async def _with_rule(self, job: Job) -> Job:
        """The job, with what this model writes between steps as its step rule, if that is to be found out."""
        if not job.finds_rule:
            return job
        rule = await self._rules.settle(job.segmenter)
        return job if rule is None else replace(job, segmenter=self._segmenter(rule, job.segmenter.tags))

    def _make_segmenter(self, rule: StepRule, tags: ThinkingTags) -> Segmenter:
        try:
            return Segmenter(self.generator.tokenizer, rule, thinking_tags=tags)
        except TTSError:
            raise
        except BaseException as error:
            raise InvalidInputError(f"step_rule={shown(rule)} raised {told(error)}") from error

    async def _check(self, question: Question, job: Job) -> int:
        return len(self._runner.prompt_of(check_question(question), job))

    async def _search(self, question: Question, call: _Call) -> SearchResult:
        try:
            job = call.job if call.replays else await self._with_rule(call.job)  # a replay asks nobody: its log knows
            return await call.runs.run(check_question(question), job)
        except (TTSError, asyncio.CancelledError):
            raise
        except BaseException as error:  # whatever it is, it is this question's alone
            raise TTSError(f"the search failed: {told(error)}") from error

    async def _search_one_of_many(self, index: int, question: Question, call: _Call) -> SearchResult:
        job = call.job
        try:
            return replace(await self._search(question, call), index=index)
        except TTSError as error:
            return SearchResult(
                question=question,
                stop_reason=StopReason.ERROR,
                strategy=job.strategy_name,
                selector=job.selector.name,
                model=self.generator.name,
                seed=job.seed,
                budget=job.budget,
                error=error,
                index=index,
            )


class _Call(NamedTuple):
    """One call: what is to be done, and who does it."""

    runs: Runs
    job: Job
    replays: bool


class _Batch:
    """The questions of one `search_many`: read as they are needed, at most `concurrency` of them in flight."""

    def __init__(self, searcher: Searcher, questions: Iterable[Question], call: _Call) -> None:
        self._searcher = searcher
        self._questions = enumerate(check_questions(questions))
        self._unread: Exception | None = None  # what the questions raised as they were read
        self._call = call
        self._results: asyncio.Queue[SearchResult] = asyncio.Queue()
        self._running: set[concurrent.futures.Future[None]] = set()
        self._due = 0  # results that nobody has taken yet

    def refill(self) -> bool:
        """Start questions, in the caller's thread; whether there is any result to wait for."""
        self._running = {work for work in self._running if not work.done()}
        for index, question in self._next(self._searcher._concurrency - self._due):
            self._running.add(self._searcher._loop.submit(self._run(index, question)))
            self._due += 1
        if self._unread is not None and not self._due:
            raise self._unread
        return self._due > 0

    def _next(self, count: int) -> Iterator[tuple[int, Question]]:
        """So many more questions, or fewer where they end or raise."""
        if self._unread is None:
            try:
                yield from islice(self._questions, count)
            except Exception as error:  # the answers in flight are paid for: they come first
                self._unread = error

    async def next_result(self) -> SearchResult:
        """The result that is ready next, in the loop's thread."""
        result = await self._results.get()
        self._due -= 1
        return result

    async def _run(self, index: int, question: Question) -> None:
        self._results.put_nowait(await self._searcher._search_one_of_many(index, question, self._call))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for work in self._running:
            work.cancel()


@lists_options
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

    See `Searcher` for `model`, `generator` and `scorer`.
    """
    with Searcher(model, generator=generator, scorer=scorer) as searcher:
        return searcher.search(question, **options)


@lists_options
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
