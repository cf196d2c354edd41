"""Patterns that are compiled when they are first used: all of them together take longer than importing this package."""

from __future__ import annotations

import re
from typing import Any, cast


def late(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """As `re.compile`; what is wrong with a pattern is said when it is used."""
    return cast(re.Pattern[str], _Late(pattern, flags))


class _Late:
    def __init__(self, pattern: str, flags: int) -> None:
        self._said = pattern, flags

    def __getattr__(self, name: str) -> Any:
        """The compiled pattern's, found once and kept."""
        if name.startswith("__"):
            raise AttributeError(name)
        compiled = self.__dict__.get("_compiled") or re.compile(*self._said)
        found = getattr(compiled, name)
        self.__dict__.update({"_compiled": compiled, name: found})
        return found
