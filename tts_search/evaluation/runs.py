"""Doing the searches of an evaluation, once each: what the log holds is taken from it, the rest is searched and graded.

One search is one record. It knows no statistics.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tts_search.api import Searcher
from tts_search.core.protocols import Strategy
from tts_search.core.result import SearchResult
from tts_search.core.tree import Tree
from tts_search.embedded import MODEL_FOLDER
from tts_search.errors import InvalidInputError
from tts_search.evaluation.datasets import Dataset, Problem
from tts_search.grading import Grader
from tts_search.grading.named import resolve_grader
from tts_search.log import beside
from tts_search.log.calls import opened
from tts_search.models import EMBEDDED, weights_of
from tts_search.options import SelectorLike
from tts_search.selection.selectors import resolve_selector
from tts_search.store import RunLog

Record = dict[str, Any]
GRADING_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How to search: what is compared. `label` is what people call it."""

    label: str
    strategy: Strategy
    budget: int | None = None
    selector: SelectorLike | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """How far a work is, in units such as searches; `resumed` of the `done` were in the log already."""

    done: int
    total: int
    resumed: int
    seconds: float
    label: str
    unit: str = "searches"

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before there is one."""
        made = self.done - self.resumed
        return None if not made else (self.total - self.done) * self.seconds / made


OnRun = Callable[[RunProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A data set, an engine, a grader and a log: what all settings share.

    Beside the log's file lies that of the searches, so that a search that was killed goes on where it was.
    `grader` is a function or a name, by default the data set's own. A record holds `correct`, the answer, the usage,
    the warnings, and for every candidate its score, mean log-probability, vote and, where it was answered, whether it
    is right. A search that failed is a record with its `error`, counts as wrong, and is tried again the next time. With
    `keep_tokens` every candidate also holds its `response_ids` (thinking and answer) and `step_ends`.
    """

    dataset: Dataset
    searcher: Searcher
    log: RunLog
    grader: Grader | str | None = None
    keep_tokens: bool = False

    @property
    def engine(self) -> dict[str, Any]:
        """What all searches share: the searcher's settings, and a digest of a local model's weights (see `weights`)."""
        settings, folder = self.searcher.settings, self.folder
        return {**settings, "weights": None if folder is None else weights(str(folder))}

    @property
    def folder(self) -> Path | None:
        """Where the searcher's model lies on this machine: its name in the settings is no path."""
        return getattr(self.searcher.generator, "folder", None)

    def run(
        self, settings: Sequence[Setting], *, repeats: int = 1, seed: int = 0, on_progress: OnRun | None = None
    ) -> list[list[list[Record]]]:
        """The records, `[settings][repeats][questions]`; repeat r searches with `seed + r`.

        Raises:
            InvalidInputError: an option cannot be used, or the grader refuses a reference (its message names which).
        """
        if repeats < 1:
            raise InvalidInputError(f"repeats must be at least 1, got {repeats}")
        if self.keep_tokens and not getattr(self.searcher.generator, "starts_anywhere", True):
            raise InvalidInputError(
                f"{self.searcher.generator.name!r} is a chat service, which shows no token ids to keep: take the model "
                "itself, or a server with /v1/completions"
            )
        counted = Ticker(len(settings) * repeats * len(self.dataset), on_progress)
        grade = self.grader if self.grader is not None else self.dataset.grader
        name = grade if isinstance(grade, str) else name_of(grade)
        grader = resolve_grader(grade) if isinstance(grade, str) else grade
        path = self.log.path
        try:
            with (
                ThreadPoolExecutor(GRADING_THREADS, thread_name_prefix="grading") as threads,
                nullcontext() if path is None else opened(beside(path)) as searches,
            ):
                search = partial(self.searcher.search_many, log=searches)
                return [
                    [
                        self._one(setting, seed + repeat, name, grader, threads, counted, search)
                        for repeat in range(repeats)
                    ]
                    for setting in settings
                ]
        finally:
            if isinstance(grade, str):
                getattr(grader, "close", lambda: None)()

    def _one(
        self,
        setting: Setting,
        seed: int,
        grader_name: str,
        grader: Grader,
        threads: ThreadPoolExecutor,
        counted: Ticker,
        search: Callable[..., Iterator[SearchResult]],
    ) -> list[Record]:
        problems, engine = self.dataset.problems, self.engine
        keys = [self._key(problem, setting, seed, grader_name, engine) for problem in problems]
        records = [self.log.get(key) for key in keys]
        missing = [i for i, record in enumerate(records) if not self._complete(record)]
        counted.resumed(len(problems) - len(missing), setting.label)

        def finish(place: int, result: SearchResult) -> None:
            self.log.add(keys[place], _record(result, problems[place], grader, keep_tokens=self.keep_tokens))
            counted.one(setting.label)

        grading: list[Future[None]] = []
        questions = [problems[i].question for i in missing]
        options = {"strategy": setting.strategy, "budget": setting.budget, "selector": setting.selector}
        for result in search(questions, seed=seed, **options):
            grading.append(threads.submit(finish, missing[result.index], result))
            _raise_first(grading)
        for future in grading:
            future.result()
        done = [self.log.get(key) for key in keys]
        return [record for record in done if record is not None]

    def _complete(self, record: Record | None) -> bool:
        if record is None or record["error"] is not None:
            return False
        return not self.keep_tokens or all("response_ids" in candidate for candidate in record["candidates"])

    def _key(self, problem: Problem, setting: Setting, seed: int, grader_name: str, engine: Record) -> Record:
        text = f"{problem.question}\0{problem.reference}".encode("utf-8", "replace")
        selector = setting.selector
        return {
            "dataset": self.dataset.name,
            "question": problem.id,
            "text": hashlib.blake2b(text, digest_size=8).hexdigest(),
            "strategy": name_of(setting.strategy),
            "budget": setting.budget,
            "selector": None if selector is None else resolve_selector(selector).name,
            "seed": seed,
            "grader": grader_name,
            **engine,
        }


def weights(model: str) -> str | None:
    """A digest of a local model's weight files (see `models.weights_of`); None for what has no folder here."""
    folder = MODEL_FOLDER if model == EMBEDDED else Path(model)
    return weights_of(folder) if folder.is_dir() else None


def name_of(thing: object) -> str:
    """What tells a strategy or a grader apart in every process: its `repr`, or its name where that is an address."""
    shown = repr(thing)
    return getattr(thing, "__qualname__", type(thing).__qualname__) if " at 0x" in shown else shown


class Ticker:
    """Tells how far a work of `total` units is, from any thread."""

    def __init__(self, total: int, on_progress: OnRun | None, unit: str = "searches") -> None:
        self._total, self._on_progress, self._unit = total, on_progress, unit
        self._done = self._resumed = 0
        self._lock = threading.Lock()
        self._began = time.monotonic()

    def resumed(self, count: int, label: str) -> None:
        """So many units were done before."""
        self._resumed += count
        self._done += count
        self._tell(label)

    def one(self, label: str) -> None:
        """One more unit is done."""
        with self._lock:
            self._done += 1
            self._tell(label)

    def _tell(self, label: str) -> None:
        if self._on_progress is not None:
            seconds = time.monotonic() - self._began
            self._on_progress(
                RunProgress(
                    done=self._done,
                    total=self._total,
                    resumed=self._resumed,
                    seconds=seconds,
                    label=label,
                    unit=self._unit,
                )
            )


def _raise_first(grading: list[Future[None]]) -> None:
    """A grader that cannot go on must not wait for the last search."""
    for future in [future for future in grading if future.done()]:
        grading.remove(future)
        future.result()


def _record(result: SearchResult, problem: Problem, grader: Grader, *, keep_tokens: bool) -> Record:
    def right(answer: str | None) -> bool | None:
        if answer is None:
            return None
        try:
            return bool(grader(answer, problem.reference))
        except InvalidInputError as error:
            raise InvalidInputError(f"question {problem.id!r}: {error}") from error

    error = result.error
    return {
        "correct": error is None and bool(right(result.answer)),
        "answer": result.answer,
        "score": _finite(result.score),
        "stop_reason": str(result.stop_reason),
        "error": None if error is None else f"{type(error).__name__}: {error}",
        "usage": asdict(result.usage),
        "warnings": list(result.warnings),
        "candidates": [
            {
                "score": _finite(c.score),
                "mean_logprob": _finite(c.mean_logprob),
                "vote": c.vote,
                "correct": right(c.answer),
                **(_tokens(result.tree, c.node) if keep_tokens and result.tree is not None else {}),
            }
            for c in result.candidates
        ],
    }


def _tokens(tree: Tree, index: int) -> Record:
    node = tree.nodes[index]
    return {"response_ids": list(tree.token_ids(tree.answered(node))), "step_ends": list(node.step_ends)}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
