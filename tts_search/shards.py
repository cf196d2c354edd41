"""Parts of a set of questions: which of them a question is in only the question decides, never its place in a file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from tts_search.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` of `count`, counted from 0."""

    index: int
    count: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """A shard as people write it: `0/3`.

        Raises:
            InvalidInputError: it is none.
        """
        first, slash, second = text.partition("/")
        if not slash or not first.isdecimal() or not second.isdecimal() or not int(first) < int(second):
            raise InvalidInputError(f"a shard is i/n, with i from 0 to n - 1, such as 0/3; got {text!r}")
        return cls(int(first), int(second))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def holds(self, question: Any) -> bool:
        """Whether a question (a text, or messages) is in this part: the same in every process."""
        turns = question if isinstance(question, str) else [dict(turn) for turn in question]
        text = json.dumps(turns, sort_keys=True, ensure_ascii=True)
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return int.from_bytes(digest) % self.count == self.index
