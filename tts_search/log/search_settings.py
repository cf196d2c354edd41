"""What the searches of one call have in common, as plain JSON values: what a log must know to tell them apart.

Two parts: `growth`, without which a tree cannot be grown again, and `choice`, which may be another at a replay.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tts_search.core.job import Job
from tts_search.core.protocols import Generator, Question, Scorer
from tts_search.log.file import SearchLog
from tts_search.log.identity import digest, digest_of, identity, identity_of_engine
from tts_search.scorers.aggregate import AGGREGATIONS
from tts_search.segmentation import rule_to_json
from tts_search.selection.votes import EXTRACTS

SETTINGS, QUESTION = b"S", b"q"

Settings = dict[str, Any]


def settings_of(generator: Generator, scorer: Scorer | None, only_new: bool, job: Job) -> Settings:
    """The settings of a job on an engine with a scorer."""
    return {
        "engine": identity_of_engine(generator),
        "context_tokens": generator.context_tokens,
        "growth": growth_of(job),
        "choice": choice_of(scorer, only_new, job),
        "found_rule": rule_to_json(job.segmenter.rule) if job.finds_rule else None,  # by asking the model
    }


def growth_of(job: Job) -> Settings:
    """What a replay must say again."""
    return {
        "strategy": identity(job.strategy) if " at 0x" in job.strategy_name else job.strategy_name,
        "budget": job.budget,
        "seed": job.seed,
        "early_stop": job.early_stop,
        "max_tokens": job.max_tokens,
        "answer_tokens": job.answer_tokens,
        "sampling": asdict(job.sampling),
        "step_rule": "auto" if job.finds_rule else typed(job.segmenter.rule),
        "thinking_tags": typed(job.segmenter.tags),
        "system": job.system,
        "seconds": job.seconds,
        "stop_when": None if job.stop_when is None else identity(job.stop_when),
    }


def choice_of(scorer: Scorer | None, only_new: bool, job: Job) -> Settings:
    """What a replay may say otherwise; names stand for what has one, identities for what is the user's."""
    return {
        "selector": job.selector.name,
        "aggregation": name_in(AGGREGATIONS, job.aggregate),
        "extract": name_in(EXTRACTS, job.extract),
        "scorer": None if scorer is None else identity(scorer),
        "only_new": only_new,
        "closes_steps": job.closes_steps,  # the scorer's wish
    }


def typed(thing: object) -> Any:
    """As it would be typed, or what it is where that tells nothing."""
    text = repr(thing)
    return identity(thing) if " at 0x" in text else text


def name_in(table: Mapping[str, object], thing: object) -> Any:
    """The name of a thing in a table, or what it is."""
    return next((name for name, value in table.items() if value is thing), None) or identity(thing)


def note_settings(log: SearchLog, settings: Settings) -> bytes:
    """Keep settings, once; their key."""
    key = digest_of(settings)
    log.add(SETTINGS, key, json.dumps(settings, ensure_ascii=True).encode())
    return key


def all_settings(log: SearchLog) -> list[tuple[bytes, Settings]]:
    """All settings of a log with their keys, oldest first."""
    return [(record.key, json.loads(record.content)) for record in log.of_kind(SETTINGS)]


def question_key(question: Question, settings_key: bytes) -> bytes:
    """Under what it is noted that a question was searched with these settings."""
    turns = question if isinstance(question, str) else [dict(turn) for turn in question]
    return digest(settings_key, json.dumps(turns, sort_keys=True, ensure_ascii=True).encode())


def differing(asked: Settings, held: Sequence[Settings]) -> str:
    """In words, what of `asked` the nearest of `held` has otherwise."""
    nearest = min(held, key=lambda one: len(_names(asked, one)))
    return ", ".join(f"{name}={nearest.get(name)!r}, not {asked.get(name)!r}" for name in _names(asked, nearest))


def _names(first: Settings, second: Settings) -> list[str]:
    return [name for name in {**first, **second} if first.get(name) != second.get(name)]
