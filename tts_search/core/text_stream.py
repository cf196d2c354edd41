"""Text out of tokens as they come: a character that is cut between two tokens is held back until it is whole."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence


class TextStream:
    """Decodes a growing list of tokens; `emit` gets each further piece of its text, which begins behind white space."""

    def __init__(self, decode: Callable[[Sequence[int]], str], emit: Callable[[str], None]) -> None:
        self._decode = decode
        self._emit = emit
        self._waiting = array("i")  # tokens whose text is not told yet
        self._told = ""

    def feed(self, ids: Sequence[int]) -> None:
        """More tokens came."""
        self._waiting.extend(ids)
        text = self._decode(tuple(self._waiting))
        if text.endswith("\ufffd") and len(self._waiting) < 8:  # most likely the first bytes of a character
            return
        body = text if self._told else text.lstrip()
        if body and not body[-1].isspace():  # white space at the end may be the answer's end, which is stripped
            self._waiting = array("i")
            self._told += body
            self._emit(body)

    def close(self, text: str) -> None:
        """The whole text is known: what is missing of it is told."""
        if text.startswith(self._told) and len(text) > len(self._told):
            self._emit(text[len(self._told) :])
