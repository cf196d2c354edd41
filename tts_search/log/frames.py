"""A log's frames as bytes and back: whole, half written by a process that was killed, or damaged.

A frame is a mark, how long it is, a check of these two, its kind, its key, what it holds, and a checksum of all that.
The head has a check of its own because a length with one wrong bit would reach past the end of the file, and look like
a last frame that is half written. No text holds the mark. Frames of older logs begin with their length; where
such a one reaches past the end, nobody can tell which it is, and it counts as damaged.
"""

from __future__ import annotations

import binascii
import os
import zlib
from typing import BinaryIO, NamedTuple

from tts_search.log.numbers import read_number, write_number

KEY_BYTES = 12
MOST_BYTES = 1 << 28  # of one frame; what claims to be longer is damaged
_MARK = b"\x01"  # below every length, so that the two kinds of frames are told apart
_HEAD_CHECK, _CHECK = 2, 4


class Record(NamedTuple):
    """One frame: a kind of one byte, a key of `KEY_BYTES`, and what it holds."""

    kind: bytes
    key: bytes
    content: bytes


class DamagedError(Exception):
    """What stands there is no frame, and no beginning of one."""


def framed(record: Record) -> bytes:
    """The bytes of a frame."""
    assert len(record.kind) == 1
    assert len(record.key) == KEY_BYTES
    body = b"".join(record)
    return b"".join([_MARK, write_number(len(body)), _head_check(len(body)), body, zlib.crc32(body).to_bytes(_CHECK)])


def read_frame(file: BinaryIO) -> Record | None:
    """The record that begins here; None where the file ends before it, or a writer that was killed got no further.

    Raises:
        DamagedError: there is none, and none was begun.
    """
    mark = file.read(1)
    if not mark:
        return None
    checked = mark == _MARK
    if not checked:
        file.seek(-1, os.SEEK_CUR)
    length = read_number(file)
    body = b""
    if length is not None:
        if checked and not _head_check(length).startswith(file.read(_HEAD_CHECK)):
            raise DamagedError("the check of a length is wrong")
        if not 1 + KEY_BYTES <= length <= MOST_BYTES:
            raise DamagedError("no record is so long")
        body = file.read(length + _CHECK)
    if length is None or len(body) < length + _CHECK:
        if checked:
            return None
        raise DamagedError("a record reaches past the end of the file")
    if zlib.crc32(memoryview(body)[:length]) != int.from_bytes(body[length:]):
        raise DamagedError("a checksum is wrong")
    return Record(body[:1], body[1 : 1 + KEY_BYTES], body[1 + KEY_BYTES : length])


def _head_check(length: int) -> bytes:
    """It finds every error of up to 16 bits in a row."""
    return binascii.crc_hqx(_MARK + write_number(length), 0xFFFF).to_bytes(_HEAD_CHECK)
