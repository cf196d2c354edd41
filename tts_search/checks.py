"""What a question and the values of options must be. Every refusal names the option and the value."""

from __future__ import annotations

import inspect
import json
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from tts_search.core.protocols import Messages, Question
from tts_search.errors import InvalidInputError, shown, told


def with_texts(messages: Messages) -> list[dict[str, Any]]:
    """Chat messages whose contents are texts: a list of text parts is joined.

    Raises:
        InvalidInputError: a part is no text.
    """
    return [{**turn, "content": _text(turn["content"])} for turn in messages]


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise InvalidInputError(
            f"a question is text: every content must be a string or a list of text parts, got {content!r}"
        )
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        text = part.get("text") if isinstance(part, Mapping) and kind == "text" else None
        if not isinstance(text, str):
            raise InvalidInputError(f"a question is text: a content part of type {kind!r} cannot be read")
        texts.append(text)
    return "".join(texts)


def check_question(question: object) -> Question:
    """The question, with its contents as plain texts.

    Raises:
        InvalidInputError: it is empty, no text, holds a NaN, or does not end with the user's turn.
    """
    if isinstance(question, str):
        checked, texts = question, [question]
    else:
        if isinstance(question, Mapping) or not isinstance(question, Sequence):
            raise InvalidInputError(f"a question is a text or a list of chat messages, got {question!r}")
        turns: list[Any] = list(question)
        if not turns or any(not isinstance(m, Mapping) or not {"role", "content"} <= m.keys() for m in turns):
            raise InvalidInputError("chat messages are a non-empty list of {'role': ..., 'content': ...}")
        if turns[-1]["role"] != "user":
            raise InvalidInputError(f"the last message must be the user's, its role is {turns[-1]['role']!r}")
        checked = with_texts(turns)
        try:
            json.dumps(checked, allow_nan=False, default=repr)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInputError(f"chat messages hold what JSON has no words for: {error}") from None
        texts = [turn["content"] for turn in checked]
    if not texts[-1].strip():
        raise InvalidInputError("the question is empty")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"the question is not valid Unicode text: {error}") from error
    return checked


def check_questions(questions: Any) -> Iterable[Question]:
    """Many questions: a list of them, or whatever else one can go through.

    Raises:
        InvalidInputError: it is one question, or nothing that can be gone through.
    """
    if isinstance(questions, str | bytes | Mapping):
        raise InvalidInputError(f"many questions are a list of questions, got {shown(questions)}: put one in a list")
    if not isinstance(questions, Iterable):
        raise InvalidInputError(f"many questions are a list, or another iterable of questions, got {shown(questions)}")
    return questions


def check_whole(name: str, value: object, *, at_least: int | None = None) -> int:
    """A whole number as an `int`, numpy's too.

    Raises:
        InvalidInputError: it is none, or too small.
    """
    limit = "" if at_least is None else f" of at least {at_least}"
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise InvalidInputError(f"{name} must be a whole number{limit}, got {value!r}") from None
    if at_least is not None and number < at_least:
        raise InvalidInputError(f"{name} must be a whole number{limit}, got {value!r}")
    return number


def check_callable(name: str, value: Any) -> Any:
    """The value.

    Raises:
        InvalidInputError: it cannot be called.
    """
    if not callable(value):
        raise InvalidInputError(f"{name} must be callable, got {value!r}")
    return value


def check_function(name: str, value: Any) -> Any:
    """The value.

    Raises:
        InvalidInputError: it cannot be called, or a call of it does nothing yet: its like are awaited, or gone through.
    """
    check_callable(name, value)
    check_no_class(name, value)
    for function in (value, getattr(value, "__call__", None)):  # noqa: B004 - an object's own may be async
        for kind in (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction):
            if kind(function):
                raise InvalidInputError(
                    f"{name} must be a plain function, neither async nor a generator; got {value!r}"
                )
    return value


def check_yes_or_no(name: str, value: object) -> bool:
    """True or False, numpy's too.

    Raises:
        InvalidInputError: it is neither.
    """
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return bool(value)
    raise InvalidInputError(f"{name} must be True or False, got {value!r}")


def check_seconds(name: str, value: Any) -> float | None:
    """A limit of time, None for no limit.

    Raises:
        InvalidInputError: it is no number above 0.
    """
    if value is None:
        return None
    if not is_number(value) or not value > 0:
        raise InvalidInputError(f"{name} must be positive, or None for no limit; got {value!r}")
    return float(value)


def is_number(value: Any) -> bool:
    """Whether it is a number; True, False and NaN are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def check_repr(name: str, value: object) -> str:
    """How a value would be typed: it stands in results, logs and errors.

    Raises:
        InvalidInputError: its own code for that raised.
    """
    try:
        return repr(value)
    except BaseException as error:
        raise InvalidInputError(f"{name}: the repr of {type(value).__qualname__} raised {told(error)}") from error


def check_complete(what: str, value: Any, kind: type) -> Any:
    """The value.

    Raises:
        InvalidInputError: it lacks something of the protocol `kind`.
    """
    missing = [name for name in vars(kind) if not name.startswith("_") and not hasattr(value, name)]
    if missing:
        raise InvalidInputError(f"{what}={shown(value)} is no {kind.__name__}: it has no {', '.join(missing)}")
    return value


def check_no_class(what: str, value: object) -> None:
    """Refuse a class where an object of it is due.

    Raises:
        InvalidInputError: it is one.
    """
    if isinstance(value, type):
        raise InvalidInputError(f"{what}={value.__name__} is a class: give an object of it, {value.__name__}(...)")
