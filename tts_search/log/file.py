"""The file: records under keys, appended whole or not at all. It knows nothing of what they hold.

A header that names us, then frames (see `frames`). A process that is killed leaves at most one frame half written, at
the end; it is cut off when the file is next opened to be written, and only once everything in front of it is known to
be ours. What is damaged, and what somebody wrote behind it, is never cut off: the file is refused, and left as it was.
Of the file, only offsets are kept in memory.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tts_search.errors import InvalidInputError, TTSError
from tts_search.log.frames import DamagedError, Record, framed, read_frame
from tts_search.log.index import OffsetIndex
from tts_search.store import append, claim, said_of

HEADER = b"tts-search log 1\n"


class SearchLog:
    """Records by kind and key: `get`, `add`. Any thread may use it, one process at a time writes it.

    Args:
        path: the file, made with its folder where there is none.
        write: False only reads, however many processes do, also while another one writes.

    Raises:
        InvalidInputError: the file is no such log, or damaged (it is left as it was), or another process writes it.
    """

    def __init__(self, path: str | Path, *, write: bool = True) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._index = OffsetIndex()
        self._kinds: dict[bytes, list[int]] = {}
        self._writer: BinaryIO | None = claim(self.path) if write else None
        try:
            self._reader = self.path.open("rb")
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"{self.path} cannot be read: {said_of(error)}") from error
        try:
            self._end = self._read_all()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._index)

    def get(self, kind: bytes, key: bytes) -> bytes | None:
        """What the record of this kind and key holds, None where there is none."""
        with self._lock:
            offset = self._index.get(_marked(kind, key))
            if offset is None:
                return None
            record, _ = self._frame(offset)
        return record.content if record[:2] == (kind, key) else None

    def add(self, kind: bytes, key: bytes, content: bytes) -> None:
        """Keep a record; when this returns, it outlives the process. A key that is there keeps what it has.

        Raises:
            StorageError: the file cannot be written, because the disk is full, say. It holds no half record.
        """
        frame = framed(Record(kind, key, content))
        with self._lock:
            offset = self._index.get(_marked(kind, key))
            if offset is not None:
                known, _ = self._frame(offset)
                if known[:2] == (kind, key):
                    return
            self._append(frame)
            self._note(kind, key, self._end)
            self._end += len(frame)

    def of_kind(self, kind: bytes) -> Iterator[Record]:
        """All records of a rare kind (in capitals), in their order."""
        for offset in list(self._kinds.get(kind, ())):
            with self._lock:
                record, _ = self._frame(offset)
            yield record

    def __iter__(self) -> Iterator[Record]:
        """All records, in their order."""
        offset = len(HEADER)
        while offset < self._end:
            with self._lock:
                record, offset = self._frame(offset)
            yield record

    def close(self) -> None:
        """Let another process write the file. Calling it twice is harmless."""
        with self._lock:  # nobody writes to a number that is another file's by now
            if self._writer is not None and not self._writer.closed:
                os.fsync(self._writer.fileno())
                self._writer.close()
            if hasattr(self, "_reader"):
                self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, frame: bytes) -> None:
        if self._writer is None or self._writer.closed:
            raise TTSError(f"{self.path} is not open to be written: open it again, and without write=False")
        append(self._writer, self.path, frame)

    def _note(self, kind: bytes, key: bytes, offset: int) -> None:
        self._index.put(_marked(kind, key), offset)
        if kind.isupper():
            self._kinds.setdefault(kind, []).append(offset)

    def _read_all(self) -> int:
        """Index every record; where the last whole one ends. Nothing is written before all is known to be ours."""
        size = os.fstat(self._reader.fileno()).st_size
        begin = self._reader.read(len(HEADER))
        if not HEADER.startswith(begin):
            raise InvalidInputError(
                f"{self.path} is no log of searches: it does not begin with {HEADER.decode().strip()!r}. Name another "
                "file; it is as it was"
            )
        if len(begin) < len(HEADER):
            if self._writer is None:
                return len(HEADER)
            self._append(HEADER[len(begin) :])
            return len(HEADER)
        offset = len(HEADER)
        while offset < size:
            record, after = self._next(offset)
            if record is None:
                break
            self._note(record.kind, record.key, offset)
            offset = after
        if offset < size and self._writer is not None:
            os.ftruncate(self._writer.fileno(), offset)
        return offset

    def _frame(self, offset: int) -> tuple[Record, int]:
        """The record that begins there, and the offset behind it.

        Raises:
            InvalidInputError: it is damaged, or not there any more.
        """
        found, after = self._next(offset)
        if found is None:
            raise self._damaged(offset, "the file has been cut off since it was opened")
        return found, after

    def _next(self, offset: int) -> tuple[Record | None, int]:
        """The same; None where the file ends before it, or within it."""
        if self._reader.closed:
            raise InvalidInputError(f"{self.path} was closed: open it again, or give its path")
        if self._reader.tell() != offset:
            self._reader.seek(offset)
        try:
            found = read_frame(self._reader)
        except DamagedError as error:
            raise self._damaged(offset, str(error)) from error
        return found, self._reader.tell()

    def _damaged(self, offset: int, why: str) -> InvalidInputError:
        return InvalidInputError(
            f"{self.path} is damaged at byte {offset}, or something else wrote there: {why}. Restore it from a copy, "
            "or name another log; it is as it was"
        )


def _marked(kind: bytes, key: bytes) -> bytes:
    """One index for all kinds: a key's first byte is moved by its kind."""
    return bytes((key[0] ^ kind[0],)) + key[1:]
