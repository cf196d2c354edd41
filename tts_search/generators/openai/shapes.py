"""JSON as servers write it: into bytes, out of bytes, and into a shape whose fields have been checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from tts_search.errors import GeneratorError, MissingDependencyError

try:
    import msgspec
    from msgspec import Meta, Struct
except ImportError as error:
    raise MissingDependencyError(
        "an OpenAI-compatible endpoint needs msgspec: pip install 'tts-search[openai]'"
    ) from error

__all__ = ["Count", "Meta", "Struct", "from_json", "read_chunk", "shaped", "to_json"]

_Kind = TypeVar("_Kind", bound=Struct)

Count = Annotated[int, Meta(ge=0)]
"""A number of tokens, or a token's id."""


def to_json(body: Mapping[str, Any]) -> bytes:
    """A body, for sending. It holds no infinities."""
    return msgspec.json.encode(body)


def from_json(data: bytes) -> object:
    """What a server has sent, with the infinities that some of them write though JSON has none.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        try:
            return msgspec.json.decode(data)
        except msgspec.DecodeError:
            found = json.loads(data)
            msgspec.json.encode(found)  # no text has half a character in it: Python would read it, and nobody take it
            return found
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def shaped(kind: type[_Kind], raw: object) -> _Kind:
    """A value as a `kind`: fields that it does not name are passed over, numbers may come as text.

    Raises:
        ValueError: it is none; it says which field, and why.
    """
    try:
        return msgspec.convert(raw, kind, strict=False)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$")
        raise ValueError(f"{place.rstrip('`').lstrip('.') or 'the whole'}: {said}") from None


def read_chunk(kind: type[_Kind], raw: object, what: str, server: str, quote: Callable[[object], str]) -> _Kind:
    """A chunk of `what`, such as "a completion".

    Raises:
        GeneratorError: it is none.
    """
    try:
        return shaped(kind, raw)
    except ValueError as error:
        raise GeneratorError(f"{server} sent what is no chunk of {what} ({error}): {quote(raw)}") from None
