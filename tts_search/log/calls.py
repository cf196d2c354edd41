"""Who runs the questions of one call: the engine alone, the engine over a log, or a log alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tts_search.core.job import Job
from tts_search.core.protocols import Question, Scorer
from tts_search.core.result import SearchResult
from tts_search.core.runner import Runner
from tts_search.errors import InvalidInputError, shown
from tts_search.log.file import SearchLog
from tts_search.log.recorded_runs import RecordedRuns
from tts_search.log.replay import AsRecorded, ReplayedRuns, Said


class Runs(Protocol):
    """Whatever searches questions as the core's `Runner` does."""

    async def run(self, question: Question, job: Job) -> SearchResult:
        """See `Runner.run`."""
        ...


@contextmanager
def runs_of(runner: Runner, job: Job, said: Mapping[str, Any]) -> Iterator[tuple[Runs, Job]]:
    """Who runs a call with these options (`log`, `replay`, and what of the choice it says), as long as it lasts.

    Raises:
        InvalidInputError: the log is none of ours or in use, or there is nothing to replay.
    """
    log, replay = said.get("log"), said.get("replay")
    if log is None:
        if replay:
            raise InvalidInputError("replay=True needs the log of the search: give log=...")
        yield runner, job
        return
    if not isinstance(log, str | Path | SearchLog):
        raise InvalidInputError(f"log is a file's path or a SearchLog, got {log!r}")
    if not replay:
        with opened(log) as file:
            yield RecordedRuns(runner, file, job), job
        return
    told = Said(
        selector=said.get("selector") is not None,
        aggregation=said.get("aggregation") is not None,
        extract=said.get("extract", "auto") != "auto",
    )
    with log_to_read(log) as file:
        yield ReplayedRuns(runner, file, job, told), job


def unless_given(scorer: Scorer | None, said: Mapping[str, Any]) -> Scorer | None:
    """The scorer of a call: a replay without one goes by the log's scores."""
    return AsRecorded() if scorer is None and said.get("replay") else scorer


@contextmanager
def log_to_read(log: str | Path | SearchLog) -> Iterator[SearchLog]:
    """A log that is there, to be read."""
    if isinstance(log, SearchLog):
        yield log
        return
    with SearchLog(log, write=False) as file:
        yield file


_open: dict[str, tuple[SearchLog, int]] = {}  # by real path: calls of one process may share a log
_lock = threading.Lock()


@contextmanager
def opened(log: str | Path | SearchLog) -> Iterator[SearchLog]:
    """A log to write; calls of this process that name the same file share it."""
    if isinstance(log, SearchLog):
        yield log
        return
    try:
        name = f"{os.getpid()} {os.path.realpath(log)}"
    except ValueError as error:  # no path has a zero byte
        raise InvalidInputError(f"log={shown(str(log))} is no path: {error}") from error
    with _lock:
        file, users = _open.get(name) or (SearchLog(log), 0)
        _open[name] = (file, users + 1)
    try:
        yield file
    finally:
        with _lock:
            file, users = _open.pop(name)
            if users > 1:
                _open[name] = (file, users - 1)
            else:
                file.close()
