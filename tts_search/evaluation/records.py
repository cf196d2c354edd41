"""Rows of JSONL and Parquet files, each with its place, so that whatever is wrong with one can say where it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tts_search.errors import InvalidInputError, MissingDependencyError

SUFFIXES = (".jsonl", ".json", ".parquet")


class Row(NamedTuple):
    """One record, and where it was found: `questions.jsonl, line 12`."""

    place: str
    values: dict[str, Any]


def read_rows(path: Path) -> Iterator[Row]:
    """All rows of a file, or of every JSONL and Parquet file in a folder, in the order of their names.

    A `.json` file holds one list of objects, or is JSONL by another name. Empty lines are passed over.

    Raises:
        InvalidInputError: no such file, an unknown ending, a line that is no JSON object, text that is not UTF-8.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
        if not files:
            raise InvalidInputError(f"{path} holds no {', '.join(SUFFIXES)} file")
        for file in files:
            yield from read_rows(file)
        return
    if not path.is_file():
        raise InvalidInputError(f"no such file: {path}")
    if path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix in (".jsonl", ".json"):
        yield from _json(path)
    else:
        raise InvalidInputError(f"{path} is no data file: expected an ending of {', '.join(SUFFIXES)}")


def _json(path: Path) -> Iterator[Row]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{path} is not UTF-8 text: byte 0x{error.object[error.start]:02x} at {error.start}"
        ) from error
    if path.suffix == ".json" and text.lstrip().startswith("["):
        try:
            values = enumerate(json.loads(text), 1)
        except ValueError as error:
            raise InvalidInputError(f"{path} is no JSON: {error}") from error
        found = ((f"{path}, item {number}", value) for number, value in values)
    else:
        found = (
            (f"{path}, line {n}", _parsed(f"{path}, line {n}", line))
            for n, line in enumerate(text.split("\n"), 1)
            if line.strip()
        )
    for place, value in found:
        if not isinstance(value, dict):
            raise InvalidInputError(f"{place}: expected a JSON object, got {type(value).__name__}")
        yield Row(place, value)


def _parsed(place: str, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InvalidInputError(f"{place}: malformed JSON: {error}") from error


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("Parquet files need pyarrow: pip install 'tts-search[eval]'") from error
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise InvalidInputError(f"{path} is no Parquet file: {error}") from error
    number = 0
    with file:
        for batch in file.iter_batches():
            for values in batch.to_pylist():
                number += 1
                yield Row(f"{path}, row {number}", values)
