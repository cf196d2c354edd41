"""From an endpoint's text to token ids, for servers that do not show the ids they sampled.

The local tokenizer reads the text again: the text is exact, its tokens are what this tokenizer would write it with. It
knows no connection.
"""

from __future__ import annotations

from collections.abc import Sequence

from tts_search.core.protocols import Tokenizer

_WINDOW = 256  # characters in front of new ones that are read with them: more than any token has, or a word


class Transcriber:
    """Reads an endpoint's texts as tokens of `tokenizer`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._marks: dict[frozenset[int], tuple[list[str], int]] = {}

    def write(self, ids: Sequence[int]) -> str:
        """Text of a prompt: as `decode`, but with end-of-text tokens, which chat templates put between turns."""
        pieces = self._tokenizer.pieces
        return b"".join(pieces[i] for i in ids).decode("utf-8", "replace")

    def read(self, text: str) -> list[int]:
        """Token ids of a text."""
        return list(self._tokenizer.encode(text))

    def stopped(self, text: str, new: int, stop_ids: frozenset[int]) -> bool:
        """Whether a text whose last `new` characters have just come holds a stop token.

        The whole is read again only where its end reads as one, so that a long text costs little.
        """
        if stop_ids not in self._marks:
            self._marks[stop_ids] = self._marks_of(stop_ids)
        shortest, longest = self._marks[stop_ids]
        recent = text[max(0, len(text) - new - longest) :]
        if not any(piece in recent for piece in shortest):
            return False
        end = text[max(0, len(text) - new - _WINDOW) :]
        return all(not stop_ids.isdisjoint(self._tokenizer.encode(part)) for part in (end, text))

    def matches(self, ids: Sequence[int], text: str) -> bool:
        """Whether `text` can be what a server wrote for tokens: spaces and stop tokens may be missing from it."""
        known = [i for i in ids if i < len(self._tokenizer.pieces)]
        ours, theirs = ("".join(side.split()) for side in (self._tokenizer.decode(known), text))
        return "\ufffd" in ours + theirs or ours.startswith(theirs)

    def _marks_of(self, stop_ids: frozenset[int]) -> tuple[list[str], int]:
        """Texts one of which is in the text of every stop token, and how long the longest such text is."""
        pieces = {self._tokenizer.pieces[i].decode("utf-8", "ignore") for i in stop_ids}
        shortest: list[str] = []
        for piece in sorted(filter(None, pieces), key=len):
            if not any(known in piece for known in shortest):
                shortest.append(piece)
        return shortest, max(map(len, pieces), default=0)


def stop_index(ids: Sequence[int], stop_ids: frozenset[int]) -> int:
    """The position of the first stop token; the length where there is none."""
    return next((position for position, token in enumerate(ids) if token in stop_ids), len(ids))
