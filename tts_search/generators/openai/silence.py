"""Notices that nothing has come for too long, with one timer for a stream instead of one for every packet of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# The loop itself may have been held up: it needs a turn to read what has come, and one for the reader to hear of it.
LOOKS = 2


class Silence:
    """Calls `give_up` once nothing has been heard for `seconds`; `struck` says that it has.

    Begins with the running event loop's present time, and ends with the block that it is the context of.
    """

    def __init__(self, seconds: float, give_up: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._give_up = give_up
        self.struck = False

    def __enter__(self) -> Silence:
        self.heard()
        self._timer = self._loop.call_later(self._seconds, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def heard(self) -> None:
        """Something has come."""
        self._last = self._loop.time()
        self._looks = 0

    def _look(self) -> None:
        left = self._last + self._seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        elif self._looks < LOOKS:
            self._looks += 1
            self._timer = self._loop.call_later(0, self._look)
        else:
            self.struck = True
            self._give_up()
