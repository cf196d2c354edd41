"""The answers to a file of questions, a line each as they come: gone on with after a kill, in order at the end.

Whose a file is, its lines say: the number of the question's line, and a key of the settings and of the question.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

from tts_search.cli.question_file import Asked, Format
from tts_search.core.result import SearchResult, StopReason
from tts_search.errors import InvalidInputError
from tts_search.log.identity import digest_of
from tts_search.store import append, begun, claim
from tts_search.whole_files import replacing

_FIELDS = ("line", "id", "question", "answer")
_BATCH_FIELDS = ("id", "custom_id", "response", "error")
_START, _BATCH_START = '{"line": ', '{"id": "batch_req_'
_BATCH_ID = re.compile(r"batch_req_(\d+)_([0-9a-f]{24})_([0-9a-f]{24})")


class Known(NamedTuple):
    """What an answer's line says of itself."""

    line: int
    settings: str
    question: str
    failed: bool
    id: str


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
            return Known(int(value["line"]), settings, question, value["error"] is not None, key_of(value["id"]))
        found = _BATCH_ID.fullmatch(value["id"])
        assert found is not None
        return Known(int(found[1]), found[2], found[3], value["error"] is not None, key_of(value["custom_id"]))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        return None


def is_torn(raw: bytes) -> bool:
    """Whether a process that was killed was writing this: a line of ours begins so, and is not whole."""
    text = raw.decode("utf-8", "replace")
    if read_line(raw) is not None:
        return True  # all but its end
    try:
        json.loads(raw)
    except ValueError:
        if text.startswith(_BATCH_START) or _BATCH_START.startswith(text):
            return begun(text, _BATCH_FIELDS)
        numbered = _START.startswith(text) or re.match(_START + r"\d*(?:,|$)", text)
        return bool(numbered) and begun(text, _FIELDS)
    return False


def lines_of(path: Path) -> Iterator[tuple[bytes, Known]]:
    """The whole lines of an answer file; the one that a killed process was writing is passed over.

    Raises:
        InvalidInputError: a line is no answer.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.endswith(b"\n") and is_torn(raw):
                return
            known = read_line(raw) if raw.endswith(b"\n") else None
            if known is None:
                raise _foreign(path, number)
            yield raw, known


def _foreign(path: Path, number: int) -> InvalidInputError:
    return InvalidInputError(
        f"{path}, line {number}, is no answer of tts-search solve --file: it is left as it was; name another file"
    )


class AnswerFile:
    """An answer file at work, kept from other processes.

    Args:
        path: the file, gone on with where it is ours.
        settings: the key of the run's settings.

    Raises:
        InvalidInputError: it holds something else, or answers of other settings; it is as it was. Or it is in use.
    """

    def __init__(self, path: Path, settings: str) -> None:
        self._path, self._settings = path, settings
        self._done: dict[int, tuple[int, int]] = {}  # of each line, what tells its question and its id
        self._last, self._in_order = 0, True
        self._file = claim(path)
        try:
            if self._read():
                self._mend()
        except BaseException:
            self._file.close()
            raise

    def _read(self) -> bool:
        """What is answered already; whether there are lines that must leave the file."""
        size = 0
        failed = False
        for raw, known in lines_of(self._path):
            if known.settings != self._settings:
                raise InvalidInputError(
                    f"{self._path}: line {known.line} of the questions was answered with other settings: say the same "
                    "again, or name another --out"
                )
            size += len(raw)
            failed |= known.failed
            if not known.failed:
                self._note(known.line, known.question, known.id)
        return failed or size < self._path.stat().st_size

    def _mend(self) -> None:
        """Questions that failed are asked again: their lines leave the file, and the one that is torn."""
        with replacing(self._path) as file:
            for raw, known in lines_of(self._path):
                if not known.failed:
                    file.write(raw)
        before, self._file = self._file, claim(self._path)
        before.close()

    def _note(self, line: int, question: str, name: str) -> None:
        self._done[line] = (_short(question), _short(name))
        self._in_order &= line > self._last
        self._last = line

    def __len__(self) -> int:
        return len(self._done)

    def check(self, questions: Iterable[Asked]) -> None:
        """Refuse questions that are others than those which are answered.

        Raises:
            InvalidInputError: one has changed, or is not there any more.
        """
        gone = set(self._done)
        if not gone:
            return
        for asked in questions:
            self.holds(asked)
            gone.discard(asked.line)
        if gone:
            raise InvalidInputError(
                f"{self._path} answers {len(gone)} questions that are not there any more, line {min(gone)} the first: "
                "the questions have changed; name another --out"
            )

    def holds(self, asked: Asked) -> bool:
        """Whether a question is answered already.

        Raises:
            InvalidInputError: another question was, in the same line, or under another id.
        """
        known = self._done.get(asked.line)
        if known is None:
            return False
        now = (_short(key_of(asked.question)), _short(key_of(asked.id)))
        if known != now:
            what = "question" if known[0] != now[0] else "id"
            raise InvalidInputError(
                f"{self._path} answers another {what} than the one in line {asked.line}: the questions have changed; "
                "name another --out"
            )
        return True

    def add(self, asked: Asked, line: bytes) -> None:
        """Write an answer's line; it outlives the process when this returns.

        Raises:
            StorageError: it cannot be written, because the disk is full, say. The file holds no half line.
        """
        append(self._file, self._path, line)
        self._note(asked.line, key_of(asked.question), key_of(asked.id))

    def finish(self) -> None:
        """Put the lines into the order of the questions."""
        if not self._in_order:
            sort_lines(self._path)
            self._in_order = True

    def close(self) -> None:
        """Close the file. Calling it twice is harmless."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _short(key: str) -> int:
    return int(key[:16], 16)


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
