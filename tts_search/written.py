"""Values as people write them on a command line or in a request: read and checked, never evaluated.

It knows signatures and annotations, and nothing of what is called.
"""

from __future__ import annotations

import ast
import inspect
import json
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tts_search.errors import InvalidInputError

MAX_LENGTH = 2000  # characters of one call; nobody writes more by hand, and a parser's depth has its limits
_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "none": None, "null": None}
_KINDS: Sequence[tuple[type, type | tuple[type, ...], str]] = (  # annotation, what fits it, how it is called
    (bool, bool, "true or false"),
    (int, int, "a whole number"),
    (float, (int, float), "a number"),
    (str, str, "a text"),
    (Path, (str, Path), "a path"),
    (Mapping, Mapping, "a mapping"),
    (Sequence, (list, tuple), "a list"),
)


def read_call(text: str, make: Callable[[str, Sequence[Any], Mapping[str, Any]], Any]) -> Any:
    """What `make(name, places, names)` makes of `"Name(1, setting=2)"`; arguments may be such calls themselves.

    A name is any text without a bracket; bare words and `Until.STEP` as values are the texts "STEP" and so on.

    Raises:
        InvalidInputError: the text is no such call.
    """
    name, bracket, rest = text.partition("(")
    try:
        if not bracket or len(text) > MAX_LENGTH:
            raise ValueError
        call = ast.parse(f"_({rest.strip()}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "_":
            raise ValueError
        return _made(name.strip(), call, make)
    except InvalidInputError:
        raise
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        shown = text if len(text) <= 200 else f"{text[:200]}..."
        raise InvalidInputError(f"{shown} cannot be read: write NAME(setting=value, ...)") from None


def _made(name: str, call: ast.Call, make: Callable[[str, Sequence[Any], Mapping[str, Any]], Any]) -> Any:
    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return _made(node.func.id, node, make)
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return node.attr
        return ast.literal_eval(node)

    names = [word.arg for word in call.keywords]
    if None in names or len(set(names)) < len(names):
        raise ValueError
    return make(name, [value(node) for node in call.args], {str(w.arg): value(w.value) for w in call.keywords})


def split_calls(text: str) -> list[str]:
    """The parts between commas, but for commas inside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


class Unread(str):
    """A value that was written without quotes: what is to be made of it, the one who takes it knows."""

    __slots__ = ()


def read_value(text: str) -> Any:
    """A JSON or Python literal as what it is, else the text itself: `4`, `true`, `None`, `{"a": [1, 2]}`, `bf16`."""
    word = text.strip()
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    for read in (json.loads, ast.literal_eval):
        try:
            return read(word) if len(word) <= MAX_LENGTH else str(text)
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            continue
    return str(text)


@dataclass(frozen=True, slots=True)
class Bound:
    """A call that its signature allows; `arguments` are by name."""

    what: Callable[..., Any]
    arguments: Mapping[str, Any]
    _bound: inspect.BoundArguments

    def make(self) -> Any:
        """Do the call."""
        return self.what(*self._bound.args, **self._bound.kwargs)


def bind(
    what: Callable[..., Any], label: str, places: Sequence[Any], names: Mapping[str, Any], *, partly: bool = False
) -> Bound:
    """`what(*places, **names)`, checked against the signature; with `partly` something may be missing.

    Raises:
        InvalidInputError: an argument that it does not take, of a kind that it does not take, or one too few. The
            message calls it `label`, and lists what it takes.
    """
    signature = inspect.signature(what)
    known = accepted(what)
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    for name in names.keys() - known.keys() if not takes_any else ():
        offered = f"choose from {', '.join(known)}" if known else "it takes none"
        raise InvalidInputError(f"{label} has no {name!r}: {offered}")
    if places and not _takes_places(signature, len(places)):
        example = ", ".join(f"{name}=..." for name in list(known)[:2])
        raise InvalidInputError(f"say by name what {places[0]!r} is, as in {label}({example})")
    try:
        bound = (signature.bind_partial if partly else signature.bind)(*places, **names)
    except TypeError as error:
        raise InvalidInputError(f"{label}: {error}") from None
    for name in bound.arguments.keys() & known.keys():
        value = bound.arguments[name]
        try:
            bound.arguments[name] = fitted(value, known[name])
        except ValueError:
            wanted = kind_of(known[name])
            raise InvalidInputError(f"{name} of {label} must be {wanted}, got {value!r}") from None
    return Bound(what, bound.arguments, bound)


def _takes_places(signature: inspect.Signature, count: int) -> bool:
    kinds = [p.kind for p in signature.parameters.values()]
    placed = sum(k in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for k in kinds)
    return inspect.Parameter.VAR_POSITIONAL in kinds or placed >= count


def accepted(what: Callable[..., Any]) -> dict[str, Any]:
    """The names that it takes, each with its annotation."""
    parameters = inspect.signature(what).parameters.values()
    hinted = what.__init__ if isinstance(what, type) else what
    try:
        hints = get_type_hints(hinted)
    except Exception:  # annotations of other people's, which need not be importable
        hints = {}
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name: hints.get(p.name, Any) for p in parameters if p.kind not in variable}


def fitted(value: Any, annotation: Any) -> Any:
    """The value as the annotation wants it; one that is not understood takes anything.

    Raises:
        ValueError: it does not fit.
    """
    if isinstance(value, Unread):
        return _first(lambda reading: fitted(reading, annotation), (read_value(value), str(value)))
    origin = get_origin(annotation) or annotation
    if origin in (Union, types.UnionType):
        return _first(lambda option: fitted(value, option), get_args(annotation))
    if origin is Literal:
        if any(value == option and type(value) is type(option) for option in get_args(annotation)):
            return value
        raise ValueError
    if origin in (None, type(None)):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            return None
        raise ValueError
    if isinstance(origin, type) and issubclass(origin, Enum):
        return next((m for m in origin if value in (m, m.value, m.name)), None) or _refuse()
    if getattr(origin, "_is_runtime_protocol", False) and not isinstance(value, origin):
        raise ValueError
    for kind, fits, _ in _KINDS:
        if origin is kind or (kind in (Mapping, Sequence) and isinstance(origin, type) and issubclass(origin, kind)):
            if kind is bool and isinstance(value, str) and value.lower() in ("true", "false"):
                return value.lower() == "true"
            return value if isinstance(value, fits) and (kind is bool or not isinstance(value, bool)) else _refuse()
    return value


def _refuse() -> Any:
    raise ValueError


def _first(fit: Callable[[Any], Any], options: Sequence[Any]) -> Any:
    for option in options:
        try:
            return fit(option)
        except ValueError:
            continue
    raise ValueError


def kind_of(annotation: Any) -> str:
    """What an annotation wants, in words."""
    origin = get_origin(annotation) or annotation
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(kind_of(option) for option in get_args(annotation)))
    if origin is Literal:
        return " or ".join(map(str, get_args(annotation)))
    if origin in (None, type(None)):
        return "none"
    if isinstance(origin, type) and issubclass(origin, Enum):
        return " or ".join(str(member.value) for member in origin)
    return next((said for kind, _, said in _KINDS if origin is kind), f"a {getattr(origin, '__name__', origin)}")
