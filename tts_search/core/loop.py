"""An event loop in a thread of its own: all engine work of one searcher happens there.

So the same calls work in a script, inside a running loop, and in a notebook.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from tts_search.errors import InvalidInputError, SearchCancelledError

T = TypeVar("T")

CLOSING_SECONDS = 5.0  # how long work in flight may take to notice that it is cancelled


class LoopThread:
    """Begun with the first piece of work. It outlives whatever a piece of work raises, `SystemExit` included."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._lock = threading.Lock()
        self.closed = False

    @property
    def forked(self) -> bool:
        """Whether this is another process than the one it began in: threads and engines stay behind in a fork."""
        return self._loop is not None and os.getpid() != self._process

    def submit(self, work: Coroutine[Any, Any, T], *, last: bool = False) -> concurrent.futures.Future[T]:
        """Start the work; its outcome, for whichever thread wants it. Behind the `last` nothing is taken on.

        Raises:
            InvalidInputError: the process was forked since, or the loop was stopped.
        """
        if self.forked:
            work.close()
            raise InvalidInputError(
                f"this Searcher is at work in process {self._process} and cannot be used in its fork, {os.getpid()}: "
                "make one in each process, or start processes by 'spawn'"
            )
        with self._lock:
            if self.closed:
                work.close()
                raise InvalidInputError("this Searcher is closed: make a new one")
            if self._loop is None:
                self._process = os.getpid()
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name="tts-search", daemon=True)
                self._thread.start()
            self.closed = last
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, T], *, last: bool = False) -> T:
        """Wait for the work; Ctrl-C cancels it.

        Raises:
            SearchCancelledError: the loop was stopped meanwhile.
            InvalidInputError: see `submit` and `check_thread`.
        """
        try:
            self.check_thread()
        except InvalidInputError:
            work.close()
            raise
        future = self.submit(work, last=last)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise SearchCancelledError("the Searcher was closed while this was under way") from None
        except KeyboardInterrupt:
            future.cancel()
            raise

    def check_thread(self) -> None:
        """Refuse to wait for the loop in its own thread: that would be for ever.

        Raises:
            InvalidInputError: this is that thread.
        """
        if self._thread is threading.current_thread():
            raise InvalidInputError(
                "this Searcher is at work in this very thread (in a strategy, a selector, a handler of events ...) and "
                "would wait for itself: use it from another thread, await its asearch, or make a second Searcher"
            )

    async def acall(self, work: Coroutine[Any, Any, T]) -> T:
        """`call` for another event loop: cancelling it cancels the work."""
        try:
            return await asyncio.wrap_future(self.submit(work))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise SearchCancelledError("the Searcher was closed while this was under way") from None

    async def cancel_others(self) -> None:
        """Cancel all work but this, and wait until it has noticed. Runs in the loop itself."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=CLOSING_SECONDS)

    def stop(self) -> None:
        """End the loop, which begins no more. Calling it twice is harmless."""
        with self._lock:
            self.closed = True
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is None or os.getpid() != self._process:
            return
        loop.call_soon_threadsafe(loop.stop)
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSING_SECONDS)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while True:
        try:
            loop.run_forever()
            break
        except BaseException:  # SystemExit of a task: whoever awaits the task has it, and the others go on
            continue
    loop.close()
