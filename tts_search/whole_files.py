"""Files that are replaced whole, or not at all: a reader, or a crash, sees the old one or the new one."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tts_search.errors import StorageError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write beside `path`, which takes its place once all is written; what fails leaves `path` as it was.

    A new file gets the permissions that any new file gets, a replaced one keeps its own. A link is written through.

    Raises:
        StorageError: the disk is full.
    """
    try:
        with _replacing(path.resolve()) as file:
            yield file
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise StorageError(
            f"{path} cannot be written: {error.strerror}. It is as it was; make room, and run the same again to go on"
        ) from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a crash behind the rename can leave an empty file
        Path(name).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


@contextlib.contextmanager
def replacing_folder(place: Path) -> Iterator[Path]:
    """A folder to write beside `place`, whose files take their places there once all are written.

    A new folder appears whole. In one that is there, files are replaced one by one, each whole, in the order of their
    names; others are left alone. What fails, or is killed, leaves `place` as it was, and is cleared away next time.
    """
    place = place.absolute()
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if not place.exists():
            partial.rename(place)
            return
        for file in sorted(path for path in partial.rglob("*") if path.is_file()):
            target = place / file.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Replace a file by these bytes, or this text in UTF-8."""
    with replacing(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def _umask() -> int:
    mask = os.umask(0o077)  # it can only be read by setting it; the strict value harms nobody in between
    os.umask(mask)
    return mask
