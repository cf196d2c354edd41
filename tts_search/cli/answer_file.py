"""The answers to a file of questions, a line each as they come: gone on with after a kill, in order at the end.

Whose a file is, its lines say: the number of the question's line, and a key of the settings and of the question.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from tts_search.cli.question_file import Asked, Format
from tts_search.core.result import SearchResult, StopReason
from tts_search.errors import InvalidInputError
from tts_search.log.identity import digest_of
from tts_search.whole_files import replacing

_STARTS = (b'{"line": ', b'{"id": "batch_req_')
_BATCH_ID = re.compile(r"batch_req_(\d+)_([0-9a-f]{24})_([0-9a-f]{24})")


class Known(NamedTuple):
    """What an answer's line says of itself."""

    line: int
    settings: str
    question: str
    failed: bool


def key_of(value: Any) -> str:
    """A key of plain JSON values, in hexadecimal digits."""
    return digest_of(value).hex()


def answer_line(asked: Asked, result: SearchResult | None, form: Format, settings: str) -> bytes:
    """A question's line: its result, or what was wrong with it."""
    question = key_of(asked.question)
    error = asked.error
    if result is not None and result.error is not None:
        error = str(result.error)
    if form is Format.OPENAI_BATCH:
        value = _batch(asked, result, error, f"batch_req_{asked.line}_{settings}_{question}")
    else:
        value = {"line": asked.line, "id": asked.id, "question": asked.question, **_plain(result, error)}
        value["key"] = f"{settings}_{question}"
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _plain(result: SearchResult | None, error: str | None) -> dict[str, Any]:
    if result is None or error is not None:
        return {"answer": None, "error": error}
    told = result.to_dict()
    names = ("answer", "thinking", "score", "stop_reason", "usage", "strategy", "selector", "model", "seed", "budget")
    return {**{name: told[name] for name in names}, "warnings": list(result.warnings), "error": None}


def _batch(asked: Asked, result: SearchResult | None, error: str | None, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"id": name, "custom_id": asked.id, "response": None, "error": None}
    if result is None or error is not None:
        return found | {"error": {"code": "invalid_request" if asked.error else "search_failed", "message": error}}
    message = {"role": "assistant", "content": result.answer, "reasoning_content": result.thinking}
    cut = result.stop_reason in (StopReason.LENGTH, StopReason.BUDGET) and not result.answer
    usage = result.usage
    body = {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": result.model,
        "choices": [{"index": 0, "message": message, "finish_reason": "length" if cut else "stop", "logprobs": None}],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.sampled_tokens,
            "total_tokens": usage.prompt_tokens + usage.sampled_tokens,
        },
        "search": {"score": result.score, "stop_reason": str(result.stop_reason), "warnings": list(result.warnings)},
    }
    return found | {"response": {"status_code": 200, "request_id": name, "body": body}}


def read_line(raw: bytes) -> Known | None:
    """What a line says of itself; None for one that no answer file of ours holds."""
    try:
        value = json.loads(raw)
        if "key" in value:
            settings, question = value["key"].split("_")
            return Known(int(value["line"]), settings, question, value["error"] is not None)
        found = _BATCH_ID.fullmatch(value["id"])
        assert found is not None
        return Known(int(found[1]), found[2], found[3], value["error"] is not None)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        return None


def lines_of(path: Path) -> Iterator[tuple[bytes, Known]]:
    """The whole lines of an answer file; the one that a killed process was writing is passed over.

    Raises:
        InvalidInputError: a line is no answer.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.endswith(b"\n"):
                if any(raw.startswith(start) or start.startswith(raw) for start in _STARTS):
                    return
                raise _foreign(path, number)
            known = read_line(raw)
            if known is None:
                raise _foreign(path, number)
            yield raw, known


def _foreign(path: Path, number: int) -> InvalidInputError:
    return InvalidInputError(
        f"{path}, line {number}, is no answer of tts-search solve --file: it is left as it was; name another file"
    )


class AnswerFile:
    """An answer file at work. The caller holds the log that goes with it, so that nobody else writes here.

    Args:
        path: the file, gone on with where it is ours.
        settings: the key of the run's settings.

    Raises:
        InvalidInputError: it holds something else, or answers of other settings; it is as it was.
    """

    def __init__(self, path: Path, settings: str) -> None:
        self._path, self._settings = path, settings
        self._done: dict[int, int] = {}
        self._last, self._in_order = 0, True
        self._file: BinaryIO | None = None
        if path.exists():
            self._read()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)  # type: ignore[assignment]
        except OSError as error:
            raise InvalidInputError(f"--out {path} cannot be written: {error.strerror or error}") from error

    def _read(self) -> None:
        """What is answered already. Questions that failed are asked again, and their lines leave the file."""
        size = 0
        mends = False
        for raw, known in lines_of(self._path):
            if known.settings != self._settings:
                raise InvalidInputError(
                    f"{self._path}: line {known.line} of the questions was answered with other settings: say the same "
                    "again, or name another --out"
                )
            size += len(raw)
            mends |= known.failed
            if not known.failed:
                self._note(known.line, known.question)
        if not mends and size == self._path.stat().st_size:
            return
        with replacing(self._path) as file:
            for raw, known in lines_of(self._path):
                if not known.failed:
                    file.write(raw)

    def _note(self, line: int, question: str) -> None:
        self._done[line] = int(question[:16], 16)
        self._in_order &= line > self._last
        self._last = line

    def __len__(self) -> int:
        return len(self._done)

    def holds(self, asked: Asked) -> bool:
        """Whether a question is answered already.

        Raises:
            InvalidInputError: another question was, in the same line.
        """
        known = self._done.get(asked.line)
        if known is None:
            return False
        if known != int(key_of(asked.question)[:16], 16):
            raise InvalidInputError(
                f"{self._path} answers another question than the one in line {asked.line}: the questions have changed; "
                "name another --out"
            )
        return True

    def add(self, asked: Asked, line: bytes) -> None:
        """Write an answer's line; it outlives the process when this returns."""
        assert self._file is not None
        self._file.write(line)
        self._note(asked.line, key_of(asked.question))

    def finish(self) -> None:
        """Put the lines into the order of the questions."""
        if not self._in_order:
            sort_lines(self._path)
            self._in_order = True

    def close(self) -> None:
        """Close the file. Calling it twice is harmless."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sort_lines(path: Path) -> None:
    """Put an answer file into the order of its questions; only where lines begin is held in memory."""
    places, offset = list[tuple[int, int, int]](), 0
    for raw, known in lines_of(path):
        places.append((known.line, offset, len(raw)))
        offset += len(raw)
    with path.open("rb") as source, replacing(path) as file:
        for _, place, length in sorted(places):
            source.seek(place)
            file.write(source.read(length))
