"""Searches: under way, with whoever listens to them, and over, kept for a while for the key that asked.

A search's events come on the searcher's own thread; here they reach the server's loop, many at a time.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tts_search.core.events import Answering, Chosen, Event, Grown, Sampled, Started
from tts_search.core.result import SearchResult
from tts_search.core.tree import Tree
from tts_search.errors import SearchCancelledError
from tts_search.serving.admission import Ticket
from tts_search.serving.keys import Key
from tts_search.serving.limits import Limits
from tts_search.serving.refusals import RefusedError
from tts_search.serving.search_options import Plan
from tts_search.serving.supervisor import Supervisor

SAMPLED_SECONDS = 0.25  # how often listeners hear of the count of tokens alone


class Search:
    """One search, from its admission on.

    `clients` are the connections that wait for its answer: with the last of them it is cancelled, after `linger`
    seconds. `on_end` is called once, whatever it came to.
    """

    def __init__(
        self, plan: Plan, key: Key, ticket: Ticket, supervisor: Supervisor, on_end: Callable[[Search], None]
    ) -> None:
        self.id = f"srch_{secrets.token_urlsafe(18)}"
        self.plan = plan
        self.key = key
        self.ticket = ticket
        self.created = time.time()
        self.begun: float | None = None  # when its turn came, and when its first token did: both monotonic
        self.first_token: float | None = None
        self.entered = time.monotonic()
        self.ended: float | None = None
        self.tree: Tree | None = None
        self.sampled = 0
        self.nodes: list[Any] = []
        self.chosen: Chosen | None = None
        self.answer = ""
        self.result: SearchResult | None = None
        self.error: BaseException | None = None
        self.clients = 0
        self._supervisor = supervisor
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[Event] = deque()
        self._woken = False
        self._told_count = 0.0
        self._listeners: set[Listener] = set()
        self._leaving: asyncio.TimerHandle | None = None
        self.task = asyncio.ensure_future(self._run())
        self.task.add_done_callback(self._end)  # comes to all, also to one that is cancelled before it began

    @property
    def over(self) -> bool:
        """Whether there is nothing more to come."""
        return self.ended is not None

    @contextmanager
    def client(self, linger: float) -> Iterator[Callable[[], bool]]:
        """A connection that waits for the answer; gives whether the search is over."""
        self.clients += 1
        if self._leaving is not None:
            self._leaving.cancel()
        try:
            yield lambda: self.over
        finally:
            self.clients -= 1
            if not self.clients and not self.over:
                self._leaving = self._loop.call_later(linger, self.cancel)

    def cancel(self, error: BaseException | None = None) -> None:
        """Free the engine; whoever still listens is told `error`."""
        if not self.over:
            self.error = self.error or error
            self.task.cancel()

    async def wait(self) -> SearchResult:
        """Its result.

        Raises:
            Exception: whatever it failed with.
        """
        await asyncio.wait({self.task})
        if self.result is None:
            raise self.error or SearchCancelledError("the search was cancelled")
        return self.result

    async def listen(self) -> AsyncIterator[list[Event]]:
        """Events from the first one on, as many at a time as there are; of a count of tokens the last alone."""
        listener = Listener()
        if self.tree is not None:
            past: list[Event] = [Started(self.tree.question, self.tree, self.plan.options.get("budget"))]
            if self.nodes:
                past.append(Grown(self.tree.question, tuple(self.nodes)))
            past += [] if self.chosen is None else [self.chosen]
            past += [Answering(self.tree.question, self.answer)] if self.answer else []
            listener.put(past)
        if not self.over:
            self._listeners.add(listener)
        try:
            while True:
                if events := listener.take():
                    yield events
                elif self.over:
                    return
                else:
                    await listener.wait()
        finally:
            self._listeners.discard(listener)

    async def _run(self) -> None:
        try:
            await self.ticket.turn()
            self.begun = time.monotonic()
            plan = self.plan
            self.result = await self._supervisor.search(plan.ask.messages, **{**plan.options, "on_event": self._hear})
        except Exception as error:
            self.error = error

    def _end(self, _: asyncio.Task[None]) -> None:
        self._deliver()
        if self.result is None:
            self.error = self.error or SearchCancelledError("the search was cancelled")
        self.ended = time.monotonic()
        self.ticket.leave(self.sampled if self.result is None else self.result.usage.sampled_tokens)
        for listener in self._listeners:
            listener.wake()
        self._on_end(self)

    # Events, from the searcher's thread to this loop.

    def _hear(self, event: Event) -> None:
        """On the searcher's thread, thousands of times a second: it only notes."""
        if isinstance(event, Sampled):
            self.sampled = event.sampled_tokens
            self._supervisor.heard += 1
            now = time.monotonic()
            if self.first_token is None and event.sampled_tokens:
                self.first_token = now
            if now - self._told_count < SAMPLED_SECONDS:
                return
            self._told_count = now
        self._inbox.append(event)
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False
        events: list[Event] = []
        while self._inbox:
            event = self._inbox.popleft()
            events.append(event)
            if isinstance(event, Started):
                self.tree = event.tree
            elif isinstance(event, Grown):
                self.nodes += event.nodes
            elif isinstance(event, Chosen):
                self.chosen = event
            elif isinstance(event, Answering):
                self.answer += event.text
        if events:
            for listener in self._listeners:
                listener.put(events)


class Listener:
    """Somebody who takes events in their own time."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._news = asyncio.Event()

    def put(self, events: list[Event]) -> None:
        """More has happened."""
        self._events += events
        self._news.set()

    def wake(self) -> None:
        """It is over."""
        self._news.set()

    async def wait(self) -> None:
        """Until there is something to take, or it is over."""
        await self._news.wait()
        self._news.clear()

    def take(self) -> list[Event]:
        """What there is."""
        events, self._events = self._events, []
        return events


class Searches:
    """All searches of a server, by id; those that are over for a while."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._running: dict[str, Search] = {}
        self._over: OrderedDict[str, Search] = OrderedDict()
        self._by_print: dict[tuple[Key, str], Search] = {}

    @property
    def running(self) -> list[Search]:
        """Those that are not over, the waiting ones too."""
        return list(self._running.values())

    def begin(self, search: Search, fingerprint: str) -> None:
        """A search is under way; equal requests of its key have `fingerprint`."""
        self._running[search.id] = search
        self._by_print[search.key, fingerprint] = search

    def same(self, key: Key, fingerprint: str) -> Search | None:
        """The search under way for an equal request of the same key."""
        search = self._by_print.get((key, fingerprint))
        return None if search is None or search.task.cancelling() or search.over else search

    def end(self, search: Search) -> None:
        """Keep what is over, as long as there is room."""
        self._running.pop(search.id, None)
        for name, other in list(self._by_print.items()):
            if other is search:
                del self._by_print[name]
        if search.result is not None:
            self._over[search.id] = search
        self._forget()

    def find(self, key: Key, name: str) -> Search:
        """The search of this key by its id.

        Raises:
            RefusedError: 404; whether another key has such a one is not told.
        """
        self._forget()
        search = self._running.get(name) or self._over.get(name)
        if search is None or search.key is not key:
            raise RefusedError(404, "there is no such search, or no more", param="id", code="search_not_found")
        return search

    def cancel_all(self, error: BaseException) -> None:
        """The server ends."""
        for search in self.running:
            search.cancel(error)

    def _forget(self) -> None:
        limits, now = self._limits, time.monotonic()
        tokens = sum(search.sampled for search in self._over.values())
        while self._over:
            oldest = next(iter(self._over.values()))
            late = now - (oldest.ended or now) > limits.kept_seconds
            if not late and len(self._over) <= limits.kept and tokens <= limits.kept_tokens:
                return
            tokens -= oldest.sampled
            del self._over[oldest.id]
