r"""Mathematical answers by math-verify, in processes that can be killed.

math-verify's own timeout needs signals, which threads have not, and no signal interrupts a power tower inside the
integer arithmetic (`9^{9^{9^9}}`). So each answer is judged in a process of its own under limits that the kernel keeps.
It knows no model: an answer is text.
"""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from types import TracebackType
from typing import Self

from tts_search.errors import InvalidInputError, MissingDependencyError, TTSError
from tts_search.grading import math_worker
from tts_search.grading.answers import CLOSE, after_thinking, last_boxed, reference_of

_INTEGER = re.compile(r"[+-]?\d{1,18}")
_NOISE = re.compile(
    r"""(?<=\d)\\[,!;: ](?=\d{3})  # spaces for thousands
    | \^\{\s*\} | \\color\{\w+\} | \\[,;!]?\s*$ | (?<![\s.])[\s.]+$""",
    re.VERBOSE,
)
_LONGEST = 4_000  # characters of an answer that are read; no gradeable answer is longer


class MathGrader:
    r"""Whether two mathematical expressions mean the same: `MathGrader()(r"So \boxed{\frac12}.", "0.5")`.

    The last `\boxed{...}` behind the thinking counts; without one, the last expression that math-verify finds. Equal
    texts and integers are compared without a process. An answer that cannot be judged within the limits is wrong.

    Any number of threads may call it. Processes begin with the first answer that needs them (some seconds, once),
    outlive every hostile answer, and end with `close()`, with the `with` block, or with the program.

    Args:
        require_boxed: without a box an answer is wrong. For rewards: loose numbers pass otherwise.
        require_thought: what no `</think>` precedes is no answer. For whole responses of models that think.
        cpu_seconds: limit of one judgement, in seconds of processor time: a busy machine changes no grade.
        memory_mb: limit of one judgement's memory.
        workers: processes at most; by default one a processor, up to 8.

    Raises:
        MissingDependencyError: math-verify is not installed.
    """

    def __init__(
        self,
        *,
        require_boxed: bool = False,
        require_thought: bool = False,
        cpu_seconds: float = 5.0,
        memory_mb: int = 2048,
        workers: int | None = None,
    ) -> None:
        if not cpu_seconds > 0:
            raise InvalidInputError(f"cpu_seconds must be positive, got {cpu_seconds!r}")
        for name, value in (("memory_mb", memory_mb), ("workers", workers)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InvalidInputError(f"{name} must be a whole number of at least 1, got {value!r}")
        if find_spec("math_verify") is None:
            raise MissingDependencyError("grading mathematics needs math-verify: pip install 'tts-search[eval]'")
        self._require_boxed, self._require_thought = require_boxed, require_thought
        self._limits = (str(cpu_seconds), str(memory_mb * 2**20))
        self._workers = workers or min(8, os.cpu_count() or 1)
        self._free = threading.Semaphore(self._workers)
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._closed = False

    def __call__(self, answer: str, reference: str) -> bool:
        """Whether `answer` (a whole response or its end) means the same as `reference` (LaTeX or plain, no box needed).

        Of a reference that is a worked solution its final answer counts, see `reference_of`.

        Raises:
            InvalidInputError: the reference is empty.
        """
        gold = _tidy(reference_of(reference))
        if not gold:
            raise InvalidInputError("the reference answer is empty")
        said = self._said(answer)
        if said is None:
            return False
        text, is_boxed = said
        plain = _tidy(text)
        if plain == gold:
            return True
        if _INTEGER.fullmatch(plain) and _INTEGER.fullmatch(gold):
            return int(plain) == int(gold)
        return self._judge(gold, f"\\boxed{{{plain}}}" if is_boxed else text)

    def grade_many(self, pairs: Iterable[tuple[str, str]]) -> list[bool]:
        """Grade `(answer, reference)` pairs, in their order, on all workers at once."""
        with ThreadPoolExecutor(self._workers) as threads:
            return list(threads.map(lambda pair: self(*pair), pairs))

    def close(self) -> None:
        """End the processes. Calling it twice is harmless; grading after it is an error."""
        self._closed = True
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _said(self, answer: str) -> tuple[str, bool] | None:
        """The part of an answer that is graded, and whether it was boxed."""
        if self._require_thought and CLOSE not in answer:
            return None
        text = after_thinking(answer)
        box = last_boxed(text)
        if box is not None:
            return (box, True) if box and len(box) <= _LONGEST else None
        if self._require_boxed or not text.strip():
            return None
        return text[-_LONGEST:], False

    def _judge(self, reference: str, answer: str) -> bool:
        with self._free:
            if self._closed:
                raise TTSError("this MathGrader is closed: make another one")
            try:
                worker = self._idle.get_nowait()
            except queue.Empty:
                worker = _Worker(self._limits)
            try:
                verdict = worker.ask(reference, answer)
            except BaseException:
                worker.close()
                raise
            self._idle.put(worker)
            if self._closed:
                self.close()
        return verdict


def _tidy(latex: str) -> str:
    """Without what means nothing and confuses the parser."""
    return _NOISE.sub("", latex.strip().strip("$")).replace(r"\varnothing", r"\emptyset").strip()


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

    def ask(self, reference: str, answer: str) -> bool:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([reference, answer]) + "\n")  # ASCII: lone surrogates pass, too
        self._process.stdin.flush()
        return self._reply() == "1"

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
