"""What people write is text: a control token's spelling in a message never becomes that token.

Chat templates put messages and control tokens into one text, which is then tokenized as a whole. So spellings in
messages are taken apart before, by a mark inside of each, and the parts between the marks are tokenized one by one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # Unicode has no characters there, and never will


class UserText:
    """Knows the spellings of control tokens; of these `tags` open and close thinking.

    An assistant's message may hold the tags: templates find the thinking of earlier turns by them, and leave it out.
    """

    def __init__(self, control: Collection[str], tags: Collection[str]) -> None:
        self._of_users = _starts({*control, *tags})
        self._of_assistants = _starts(set(control) - set(tags))

    def take_apart(self, turns: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], str]:
        """The messages with a mark inside of every spelling, and that mark; it is "" where there are none."""
        texts = [text for turn in turns for text in turn.values() if isinstance(text, str)]
        found = any(self._of(turn).search(text) for turn in turns for text in turn.values() if isinstance(text, str))
        if not found:
            return [dict(turn) for turn in turns], ""
        mark = next(mark for mark in MARKS if not any(mark in text for text in texts))
        return [{name: self._apart(turn, value, mark) for name, value in turn.items()} for turn in turns], mark

    def _of(self, turn: Mapping[str, Any]) -> re.Pattern[str]:
        return self._of_assistants if turn.get("role") == "assistant" else self._of_users

    def _apart(self, turn: Mapping[str, Any], value: Any, mark: str) -> Any:
        return self._of(turn).sub(lambda found: found[0] + mark, value) if isinstance(value, str) else value


def _starts(spellings: Collection[str]) -> re.Pattern[str]:
    """Finds the first character of each spelling, also of one that begins inside of another."""
    rests = "|".join(
        f"{re.escape(spelling[0])}(?={re.escape(spelling[1:])})" for spelling in spellings if len(spelling) > 1
    )
    return re.compile(rests or r"(?!)")
