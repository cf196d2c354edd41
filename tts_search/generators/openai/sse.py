"""Server-sent events out of bytes as they come (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Of an event only its data is wanted. It knows no connection and no JSON.
"""

from __future__ import annotations

MOST_BYTES = 16 * 2**20  # of one event: vLLM's first repeats the prompt's ids, some megabytes for a million of them
BOM = b"\xef\xbb\xbf"
MOST_IDLE_LINES = 10_000  # in a row without data: comments keep a connection alive, but a few a minute do that


class FloodError(ValueError):
    """An event without an end, or nothing but filling."""


class EventDecoder:
    """Cuts a stream of bytes into events, in time and memory that are linear in the bytes."""

    def __init__(self) -> None:
        self._held: list[bytes] = []  # of the line that has not ended yet
        self._data: list[bytes] = []  # of the event that has not ended yet
        self._size = 0  # of both, in bytes
        self._idle = 0

    def feed(self, block: bytes) -> list[bytes]:
        """The data of the events that `block` completes.

        Raises:
            FloodError: an event is longer than `MOST_BYTES`, or `MOST_IDLE_LINES` lines in a row brought no data.
        """
        self._size += len(block)
        if self._size > MOST_BYTES + len(block):  # with `block` alone an event may end
            raise FloodError(f"an event of more than {MOST_BYTES:,} bytes")
        self._held.append(block)
        events: list[bytes] = []
        if b"\n" in block or b"\r" in block:
            text = b"".join(self._held)
            # A carriage return at the very end may be half of a line's end.
            end = max(text.rfind(b"\n"), text.rfind(b"\r", 0, len(text) - 1)) + 1
            self._held = [text[end:]]
            for line in text[:end].splitlines():
                self._take(line, events)
        return events

    def _take(self, line: bytes, events: list[bytes]) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            self._idle = 0
        elif not line and self._data:
            events.append(b"\n".join(self._data))
            self._data = []
            self._size = sum(map(len, self._held))
        elif line.startswith(BOM):
            self._take(line.removeprefix(BOM), events)
        else:
            self._idle += 1
            if self._idle > MOST_IDLE_LINES:
                raise FloodError(f"{MOST_IDLE_LINES:,} lines in a row without data")
