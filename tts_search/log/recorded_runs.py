"""Searches over a log: the same face as the core's `Runner`, for one call's questions."""

from __future__ import annotations

import logging
from dataclasses import replace

from tts_search.core.events import Finished
from tts_search.core.job import Job
from tts_search.core.protocols import Question
from tts_search.core.result import SearchResult, StopReason
from tts_search.core.runner import Runner
from tts_search.core.scoring import Scoring, StepScoring
from tts_search.log.file import SearchLog
from tts_search.log.identity import digest_of, is_told
from tts_search.log.recording import Clock, RecordedGenerator, RecordedScoring
from tts_search.log.search_settings import QUESTION, Settings, note_settings, question_key, settings_of
from tts_search.log.whole_result import pack_result, unpack_result
from tts_search.scorers.engine_sprm import EngineSPRM

logger = logging.getLogger(__name__)

RESULT = b"r"


class RecordedRuns:
    """Questions of one call: what the log holds is not sampled again, and what is sampled is in the log at once.

    What depends on the clock or on the user (`seconds`, `stop_when`) cannot be found again token by token: such a
    question is kept whole when it has ended, and until then begun anew.
    """

    def __init__(self, runner: Runner, log: SearchLog, job: Job) -> None:
        scoring = runner.scoring
        assert scoring is None or isinstance(scoring, Scoring)
        self._runner, self._log, self._live = runner, log, scoring
        self._rule: object = None
        if not job.finds_rule:  # else once it is found
            self._note(job)

    def _note(self, job: Job) -> None:
        """Keep the settings of the call in the log."""
        if self._rule == job.segmenter.rule:
            return
        scoring = self._live
        scorer, only_new = (None, False) if scoring is None else (scoring.scorer, scoring.only_new)
        self._rule = job.segmenter.rule
        self._settings = settings_of(self._runner.generator, scorer, only_new, job)
        _warn_of_untold(self._settings)
        self._key = note_settings(self._log, self._settings)
        self._scoring = recorded_scoring(scoring, self._log, self._settings)

    async def run(self, question: Question, job: Job) -> SearchResult:
        """As `Runner.run`."""
        self._note(job)
        key = question_key(question, self._key)
        if job.seconds is not None or job.stop_when is not None:
            return await self._run_whole(question, job, key)
        self._log.add(QUESTION, key, b"")
        clock = Clock()
        generator = RecordedGenerator(
            engine=self._runner.generator,
            log=self._log,
            engine_key=digest_of(self._settings["engine"]),
            step_ids=job.segmenter.step_ids,
            clock=clock,
            context_tokens=self._settings["context_tokens"],
        )
        return await replace(self._runner, generator=generator, scoring=self._scoring, clock=clock).run(question, job)

    async def _run_whole(self, question: Question, job: Job, key: bytes) -> SearchResult:
        if (result := whole_result(self._log, key, question, job)) is not None:
            return result
        result = await self._runner.run(question, job)
        if result.stop_reason is not StopReason.HALTED:  # that is no end: the user wanted to go on later
            self._log.add(RESULT, key, pack_result(result))
        return result


def _warn_of_untold(settings: Settings) -> None:
    told = {
        "the engine": settings["engine"],
        "the scorer": settings["choice"]["scorer"],
        "stop_when": settings["growth"]["stop_when"],
    }
    for name, value in told.items():
        if not is_told(value):
            logger.warning(
                "%s holds what nobody can tell apart in another process, where nothing that is logged of it will be "
                "found again: give it an attribute `fingerprint`",
                name,
            )


def whole_result(log: SearchLog, key: bytes, question: Question, job: Job) -> SearchResult | None:
    """The result of a search that was kept whole, told to the call's handler of events."""
    content = log.get(RESULT, key)
    if content is None:
        return None
    result = replace(unpack_result(content), question=question)
    if not job.keep_tree:
        result = replace(result, tree=None)
    if job.on_event is not None:
        job.on_event(Finished(question, result))
    return result


def recorded_scoring(scoring: Scoring | None, log: SearchLog, settings: Settings) -> StepScoring | None:
    """The scorer over the log. What the engine's head said is in the completions: reading it costs nothing."""
    choice = settings["choice"]
    if choice["scorer"] is None or (scoring is not None and isinstance(scoring.scorer, EngineSPRM)):
        return scoring
    return RecordedScoring(scoring, log, digest_of(choice["scorer"]), only_new=choice["only_new"])
