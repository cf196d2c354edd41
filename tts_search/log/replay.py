"""A logged search again without its engine, and another choice among its paths.

The tree is grown as it was, by the strategy, seed and limits that the call says again, and by the selector, aggregation
and scorer of the log. What the call says otherwise of these three chooses among the paths that are there, and the
result says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tts_search.core.job import Job, Rechoice
from tts_search.core.protocols import Question, Selector
from tts_search.core.result import SearchResult
from tts_search.core.runner import Runner
from tts_search.core.scoring import Scoring, StepScoring
from tts_search.core.tree import Trajectory
from tts_search.errors import InvalidInputError, NotRecordedError, ScorerError
from tts_search.log.file import SearchLog
from tts_search.log.identity import digest_of, identity
from tts_search.log.recorded_runs import RESULT, whole_result
from tts_search.log.recording import Clock, RecordedGenerator, RecordedScoring
from tts_search.log.search_settings import (
    QUESTION,
    Settings,
    all_settings,
    choice_of,
    differing,
    growth_of,
    question_key,
)
from tts_search.scorers.aggregate import AGGREGATIONS
from tts_search.scorers.engine_sprm import EngineSPRM
from tts_search.segmentation import Segmenter, rule_from_json
from tts_search.selection.selectors import SELECTORS
from tts_search.selection.votes import EXTRACTS, means_values, merge_votes


class AsRecorded:
    """The scorer of a replay that brings none: the log's scores, whoever gave them."""

    def score(self, trajectories: Sequence[Trajectory]) -> Sequence[Sequence[float]]:
        """Never asked for any."""
        raise ScorerError(f"the log has no scores for {len(trajectories)} paths, and no scorer was given")


@dataclass(frozen=True, slots=True)
class Said:
    """What of the choice a call says itself; the rest is as it was recorded."""

    selector: bool
    aggregation: bool
    extract: bool


class ReplayedRuns:
    """Questions of one call, found in a log; no engine is asked. The same face as the core's `Runner`."""

    def __init__(self, runner: Runner, log: SearchLog, job: Job, said: Said) -> None:
        self._runner, self._log, self._said = runner, log, said
        scoring = runner.scoring
        own = scoring if isinstance(scoring, Scoring) and not isinstance(scoring.scorer, AsRecorded) else None
        self._own = own
        self._segmenters: dict[str, Segmenter] = {}
        self._growth = growth_of(job)
        self._choice = choice_of(None if own is None else own.scorer, own is not None and own.only_new, job)
        self._held = all_settings(log)
        if not self._held:
            raise InvalidInputError(f"{log.path} holds no search: there is nothing to replay")

    async def run(self, question: Question, job: Job) -> SearchResult:
        """The search of the log, and the call's choice.

        Raises:
            NotRecordedError: the log does not hold this question, under these settings, or not to its end.
            InvalidInputError: what the log was recorded with is not at hand.
        """
        key, settings = self._find(question)
        if settings["found_rule"] is not None:
            job = replace(job, segmenter=self._segmenter(settings["found_rule"], job))
        again = self._rechoice(settings["choice"], job)
        if self._log.get(RESULT, key) is not None:
            return self._whole(key, question, job, again)
        guide = self._guide(settings["choice"], job)
        generator = RecordedGenerator(
            engine=self._runner.generator,
            log=self._log,
            engine_key=digest_of(settings["engine"]),
            step_ids=job.segmenter.step_ids,
            clock=Clock(),
            context_tokens=settings["context_tokens"],
            asks=False,
        )
        scoring = self._scoring(settings["choice"])
        runner = replace(self._runner, generator=generator, scoring=scoring, clock=generator.clock)
        try:
            return await runner.run(question, replace(guide, rechoice=again))
        except NotRecordedError as error:
            raise NotRecordedError(
                f"{error}: this question's search is not in the log to its end, or model and tokenizer are not the "
                f"log's ({settings['engine']['name']!r}): the same call with the engine, without replay, goes on"
            ) from error

    def _segmenter(self, rule: Any, job: Job) -> Segmenter:
        """One with the rule that was found then, by asking the model."""
        name = repr(rule)
        if name not in self._segmenters:
            tokenizer = self._runner.generator.tokenizer
            self._segmenters[name] = Segmenter(tokenizer, rule_from_json(rule), thinking_tags=job.segmenter.tags)
        return self._segmenters[name]

    def _find(self, question: Question) -> tuple[bytes, Settings]:
        """The settings under which the question was searched as the call says: the nearest to its choice, the last."""
        held = [(question_key(question, key), settings) for key, settings in self._held]
        here = [(key, s) for key, s in held if self._log.get(QUESTION, key) is not None or self._log.get(RESULT, key)]
        fitting = [(key, settings) for key, settings in here if settings["growth"] == self._growth]
        if fitting:
            return max(reversed(fitting), key=lambda pair: self._alike(pair[1]["choice"]))
        text = question if isinstance(question, str) else question[-1]["content"]
        if here:
            why = differing(self._growth, [settings["growth"] for _, settings in here])
            raise NotRecordedError(f"{self._log.path} holds the question {text[:60]!r} with {why}: say the same again")
        raise NotRecordedError(f"{self._log.path} does not hold the question {text[:60]!r}: search it with the engine")

    def _alike(self, choice: Settings) -> int:
        return sum([choice[name] == value for name, value in self._choice.items()])

    def _guide(self, choice: Settings, job: Job) -> Job:
        """How the tree was grown."""
        selector = job.selector if job.selector.name == choice["selector"] else SELECTORS.get(choice["selector"])
        extract = self._named("extract", choice, EXTRACTS, job.extract)
        aggregate = self._named("aggregation", choice, AGGREGATIONS, job.aggregate)
        if selector is None:
            raise _missing("selector", choice["selector"], self._log)
        return replace(
            job,
            selector=selector,
            extract=extract,
            aggregate=aggregate,
            merge=_merge(selector, extract),
            closes_steps=choice["closes_steps"],
        )

    def _named(self, name: str, choice: Settings, table: Any, own: Any) -> Any:
        recorded = choice[name]
        if recorded == self._choice[name]:
            return own
        found = table.get(recorded) if isinstance(recorded, str) else None
        if found is None:
            raise _missing(name, recorded, self._log)
        return found

    def _scoring(self, choice: Settings) -> StepScoring | None:
        """The log's scorer: what it said, and it itself where the call brings it."""
        if choice["scorer"] is None:
            return None
        if choice["scorer"] == identity(EngineSPRM()):
            return Scoring(EngineSPRM())
        same = self._own is not None and self._choice["scorer"] == choice["scorer"]
        live = self._own if same else None
        return RecordedScoring(live, self._log, digest_of(choice["scorer"]), only_new=choice["only_new"])

    def _rechoice(self, choice: Settings, job: Job) -> Rechoice | None:
        """What the call says otherwise than the log; None where it says the same."""
        asked = dict(choice)
        for name in ("selector", "aggregation", "extract"):
            if getattr(self._said, name):
                asked[name] = self._choice[name]
        rescores = self._own is not None and self._choice["scorer"] != choice["scorer"]
        if rescores:
            asked["scorer"] = self._choice["scorer"]
        changed = [name for name in ("selector", "aggregation", "extract", "scorer") if asked[name] != choice[name]]
        if not changed:
            return None
        selector = job.selector if self._said.selector else SELECTORS.get(choice["selector"], job.selector)
        if selector.needs_scores and asked["scorer"] is None:
            raise InvalidInputError(
                f"selector {selector.name!r} needs step scores, and {self._log.path} was recorded without a scorer: "
                "give one, or another selector"
            )
        extract = job.extract if self._said.extract else self._named("extract", choice, EXTRACTS, job.extract)
        told = [f"{name} {_short(asked[name])} instead of {_short(choice[name])}" for name in changed]
        return Rechoice(
            selector=selector,
            aggregate=self._aggregate(choice, job),
            extract=extract,
            merge=_merge(selector, extract),
            scoring=self._own if rescores else None,
            note=f"chosen again among the paths of {self._log.path.name}: {', '.join(told)}",
        )

    def _aggregate(self, choice: Settings, job: Job) -> Any:
        return (
            job.aggregate if self._said.aggregation else self._named("aggregation", choice, AGGREGATIONS, job.aggregate)
        )

    def _whole(self, key: bytes, question: Question, job: Job, again: Rechoice | None) -> SearchResult:
        result = whole_result(self._log, key, question, job)
        assert result is not None
        if again is not None:
            raise InvalidInputError(
                f"{self._log.path} holds this question as the clock ended it: it can be replayed as it was, and not "
                f"chosen from again ({again.note})"
            )
        return result


def _merge(selector: Selector, extract: Any) -> Any:
    return merge_votes if selector.needs_answers and means_values(extract) else None


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("repr") or value.get("class") or value.get("function"))
    return str(value)


def _missing(name: str, value: Any, log: SearchLog) -> InvalidInputError:
    return InvalidInputError(f"{log.path} was recorded with {name}={_short(value)}: give the same again to replay it")
