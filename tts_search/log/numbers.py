"""Whole numbers in as few bytes as they need: seven bits a byte, the low ones first (LEB128)."""

from __future__ import annotations

from typing import BinaryIO


def write_number(value: int) -> bytes:
    """A number from 0 on."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def read_number(file: BinaryIO) -> int | None:
    """The number that comes next in a file, None where the file ends first."""
    value = shift = 0
    while shift < 63:
        if not (byte := file.read(1)):
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
    return value
