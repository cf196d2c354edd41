"""Warnings of many searches, each told once with a count."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_PARTICULARS = re.compile(r"(?<=to the end: ).*?(?=; )|(?<![\w<\[])\d[\d,.]*\b")  # candidates one by one; numbers


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning, and how many searches had it, by what they were; its numbers are left out where they differ."""

    text: str
    where: Mapping[str, int]

    @property
    def searches(self) -> int:
        """All of them."""
        return sum(self.where.values())


def collected(searches: Iterable[tuple[str, Iterable[str]]]) -> tuple[Warned, ...]:
    """The warnings of searches, given as pairs of what a search was and its warnings; the most frequent first."""
    kinds: dict[str, tuple[set[str], Counter[str]]] = {}
    for where, warnings in searches:
        for kind, text in {_PARTICULARS.sub("…", text): text for text in warnings}.items():
            texts, counts = kinds.setdefault(kind, (set(), Counter()))
            texts.add(text)
            counts[where] += 1
    found = [Warned(kind if len(texts) > 1 else texts.pop(), counts) for kind, (texts, counts) in kinds.items()]
    return tuple(sorted(found, key=lambda warned: -warned.searches))
