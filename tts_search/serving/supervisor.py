"""The one engine of a server: whether it lives, and what happens when it does not.

An error of the engine is looked into with a request of one token. Does that fail too, the engine is dead: what runs on
it fails, and another is opened, a few times at most. Knows a `Searcher`, and no HTTP.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Literal, Unpack

from tts_search.api import Searcher
from tts_search.core.protocols import Question
from tts_search.core.result import SearchResult
from tts_search.errors import GeneratorError, SearchCancelledError, TTSError
from tts_search.options import Options
from tts_search.serving.refusals import unavailable

State = Literal["starting", "ready", "restarting", "dead", "closed"]
PROBE_SECONDS = 30.0
PROBE = "1"
log = logging.getLogger("tts_search.serving")


class Supervisor:
    """Owns the searcher. `open_another` makes one anew, in a thread; `restarts` is how often, in a row, in vain,
    None for ever: an engine elsewhere comes back when somebody else has mended it.

    `start_seconds` limits the first request of an engine, which may load a model. An engine that has had nothing to do
    for `idle_seconds` is looked at, too; None spares it, where every token is paid for. `heard` counts signs of life.
    """

    def __init__(
        self,
        searcher: Searcher,
        open_another: Callable[[], Searcher],
        *,
        restarts: int | None = 3,
        probe_seconds: float = PROBE_SECONDS,
        start_seconds: float = 1800.0,
        idle_seconds: float | None = 15.0,
    ) -> None:
        self.searcher = searcher
        self.state: State = "starting"
        self.restarted = 0
        self._open = open_another
        self._restarts = restarts
        self._probe_seconds = probe_seconds
        self._start_seconds = start_seconds
        self._idle_seconds = idle_seconds
        self._looking: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self.heard = 0

    def start(self) -> None:
        """Begin: the engine is asked for its first token beside everything else."""
        self._looking = asyncio.ensure_future(self._begin())
        if self._idle_seconds is not None:
            self._watching = asyncio.ensure_future(self._watch(self._idle_seconds))

    async def close(self) -> None:
        """Free the engine; what runs is cancelled."""
        self.state = "closed"
        for task in (self._looking, self._watching):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        await asyncio.to_thread(_close, self.searcher)

    def check(self) -> None:
        """Refuse where there is no engine to ask.

        Raises:
            RefusedError: 503.
        """
        if self.state == "starting":
            raise unavailable("the engine is starting: try again soon")
        if self.state == "restarting":
            raise unavailable("the engine died and is being restarted: try again soon")
        if self.state in ("dead", "closed"):
            raise unavailable("the engine is dead: whoever runs this server must look at it", retry_after=60)

    async def search(self, question: Question, **options: Unpack[Options]) -> SearchResult:
        """`Searcher.asearch`; an engine's failure comes only when it is known whether the engine lives.

        Raises:
            RefusedError: 503, the engine is dead.
            TTSError: what the search raised.
        """
        self.check()
        searcher = self.searcher
        try:
            return await searcher.asearch(question, **options)
        except (GeneratorError, SearchCancelledError) as error:
            if searcher is self.searcher and self.state == "ready":
                log.warning("a search failed, so the engine is looked at: %s", error)
                await self._look()
            if searcher is not self.searcher or self.state != "ready":
                raise unavailable("the engine died while this search ran: try again") from error
            raise

    async def _watch(self, seconds: float) -> None:
        while True:
            heard = self.heard
            await asyncio.sleep(seconds)
            if self.state == "ready" and self.heard == heard:
                await self._look()

    async def _look(self) -> None:
        """Ask the engine for a token, once for all who wonder."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._examine())
        await asyncio.shield(self._looking)

    async def _examine(self) -> None:
        if await self._lives(self._probe_seconds):
            return
        self.state = "restarting"
        self._looking = asyncio.ensure_future(self._restart())

    async def _begin(self) -> None:
        if await self._lives(self._start_seconds):
            self.state = "ready"
        else:
            self.state = "restarting"
            await self._restart()

    async def _restart(self) -> None:
        for attempt in itertools.count() if self._restarts is None else range(self._restarts):
            await asyncio.to_thread(_close, self.searcher)  # what runs there fails
            await asyncio.sleep(min(30.0, 0.5 * 4 ** min(attempt, 3)))
            log.warning("restarting the engine, attempt %d of %s", attempt + 1, self._restarts or "any")
            self.restarted += 1
            try:
                self.searcher = await asyncio.to_thread(self._open)
            except Exception as error:
                log.error("the engine cannot be opened: %s", error)
                continue
            if await self._lives(self._start_seconds):
                self.state = "ready"
                log.warning("the engine is back")
                return
        self.state = "dead"
        await asyncio.to_thread(_close, self.searcher)
        log.error("the engine is dead")

    async def _lives(self, seconds: float) -> bool:
        heard = self.heard
        # Services that think behind their own doors refuse a limit that holds no thought.
        tokens = 1 if getattr(self.searcher.generator, "starts_anywhere", True) else 64
        try:
            async with asyncio.timeout(seconds):
                await self.searcher.asearch(
                    PROBE, strategy="single", max_tokens=tokens, answer_tokens=tokens, keep_tree=False
                )
        except TimeoutError:
            if self.heard != heard:  # it is busy with others
                return True
            log.error("the engine tells nothing for %g seconds", seconds)
            return False
        except (GeneratorError, SearchCancelledError) as error:
            log.error("the engine does not answer: %s", error)
            return False
        except TTSError as error:  # a scorer's, say: the engine answered it
            log.warning("the engine was looked at, and something else failed: %s", error)
        return True


def _close(searcher: Searcher) -> None:
    try:
        searcher.close()
    except Exception as error:  # a dead engine need not close well
        log.warning("closing the engine: %s: %s", type(error).__name__, error)
