"""Where in a file each key's record begins: 16 bytes an entry and some room, whatever the records hold."""

from __future__ import annotations

from array import array

_EMPTY = 0  # no record begins there: every log has a header
_FULL = 0.6


class OffsetIndex:
    """From keys to offsets, by the first 8 bytes of a key: whoever reads there must compare the whole of it."""

    def __init__(self) -> None:
        self._size = 1 << 10
        self._keys = array("Q", bytes(8 * self._size))
        self._offsets = array("Q", bytes(8 * self._size))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, key: bytes) -> int | None:
        """Where the record under this key begins, None where there is none."""
        return self._offsets[self._place(int.from_bytes(key[:8]))] or None

    def put(self, key: bytes, offset: int) -> None:
        """Remember an offset above 0; a key's last one counts."""
        if self._count >= _FULL * self._size:
            self._grow()
        start = int.from_bytes(key[:8])
        place = self._place(start)
        self._count += self._offsets[place] == _EMPTY
        self._keys[place], self._offsets[place] = start, offset

    def _place(self, start: int) -> int:
        """The place of a key, or the empty one where it belongs. Keys are digests: any of their bits will do."""
        mask = self._size - 1
        place = start & mask
        while self._offsets[place] != _EMPTY and self._keys[place] != start:
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        keys, offsets = self._keys, self._offsets
        self._size *= 2
        self._keys = array("Q", bytes(8 * self._size))
        self._offsets = array("Q", bytes(8 * self._size))
        for start, offset in zip(keys, offsets, strict=True):
            if offset != _EMPTY:
                place = self._place(start)
                self._keys[place], self._offsets[place] = start, offset
