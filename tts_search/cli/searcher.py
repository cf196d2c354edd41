"""A searcher from the options of a command, and objects of the user's by name: `package.module:Object`.

It knows nothing of what such objects do.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from tts_search.api import Searcher
from tts_search.core.protocols import Generator, Scorer
from tts_search.discovery import instantiate
from tts_search.errors import InvalidInputError
from tts_search.models import EMBEDDED


def is_object(name: str) -> bool:
    """Whether a name is meant as `package.module:Object`; a URL is not."""
    return ":" in name and "://" not in name


def import_object(name: str, option: str) -> Any:
    """The object that `package.module:Object` names, from an installed package or the current folder."""
    module, _, path = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInputError(f"{option} {name} cannot be imported: {error}") from error
    return found


def make_object(name: str, option: str, kind: type) -> Any:
    """An object of the user's: as it is, or what its class or a function without arguments makes."""
    return instantiate(import_object(name, option), kind, f"{option} {name}")


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
    return Searcher(
        model or EMBEDDED,
        generator=make_object(generator, "--generator", Generator) if is_object(generator) else generator,
        scorer=judge,
        max_tokens=max_tokens,
        answer_tokens=answer_tokens,
        sampling={name: v for name, v in (("temperature", temperature), ("top_p", top_p)) if v is not None},
        concurrency=concurrency,
    )
