"""The file that sampling writes and goes on with: whose it is, what it holds, and where a killed run broke off.

One line a trajectory, as `trajectories` reads them, with its number among its question's lines, so that a question of
which only some were written can be told. Nothing is taken away but what this run does again. It samples nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tts_search.errors import InvalidInputError
from tts_search.store import begun
from tts_search.training.problems import Problem
from tts_search.training.trajectories import question_key

FIELDS = ("question", "response", "response_ids", "correct", "answer", "mean_logprob", "sample", "samples")
"""In the order of a line. `sample` counts from 1 to `samples`, the lines of one question."""


def lines_of(records: Sequence[Mapping[str, Any]]) -> bytes:
    """All trajectories of one question as lines of the file."""
    numbered = [dict(record, sample=i, samples=len(records)) for i, record in enumerate(records, start=1)]
    return "".join(
        json.dumps({name: line[name] for name in FIELDS}, ensure_ascii=False) + "\n" for line in numbered
    ).encode()


def go_on(file: BinaryIO, path: Path, problems: Sequence[Problem]) -> set[str]:
    """Keys of the questions that the file holds whole; the rest of its last question is taken away, to be done again.

    Raises:
        InvalidInputError: a line is not such a file's, or what is cut off is not done again; the file is as it was.
    """
    content = file.read()
    *lines, torn = content.split(b"\n")
    records = [_record(line, path, number) for number, line in enumerate(lines, start=1)]
    keys = [question_key(record["question"]) for record in records]
    whole = len(records) - _unfinished(records)
    if not _begins(torn, problems):
        raise _foreign(path, len(lines) + 1, "it is cut off, and no beginning of one about the questions given")
    if not {*keys[whole:]} <= {problem.key for problem in problems}:
        raise _foreign(path, len(lines), "the last of a question that breaks off, and is none of the questions given")
    kept = sum(len(line) + 1 for line in lines[:whole])
    if kept < len(content):
        file.truncate(kept)
    return set(keys[:whole])


def _record(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if not isinstance(record, dict) or not record.keys() >= set(FIELDS):
            raise ValueError(f"it lacks {', '.join(FIELDS)}")
        if not 1 <= record["sample"] <= record["samples"]:
            raise ValueError("sample must count from 1 to samples")
    except (ValueError, TypeError) as error:
        raise _foreign(path, number, error) from error
    return record


def _foreign(path: Path, number: int, why: object) -> InvalidInputError:
    return InvalidInputError(
        f"{path}, line {number}, is nothing that this run can go on from: {why}. The file is left as it was; name "
        "another file to write, or give the questions that it was made from"
    )


def _unfinished(records: Sequence[Mapping[str, Any]]) -> int:
    """How many lines at the end are of a question whose others are missing; 0 where the file was edited since."""
    count = records[-1]["sample"] if records and records[-1]["sample"] < records[-1]["samples"] else 0
    written = [(record["question"], record["sample"]) for record in records[len(records) - count :]]
    return count if written == [(records[-1]["question"], i) for i in range(1, count + 1)] else 0


def _begins(torn: bytes, problems: Sequence[Problem]) -> bool:
    """Whether a line about one of these questions begins so: its question, and behind it the fields in their order."""
    texts = (json.dumps({"question": problem.question}, ensure_ascii=False)[:-1] for problem in problems)
    starts = (text.encode("utf-8", "replace") for text in texts)
    if torn and not any(torn.startswith(start) or start.startswith(torn) for start in starts):
        return False
    return begun(torn.decode("utf-8", "replace"), FIELDS, more=False)
