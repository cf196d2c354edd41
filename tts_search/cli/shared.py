"""Options that commands share, as one parameter each: `engine: Engine` stands for `--model`, `--generator` and so on.

`grouped` shows Typer the options of a command one by one, and hands the command its groups.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints

from tts_search.cli import arguments as options


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Which model, and what runs it."""

    model: options.Model = None
    generator: options.GeneratorName = "auto"
    tokenizer: options.TokenizerName = None
    thinking_tags: options.ThinkingTags = None
    engine_arg: options.EngineArgs = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """What scores the steps, and what becomes of their scores."""

    scorer: options.ScorerName = "auto"
    head: options.Head = None
    aggregation: options.AggregationName = None
    step: options.Step = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What the model is asked, and how its tokens are drawn."""

    system: options.System = None
    seed: options.Seed = 0
    max_tokens: options.MaxTokens = 32_768
    answer_tokens: options.AnswerTokens = 1024
    temperature: options.Temperature = None
    top_p: options.TopP = None
    top_k: options.TopK = None
    min_p: options.MinP = None
    repetition_penalty: options.RepetitionPenalty = None

    @property
    def sampling(self) -> dict[str, float]:
        """What differs from the model's own settings."""
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters of a group's type are the options of that group, in their place."""
    hints = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    groups = {name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)}
    shown: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name in groups:
            shown += _options(groups[parameter.name])
        else:
            shown.append(parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**said: Any) -> None:
        for name, kind in groups.items():
            said[name] = kind(**{field.name: said.pop(field.name) for field in fields(kind)})
        command(**said)

    del run.__wrapped__  # pyright: ignore[reportAttributeAccessIssue]
    run.__signature__ = signature.replace(parameters=shown)  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return run


def _options(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=_default(field), annotation=hints[field.name]
        )
        for field in fields(group)
    ]


def _default(field: Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is MISSING else field.default
