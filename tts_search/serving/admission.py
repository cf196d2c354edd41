"""Who searches now, who waits, and who is sent away: so many at once, in turns between keys.

Knows requests, tokens and keys; it runs nothing. All of it happens on the server's event loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Literal

from tts_search.serving.keys import Key
from tts_search.serving.limits import Limits
from tts_search.serving.refusals import RefusedError


class Ticket:
    """A place in the queue, then one of the searches at work, then gone. `tokens` are promised until it leaves."""

    def __init__(self, admission: Admission, key: Key, tokens: int) -> None:
        self.key = key
        self.tokens = tokens
        self.state: Literal["waiting", "running", "gone"] = "waiting"
        self._admission = admission
        self._called = asyncio.Event()

    async def turn(self) -> None:
        """Wait until it is called."""
        await self._called.wait()

    def leave(self, spent: int = 0) -> None:
        """Be gone, having sampled `spent` tokens. Leaving twice is harmless."""
        if self.state != "gone":
            self._admission.forget(self, spent)

    def call(self) -> None:
        """It may search now."""
        self.state = "running"
        self._called.set()


class Admission:
    """Turns go around the keys that have somebody waiting, however many each has."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: OrderedDict[Key, deque[Ticket]] = OrderedDict()
        self.running = 0
        self.waiting = 0
        self.promised = 0

    def enter(self, key: Key, tokens: int) -> Ticket:
        """A ticket for a search of at most so many tokens (0: nobody knows).

        Raises:
            RefusedError: 429, because too many wait, too much is promised, or the key has had enough.
        """
        key.check()
        limits = self._limits
        if self.running >= limits.concurrency and self.waiting >= limits.waiting:
            raise self._full(f"{self.waiting} requests are waiting already")
        if limits.promised_tokens is not None and self.promised and self.promised + tokens > limits.promised_tokens:
            raise self._full(f"{self.promised:,} tokens are promised already")
        ticket = Ticket(self, key, tokens)
        self.promised += tokens
        key.promised += tokens
        key.running += 1
        self._waiting.setdefault(key, deque()).append(ticket)
        self.waiting += 1
        self._call()
        return ticket

    def forget(self, ticket: Ticket, spent: int) -> None:
        """A ticket leaves, from the queue or from work."""
        key = ticket.key
        if ticket.state == "running":
            self.running -= 1
        else:
            self._waiting[key].remove(ticket)
            self.waiting -= 1
            if not self._waiting[key]:
                del self._waiting[key]
        ticket.state = "gone"
        self.promised -= ticket.tokens
        key.promised -= ticket.tokens
        key.running -= 1
        assert key.left is None or key.left >= 0  # a new day begins before it is charged
        key.spent += spent
        self._call()

    def _call(self) -> None:
        while self._waiting and self.running < self._limits.concurrency:
            key, queue = next(iter(self._waiting.items()))
            queue.popleft().call()
            self.waiting -= 1
            self.running += 1
            self._waiting.move_to_end(key)
            if not queue:
                del self._waiting[key]

    def _full(self, why: str) -> RefusedError:
        # Somebody waits about as long as those in front of it: a second each is a guess that spreads retries.
        after = min(60.0, 1.0 + self.waiting / max(1, self._limits.concurrency))
        return RefusedError(429, f"the server is busy: {why}", code="server_busy", retry_after=after)
