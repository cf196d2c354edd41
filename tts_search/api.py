"""The face of the package: `search()`, `asearch()` and `Searcher`.

Resolves names into objects, checks what the user gave, and hands over to the runner. All engine work happens in one
background event loop per searcher, so the same calls work in a script, inside a running loop, and in a notebook.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
import threading
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, TypeVar, Unpack

from tts_search import discovery
from tts_search.core.protocols import Generator, Question, Sampling, Scorer, Selector, Strategy
from tts_search.core.result import Candidate, SearchResult, StopReason
from tts_search.core.runner import Job, OnProgress, Runner
from tts_search.core.scoring import SCORER_SECONDS, Scoring
from tts_search.core.tree import Tree
from tts_search.errors import InvalidInputError, TTSError
from tts_search.models import EMBEDDED
from tts_search.scorers.aggregate import Aggregation, resolve_aggregation
from tts_search.scorers.engine_sprm import EngineSPRM
from tts_search.segmentation import DEFAULT_STEP_RULE, Segmenter, StepRule
from tts_search.selection.selectors import resolve_selector
from tts_search.selection.votes import final_answer
from tts_search.strategies.beam import StepBeamSearch
from tts_search.strategies.best_first import BestFirst
from tts_search.strategies.best_of_n import BestOfN
from tts_search.strategies.dvts import DVTS
from tts_search.strategies.mcts import MCTS
from tts_search.strategies.repeat import Repeat

T = TypeVar("T")

Effort = Literal["low", "medium", "high"]
ScorerLike = str | Scorer | None
SelectorLike = str | Selector | Callable[[Sequence[Candidate]], int]

EFFORTS: Mapping[str, int] = {"low": 2, "medium": 8, "high": 32}  # Best-of-k (paper, section 4.1)
STRATEGIES: Mapping[str, Strategy] = {
    "best_of_n": BestOfN(),
    "single": BestOfN(n=1),
    "beam": StepBeamSearch(),
    "dvts": DVTS(),
    "mcts": MCTS(),
    "best_first": BestFirst(),
}
GENERATORS = ("auto", "vllm", "transformers")
SCORERS = ("auto", "sprm")


class Options(TypedDict, total=False):
    """How one call searches; the keyword arguments of `search` and its twins.

    - `strategy`: a name (`"best_of_n"`, `"single"`, `"beam"`, `"dvts"`, `"mcts"`, `"best_first"`) or an object such as
      `BestOfN(n=16)`. By name, and with a budget, it searches until the budget is spent: what has a fixed size is
      repeated with fresh samples. An object does what it says, and the budget is its cap.
    - `effort`: `"low"`, `"medium"` or `"high"` for Best-of-2, -8 or -32, instead of a strategy; medium by default.
    - `budget`: hard cap on sampled tokens per question, thinking and answer together; None for none.
    - `selector`: `"best"`, `"majority"`, `"weighted"`, `"logprob"`, or a function from answered candidates to an index.
      By default the best score where there is a scorer, else the majority.
    - `seed`: equal seeds give equal searches, as far as the engine's numerics allow.
    - `seconds`: wall-clock limit of the search; the answer follows, from the best so far.
    - `early_stop`: end the search once no path could beat the leader by more than this margin of score; for majorities,
      once the votes yet to come could not overtake it. `Usage.saved_tokens` says what was left of the budget.
    - `stop_when`: a function of the tree, asked after each round; True ends the search.
    - `halt`: a `threading.Event`; setting it, from anywhere, ends the search and answers from the best so far.
    - `on_progress`: called with `Progress` as tokens come, from the engine's thread.
    """

    strategy: str | Strategy | None
    effort: Effort | None
    budget: int | None
    selector: SelectorLike | None
    seed: int
    seconds: float | None
    early_stop: float | None
    stop_when: Callable[[Tree], bool] | None
    halt: threading.Event | None
    on_progress: OnProgress | None


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
            _positive(name, value)
        if scorer_seconds is not None and not scorer_seconds > 0:
            raise InvalidInputError(f"scorer_seconds must be positive, or None for no limit; got {scorer_seconds!r}")
        engine = _resolve_generator(model, generator)
        config = engine.head_config
        rule = step_rule if step_rule is not None else config.step_rule if config else DEFAULT_STEP_RULE
        judge = _resolve_scorer(scorer, engine)
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
        self._loop = _LoopThread()

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
        job = self._resolve(options)
        return self._many(questions, job)

    def _many(self, questions: Iterable[Question], job: Job) -> Iterator[SearchResult]:
        pending: set[concurrent.futures.Future[SearchResult]] = set()
        source = enumerate(questions)
        try:
            while True:
                for index, question in islice(source, self._concurrency - len(pending)):
                    pending.add(self._loop.submit(self._search_one_of_many(index, question, job)))
                if not pending:
                    return
                done, pending = concurrent.futures.wait(pending, return_when=concurrent.futures.FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            for future in pending:
                future.cancel()

    async def asearch_many(
        self, questions: Iterable[Question], **options: Unpack[Options]
    ) -> AsyncIterator[SearchResult]:
        """`search_many` for async code."""
        job = self._resolve(options)
        pending: set[asyncio.Future[SearchResult]] = set()
        source = enumerate(questions)
        try:
            while True:
                for index, question in islice(source, self._concurrency - len(pending)):
                    work = self._search_one_of_many(index, question, job)
                    pending.add(asyncio.wrap_future(self._loop.submit(work)))
                if not pending:
                    return
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in pending:
                future.cancel()

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
        """What concerns the call as a whole is refused at once, before any question."""
        unknown = options.keys() - Options.__annotations__.keys()
        if unknown:
            raise InvalidInputError(
                f"unknown option {min(unknown)!r}: choose from {', '.join(Options.__annotations__)}"
            )
        budget = options.get("budget")
        if budget is not None:
            _positive("budget", budget)
        strategy = resolve_strategy(options.get("strategy"), options.get("effort"), budget)
        scored = self._runner.scoring is not None
        if getattr(strategy, "needs_scores", False) and not scored:
            raise InvalidInputError(
                f"{strategy!r} goes where step scores are high, and {self.generator.name!r} has no SPRM head: fit one "
                "with tts-search fit-head, pass scorer=..., or take strategy='best_of_n', which can do without"
            )
        selector = resolve_selector(options.get("selector") or ("best" if scored else "majority"))
        if selector.needs_scores and not scored:
            raise InvalidInputError(
                f"selector {selector.name!r} needs step scores, and {self.generator.name!r} has no SPRM head: pass "
                "scorer=..., a model folder with a head, or selector='majority'"
            )
        limits = (budget, options.get("seconds"), options.get("stop_when"), options.get("halt"))
        if getattr(strategy, "endless", False) and all(limit is None for limit in limits):
            raise InvalidInputError(
                f"{strategy!r} searches until it is stopped: give it a budget, such as budget=160_000"
            )
        seconds, margin = options.get("seconds"), options.get("early_stop")
        if seconds is not None and not seconds > 0:
            raise InvalidInputError(f"seconds must be positive, or None for no limit; got {seconds!r}")
        if margin is not None and not (0 <= margin <= 1 and selector.decided):
            raise InvalidInputError(
                f"early_stop is a margin in [0, 1] for a selector that can tell a lead; got {margin!r} with "
                f"selector {selector.name!r}"
            )
        return Job(
            strategy=strategy,
            selector=selector,
            budget=budget,
            seed=options.get("seed", 0),
            seconds=seconds,
            early_stop=margin,
            stop_when=options.get("stop_when"),
            halt=options.get("halt"),
            on_progress=options.get("on_progress"),
        )

    async def _search(self, question: Question, job: Job) -> SearchResult:
        _check_question(question)
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


class _LoopThread:
    """An event loop in a thread of its own, begun with the first piece of work."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="tts-search", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for the work; Ctrl-C cancels it."""
        future = self.submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def stop(self) -> None:
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)


def _resolve_generator(model: str | Path, generator: str | Generator) -> Generator:
    if not isinstance(generator, str):
        return generator
    if "://" in generator:
        from tts_search.generators.openai import OpenAIGenerator

        return OpenAIGenerator(generator, tokenizer=None if model == EMBEDDED else model)
    if generator not in GENERATORS:
        return discovery.load(discovery.GENERATORS, generator, GENERATORS)(model)
    if generator == "auto":
        installed = importlib.util.find_spec("vllm") is not None
        generator = "vllm" if installed and model != EMBEDDED else "transformers"
    if generator == "vllm":
        from tts_search.generators.vllm import VLLMGenerator

        return VLLMGenerator(model)
    from tts_search.generators.transformers import TransformersGenerator

    return TransformersGenerator(model)


def _resolve_scorer(scorer: ScorerLike, engine: Generator) -> Scorer | None:
    if scorer is None or (scorer == "auto" and engine.head_config is None):
        return None
    if not isinstance(scorer, str):
        return scorer
    if scorer not in SCORERS:
        return discovery.made(discovery.load(discovery.SCORERS, scorer, SCORERS), Scorer, f"scorer {scorer!r}")
    if engine.head_config is None:
        raise InvalidInputError(f"scorer='sprm', but {engine.name!r} has no SPRM head: no sprm/ and no score_module.pt")
    return EngineSPRM()


def resolve_strategy(strategy: str | Strategy | None, effort: str | None = None, budget: int | None = None) -> Strategy:
    """The strategy that a call with these options follows; its `repr` tells runs apart."""
    if strategy is not None and effort is not None:
        raise InvalidInputError(f"give a strategy or an effort, not both (strategy={strategy!r}, effort={effort!r})")
    if strategy is None:
        effort = effort or "medium"
        if effort not in EFFORTS:
            raise InvalidInputError(f"unknown effort {effort!r}: choose from {', '.join(EFFORTS)}")
        return BestOfN(n=EFFORTS[effort])
    if not isinstance(strategy, str):
        return strategy
    if strategy in STRATEGIES:
        named = STRATEGIES[strategy]
        fixed = budget is None or strategy == "single" or getattr(named, "endless", False)
        return named if fixed else Repeat(named)
    found = discovery.load(discovery.STRATEGIES, strategy, STRATEGIES)
    return found() if isinstance(found, type) else found


def _check_question(question: Question) -> None:
    if isinstance(question, str):
        texts: list[object] = [question]
    else:
        messages = list(question)
        if not messages or any(not isinstance(m, Mapping) or not {"role", "content"} <= m.keys() for m in messages):
            raise InvalidInputError("chat messages are a non-empty list of {'role': ..., 'content': ...}")
        if messages[-1]["role"] != "user":
            raise InvalidInputError(f"the last message must be the user's, its role is {messages[-1]['role']!r}")
        texts = [m["content"] for m in messages]
    last = texts[-1]
    if not all(isinstance(text, str) for text in texts) or not isinstance(last, str):
        raise InvalidInputError("a question is text: every content must be a string")
    if not last.strip():
        raise InvalidInputError("the question is empty")
    try:
        "".join(str(text) for text in texts).encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"the question is not valid Unicode text: {error}") from error


def _positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidInputError(f"{name} must be a whole number of at least 1, got {value!r}")
