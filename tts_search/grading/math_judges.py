"""Processes that compare expressions, one `math_worker` each, and who waits for which.

They outlive every hostile expression and end with their owner. Any number of threads may ask.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from tts_search.errors import TTSError
from tts_search.grading import math_worker


class Judges:
    """Up to `workers` processes, begun when they are needed.

    Args:
        cpu_seconds: limit of one judgement, in seconds of processor time.
        memory_mb: limit of one judgement's memory.
        workers: by default one a processor, up to 8.
    """

    def __init__(self, *, cpu_seconds: float, memory_mb: int, workers: int | None = None) -> None:
        self.workers = workers or min(8, os.cpu_count() or 1)
        self._limits = (str(cpu_seconds), str(memory_mb * 2**20))
        self._free = threading.Semaphore(self.workers)
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._closed = False

    def judge(self, reference: str, answer: str, sides: Sequence[str] = ()) -> bool | None:
        """Whether two expressions in LaTeX mean the same; None where the limits ended the judgement.

        An answer whose `sides` are numbers that differ (`8 = 7`) is wrong, whatever the last of them is.
        """
        with self._free:
            if self._closed:
                raise TTSError("this grader of mathematics is closed: make another one")
            try:
                worker = self._idle.get_nowait()
            except queue.Empty:
                worker = _Worker(self._limits)
            try:
                verdict = worker.ask(reference, answer, sides)
            except BaseException:
                worker.close()
                raise
            self._idle.put(worker)
            if self._closed:
                self.close()
        return verdict

    def close(self) -> None:
        """End the processes. Calling it twice is harmless; judging after it is an error."""
        self._closed = True
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()


class _Worker:
    """One process of `math_worker`."""

    def __init__(self, limits: tuple[str, str]) -> None:
        path = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(math_worker.__file__), *limits],  # -P: its folder has a module named math
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for the program, which then closes this
        )
        self._reply()

    def ask(self, reference: str, answer: str, sides: Sequence[str]) -> bool | None:
        assert self._process.stdin is not None
        self._process.stdin.write(
            json.dumps([reference, answer, list(sides)]) + "\n"
        )  # ASCII: lone surrogates pass, too
        self._process.stdin.flush()
        return {"1": True, "0": False}.get(self._reply())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _reply(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise TTSError(
                f"a process that grades mathematics ended with code {self._process.wait()}: try "
                f"{sys.executable} -c 'import math_verify'"
            )
        return line
