"""A log of finished work as JSON lines: what is in it need not be done again. Knows nothing of what it keeps.

Each record is written at once, as one line, under a key that holds all that decided it. A process that is killed loses
at most the line it was writing, and that line is done again. A file that is no such log is refused and left as it is.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from tts_search.errors import InvalidInputError, StorageError

FORMAT = {"format": "tts-search runs", "version": 1}
RECORD = b'{"key": '
"""How every line behind the first begins."""

Key = Mapping[str, Any]


def claim(path: Path) -> BinaryIO:
    """The file, open to be read and appended to, and kept from other processes until it is closed.

    It is made with its folder where there is none, and otherwise as it was.

    Raises:
        InvalidInputError: it is no file, cannot be written, or is in use.
    """
    try:
        file = _opened(path)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} cannot be written: {said_of(error)}; name another file") from error
    with suppress(ImportError):  # no such locks on Windows
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
                raise BlockingIOError  # its owner has put another file in its place
        except BlockingIOError as error:
            file.close()
            raise InvalidInputError(
                f"{path} is in use by another process: wait for it, or name another file"
            ) from error
    file.seek(0)
    return file


def _opened(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise OSError("it is no file")  # and a pipe would wait for its reader
    return path.open("a+b")


def said_of(error: OSError | ValueError) -> str:
    """Why a file cannot be opened. A `ValueError` says that no path has a zero byte."""
    return getattr(error, "strerror", None) or str(error)


def append(file: BinaryIO, path: Path, data: bytes) -> None:
    """Write all of `data` behind the end of a file that was claimed, or nothing; it outlives the process.

    Raises:
        StorageError: it cannot be written, because the disk is full, say.
    """
    number = file.fileno()  # beneath the buffer: what is written is the system's at once
    end = os.fstat(number).st_size
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(number, left) :]
    except OSError as error:
        os.ftruncate(number, end)
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}. It holds what it held; make room, and run the same "
            "again to go on"
        ) from error


def begun(text: str, fields: Sequence[str], *, more: bool = True) -> bool:
    """Whether a JSON object that begins with these fields, in this order, begins with `text`.

    With `more`, others may stand behind them.
    """
    text, place = text.rstrip("+-.eE0123456789"), 0  # half a number, such as `-0.`, is none
    for name in fields:
        opening = f'{", " if place else "{"}"{name}": '
        if not text.startswith(opening, place):
            return opening.startswith(text[place:])
        try:
            _, place = json.JSONDecoder().raw_decode(text, place + len(opening))
        except (ValueError, RecursionError):  # cut off within the value
            return True
    end = text[place:]
    return "}".startswith(end) or (more and (end.startswith(', "') or ', "'.startswith(end)))


class RunLog:
    """Records by key: `get(key)`, `add(key, record)`. Any thread may use it, one process at a time.

    Args:
        path: the file, made with its folder where there is none; None keeps the records in memory only.

    Raises:
        InvalidInputError: the file is no such log, a line of it is damaged, or another process has it open.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path)
        self._records: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._file = None
        if self.path is None:
            return
        self._file = claim(self.path)
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: Key) -> dict[str, Any] | None:
        """The last record under this key."""
        return self._records.get(_canonical(key))

    def add(self, key: Key, record: Mapping[str, Any]) -> None:
        """Keep a record; when this returns, it outlives the process.

        Raises:
            StorageError: the file cannot be written, because the disk is full, say. It holds no half record.
        """
        line = json.dumps({"key": dict(key), **record}, ensure_ascii=True, allow_nan=False) + "\n"
        with self._lock:
            if self._file is not None:
                assert self.path is not None
                append(self._file, self.path, line.encode())
            self._records[_canonical(key)] = json.loads(line)

    def close(self) -> None:
        """Let another process have the file. Calling it twice is harmless."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        """Nothing is written before all of it is known to be such a log."""
        assert self._file is not None
        *lines, torn = self._file.read().split(b"\n")
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                if number == 1:
                    if record != FORMAT:
                        raise ValueError(f"it must begin with {json.dumps(FORMAT)}")
                    continue
                self._records[_canonical(record["key"])] = record
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise self._foreign(number, error) from error
        header = json.dumps(FORMAT).encode()
        if not (torn.startswith(RECORD) or RECORD.startswith(torn) if lines else header.startswith(torn)):
            raise self._foreign(len(lines) + 1, "it is cut off, and no beginning of one")
        if torn:  # the line that was being written when the process was killed
            self._file.truncate(self._file.tell() - len(torn))
        if not lines:
            assert self.path is not None
            append(self._file, self.path, header + b"\n")

    def _foreign(self, number: int, why: object) -> InvalidInputError:
        return InvalidInputError(
            f"{self.path}, line {number}, is no line of a run log: {why}. Mend it, or name another log; it is as it was"
        )


def _canonical(key: Key) -> str:
    return json.dumps(dict(key), sort_keys=True, ensure_ascii=True)
