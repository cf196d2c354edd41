"""An engine ends with the process that started it, even where that was killed: vLLM's own lives on, with its memory.

Runs in the engine's process, where `plugin.register` calls it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

STARTED_BY = "TTS_SEARCH_STARTED_BY"
"""Environment variable: the id of the process that starts an engine. Engines of others are left alone."""

LOOK_SECONDS = 1.0
GRACE_SECONDS = 10.0  # from the signal that asks to the one that does not


def end_with_parent() -> None:
    """In a process that `STARTED_BY` has started itself: end when that one is no more, or at once if it is not now."""
    parent = multiprocessing.parent_process()
    if parent is not None and os.environ.get(STARTED_BY) == str(parent.pid):
        threading.Thread(target=_outlive, args=(parent.pid,), name="tts-search-parent", daemon=True).start()


def _outlive(parent: int) -> None:
    while os.getppid() == parent:  # an orphan has another
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
