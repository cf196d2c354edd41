"""A searcher from the options of a command, and objects of the user's by name: `package.module:Object`.

It knows nothing of what such objects do.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tts_search.api import Searcher
from tts_search.cli.arguments import engine_arguments
from tts_search.cli.shared import Drawing, Engine, Scoring
from tts_search.core.protocols import Generator, Scorer, Strategy
from tts_search.discovery import instantiate
from tts_search.errors import GeneratorError, InvalidInputError
from tts_search.models import EMBEDDED
from tts_search.options import GENERATORS, is_url
from tts_search.scorers.published import is_checkpoint
from tts_search.selection.selectors import SELECTORS
from tts_search.strategies import naming
from tts_search.written import bind


def is_object(name: str) -> bool:
    """Whether a name is meant as `package.module:Object` or `file.py:Object`; a URL is not."""
    return ":" in name and "://" not in name


def import_object(name: str, option: str) -> Any:
    """The object that `package.module:Object` or `file.py:Object` names; modules of the current folder count."""
    module, _, path = name.rpartition(":")
    if module.endswith(".py"):
        return _attribute(lambda: _from_file(module, option), name, path, option)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    return _attribute(lambda: importlib.import_module(module), name, path, option)


def _attribute(load: Callable[[], Any], name: str, path: str, option: str) -> Any:
    try:
        found = load()
        for part in path.split("."):
            found = getattr(found, part)
    except InvalidInputError:
        raise
    except (ImportError, AttributeError) as error:
        raise InvalidInputError(f"{option} {name} cannot be imported: {error}") from error
    except Exception as error:  # an import runs the user's code, which raises what it likes
        raise InvalidInputError(f"{option} {name} cannot be imported: {type(error).__name__}: {error}") from error
    return found


def _from_file(file: str, option: str) -> Any:
    place = Path(file).expanduser()
    if not place.is_file():
        raise InvalidInputError(f"{option}: the file {file} is not there")
    spec = importlib.util.spec_from_file_location(place.stem, place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(place.stem, module)  # dataclasses and pickles look themselves up
    spec.loader.exec_module(module)
    return module


def make_object(name: str, option: str, kind: type) -> Any:
    """An object of the user's: as it is, or what its class or a function without arguments makes."""
    return instantiate(import_object(name, option), kind, f"{option} {name}")


def read_strategy(text: str, option: str = "--strategy") -> Strategy:
    """A strategy as `naming.read_strategy` reads it, or `package.module:Object`, with settings or without."""
    try:
        return naming.read_strategy(
            text,
            find=lambda name: import_object(name, option) if is_object(name) else None,
            others=", package.module:Object",
        )
    except InvalidInputError as error:
        raise InvalidInputError(f"{option}: {error}") from error


def check_engine(engine: Engine) -> None:
    """Refuse before anything is loaded what cannot become an engine.

    Raises:
        InvalidInputError: options that exclude each other.
    """
    if engine.model is not None and is_object(engine.generator):
        raise InvalidInputError(f"--generator {engine.generator} brings its own model: leave --model out")
    if engine.tokenizer is not None and engine.generator in GENERATORS and not is_url(engine.model):
        raise InvalidInputError(
            f"--tokenizer {engine.tokenizer} is for a server, and its URL is not given: a model here has its own"
        )


def check_search(
    strategy: Strategy, scorer: str, selector: str | None = None, *, early_stop: float | None = None, ends: bool = True
) -> None:
    """Refuse before anything is loaded what goes with nothing else; `ends` says whether something limits a search.

    Raises:
        InvalidInputError: scores are needed and `scorer` is none, a search would not end, or nobody can tell a lead.
    """
    chooses = SELECTORS[selector or ("majority" if scorer == "none" else "best")]
    if scorer == "none" and getattr(strategy, "needs_scores", False):
        raise InvalidInputError(
            f"{type(strategy).__name__} goes where step scores are high, and --scorer none gives none: name a scorer, "
            "or take best_of_n, which can do without"
        )
    if scorer == "none" and chooses.needs_scores:
        raise InvalidInputError(f"--selector {selector} needs step scores: use --selector majority, or a scorer")
    if getattr(strategy, "endless", False) and not ends:
        raise InvalidInputError(
            f"{type(strategy).__name__} searches until it is stopped: give it a budget, such as budget=160_000"
        )
    if early_stop is not None and chooses.decided is None:
        raise InvalidInputError(f"--early-stop needs a selector that can tell a lead, and --selector {selector} cannot")


def open_searcher(
    engine: Engine, drawing: Drawing, scoring: Scoring | None = None, *, extract: str = "auto", concurrency: int = 64
) -> Searcher:
    """A searcher as the options ask for it; without `scoring` nothing is scored.

    Raises:
        InvalidInputError: what they say cannot be used, or names a server that cannot.
    """
    check_engine(engine)
    arguments: dict[str, Any] = {**engine_arguments(engine.engine_arg)}
    if scoring is not None and scoring.head is not None:
        arguments["head"] = None if scoring.head == "none" else scoring.head
    if engine.tokenizer is not None:
        arguments["tokenizer"] = engine.tokenizer
    generator: Any = engine.generator
    if is_object(generator):
        found = import_object(generator, "--generator")
        if arguments:
            found = bind(found, f"--generator {generator}", (), arguments).make()
        generator, arguments = instantiate(found, Generator, f"--generator {engine.generator}"), {}
    try:
        return Searcher(
            engine.model or EMBEDDED,
            generator=generator,
            scorer=None if scoring is None else _scorer(scoring.scorer),
            engine_args=arguments,
            aggregation=None if scoring is None else _function(scoring.aggregation, "--aggregation"),
            extract=_function(extract, "--extract"),
            step_rule=None if scoring is None else scoring.step,
            thinking_tags=engine.thinking_tags or "auto",
            system=drawing.system,
            max_tokens=drawing.max_tokens,
            answer_tokens=drawing.answer_tokens,
            sampling=drawing.sampling,
            concurrency=concurrency,
        )
    except GeneratorError as error:  # no search has failed: no server, or none that lets us in, is at the address
        raise InvalidInputError(str(error)) from error


def _scorer(name: str) -> Any:
    if ":" in name and not is_checkpoint(name):
        return make_object(name, "--scorer", Scorer)
    return None if name == "none" else name


def _function(name: str | None, option: str) -> Any:
    if name is None or ":" not in name:
        return name
    found = import_object(name, option)
    if not callable(found):
        raise InvalidInputError(f"{option} {name} is no function: it is {found!r}")
    return found
