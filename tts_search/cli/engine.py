"""A searcher from the options of a command. Shared by all commands that search."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tts_search.api import Searcher
from tts_search.cli.plugins import is_object, make_object
from tts_search.core.protocols import Generator, Scorer
from tts_search.models import EMBEDDED


def open_searcher(
    model: str | None,
    generator: str,
    scorer: str,
    max_tokens: int,
    answer_tokens: int,
    temperature: float | None,
    top_p: float | None,
    concurrency: int = 64,
) -> Searcher:
    """A searcher as the options ask for it: `scorer` "none" is none, a temperature of None the model's own."""
    judge: Any = make_object(scorer, "--scorer", Scorer) if ":" in scorer else None if scorer == "none" else scorer
    engine = make_object(generator, "--generator", Generator) if is_object(generator) else generator
    searcher = Searcher(
        model or EMBEDDED,
        generator=engine,
        scorer=judge,
        max_tokens=max_tokens,
        answer_tokens=answer_tokens,
        concurrency=concurrency,
    )
    if temperature is None and top_p is None:
        return searcher
    # Only the loaded engine knows the defaults of its model, which hold for what was not given.
    engine = searcher.generator
    own = engine.sampling
    sampling = replace(
        own,
        temperature=own.temperature if temperature is None else temperature,
        top_p=own.top_p if top_p is None else top_p,
    )
    return Searcher(
        generator=engine,
        scorer=judge,
        sampling=sampling,
        max_tokens=max_tokens,
        answer_tokens=answer_tokens,
        concurrency=concurrency,
    )
