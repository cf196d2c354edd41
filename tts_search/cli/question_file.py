"""Questions of a file, one a line: objects with a `question`, or requests of OpenAI's batch format.

A line that cannot be used is an `Asked` with its error: it harms itself alone. A file is read as it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tts_search.checks import check_question
from tts_search.errors import InvalidInputError
from tts_search.shards import Shard


class Format(StrEnum):
    """What a line is, in and out."""

    PLAIN = "plain"
    OPENAI_BATCH = "openai-batch"


@dataclass(frozen=True, slots=True)
class Asked:
    """A line's question, or what is wrong with it. `line` counts from 1; `id` is the user's own name of it."""

    line: int
    id: Any
    question: Any
    error: str | None = None


NAMES = ("question", "prompt", "problem", "messages")
_URL = "/v1/chat/completions"
_IDLE = {"model", "user", "metadata", "store", "service_tier", "safety_identifier"}  # they decide no answer here
_NEUTRAL: Mapping[str, tuple[object, ...]] = {  # what says no more than leaving it out
    "stream": (False,),
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
}


def count_lines(path: Path) -> int:
    """How many lines hold something.

    Raises:
        InvalidInputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return sum(bool(line.strip()) for line in file)
    except OSError as error:
        raise InvalidInputError(f"--file {path} cannot be read: {error.strerror or error}") from error


def read_questions(path: Path, form: Format, shard: Shard | None, settings: Mapping[str, Any]) -> Iterator[Asked]:
    """The questions of a file, or of a part of it. `settings` are those of the run, which a request may repeat."""
    seen = set[bytes]()
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            asked = _read(number, raw, form, settings)
            mine = shard is None or shard.holds(raw.hex() if asked.error else asked.question)
            if form is Format.OPENAI_BATCH and asked.error is None:  # in whatever shard the first of a name is
                name = str(asked.id).encode("utf-8", "replace")
                if name in seen:
                    asked = Asked(number, asked.id, None, f"custom_id {asked.id!r} is there twice")
                seen.add(name)
            if mine:
                yield asked


def _read(number: int, raw: bytes, form: Format, settings: Mapping[str, Any]) -> Asked:
    name: Any = None
    try:
        value = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
        if isinstance(value, str) and form is Format.PLAIN:
            value = {"question": value}
        if not isinstance(value, dict):
            raise InvalidInputError(f"a JSON object is due, got {type(value).__name__}")
        name = value.get("custom_id" if form is Format.OPENAI_BATCH else "id")
        if not _is_json(name):
            name = None
            raise InvalidInputError("its id holds NaN, or a number that is too large: JSON has no such thing")
        question = _request(value, settings) if form is Format.OPENAI_BATCH else _plain(value)
        return Asked(number, name, check_question(question))
    except UnicodeDecodeError as error:
        return Asked(number, name, None, f"not UTF-8 text: byte 0x{raw[error.start]:02x} at {error.start}")
    except InvalidInputError as error:
        return Asked(number, name, None, str(error))
    except (ValueError, RecursionError) as error:
        return Asked(number, name, None, f"malformed JSON: {error}")


def _is_json(value: Any) -> bool:
    """Whether it can be written again as it was read: Python reads `NaN` and `1e999`, too."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _plain(value: Mapping[str, Any]) -> Any:
    found = [name for name in NAMES if name in value]
    if not found:
        raise InvalidInputError(f"none of {', '.join(NAMES)} is there, only {', '.join(map(str, value)) or 'nothing'}")
    return value[found[0]]


def _request(value: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    body = value.get("body")
    if not isinstance(value.get("custom_id"), str) or not isinstance(body, dict):
        raise InvalidInputError("a line of a batch has a custom_id, a text, and a body; see --format plain for others")
    if value.get("url", _URL) != _URL:
        raise InvalidInputError(f"url {value['url']!r}: only {_URL} is answered")
    for name, wanted in body.items():
        if name in _IDLE or name == "messages":
            continue
        known = _NEUTRAL.get(name) or (settings.get(name, ...),)
        if wanted is not None and wanted not in known:
            why = f"this run's is {known[0]!r}" if known[0] is not ... else "this command knows no such thing"
            raise InvalidInputError(f"body.{name} is {wanted!r}, and {why}: all lines of a file are searched alike")
    if "messages" not in body:
        raise InvalidInputError("body.messages is missing")
    return body["messages"]
