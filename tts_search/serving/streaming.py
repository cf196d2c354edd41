"""A search told while it runs: a line a round, the chosen thinking, then the answer as it is sampled.

What is told is text alone; which objects carry it is the APIs' own matter.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tts_search.core.events import Answering, Chosen, Event, Grown, Sampled
from tts_search.core.tree import Ending
from tts_search.serving.reply_content import Cut, answers
from tts_search.serving.searches import Search

LINE_SECONDS = 1.0  # a search of many small rounds tells of some of them
QUIET_SECONDS = 5.0  # and one of long rounds of the tokens meanwhile


@dataclass(frozen=True, slots=True)
class Told:
    """More of the reasoning, or more of the answer."""

    reasoning: str = ""
    answer: str = ""


async def tell(search: Search) -> AsyncIterator[Told]:
    """All that is told of a search, in order, until it is over. The whole answer is told if it does not fail."""
    rounds, stops = Rounds(search), Cut(search.plan.ask.stop)
    streamed = False
    async for events in search.listen():
        answer = ""
        for event in events:
            if line := rounds.hear(event):
                yield Told(reasoning=line)
            if isinstance(event, Chosen):
                if line := rounds.line():
                    yield Told(reasoning=line)
                # What is sampled from here on streams; an answer that was there before is cut and told as one.
                streamed = event.node.ending is not Ending.END and event.node.index not in rounds.parents
                if event.thinking and event.node.ending is not Ending.END:
                    yield Told(reasoning=f"\n{event.thinking.strip()}\n")
            elif isinstance(event, Answering) and streamed:
                answer += event.text
        if answer := stops.feed(answer):
            yield Told(answer=answer)
    if search.result is None:
        return
    if not streamed:
        first = answers(search.result, search.plan.ask)[0].text
        if first:
            yield Told(answer=first)
    elif not stops.ended and (rest := stops.close()):
        yield Told(answer=rest)


class Rounds:
    """Counts paths as they grow; a line says how many there are, what the best is worth, and what they cost."""

    def __init__(self, search: Search) -> None:
        self.parents: set[int | None] = set()
        self._search = search
        self._nodes = 0
        self._last = ""
        self._best: float | None = None
        self._told = time.monotonic() - LINE_SECONDS

    def hear(self, event: Event) -> str:
        """A line, where the event ends a round that is worth one; none of a single sample, which has no rounds."""
        if not isinstance(event, Grown | Sampled):
            return ""
        for node in event.nodes if isinstance(event, Grown) else ():
            self._nodes += 1
            self.parents.add(node.parent)
            if node.new_step_scores:
                self._best = node.value if self._best is None else max(self._best, node.value)
        now = time.monotonic()
        if now - self._told < (LINE_SECONDS if isinstance(event, Grown) else QUIET_SECONDS):
            return ""
        self._told = now
        return self.line()

    def line(self) -> str:
        """How far it has come, where that is more than was told."""
        if self._search.plan.samples_once:
            return ""
        paths = self._nodes - len(self.parents - {None, 0})
        best = "" if self._best is None else f", best {self._best:.2f}"
        grown = f"{paths} {'path' if paths == 1 else 'paths'}{best}, " if paths else ""
        sampled = self._search.sampled
        line = f"{grown}{sampled:,} {'token' if sampled == 1 else 'tokens'}\n"
        told, self._last = self._last, line
        return "" if line == told else line
