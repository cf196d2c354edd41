r"""The process behind `math_judges`: reads JSON lines `[reference, answer, sides]`, writes `1`, `0` or `?` for each.

Run as a script, it imports nothing of tts-search. It judges in a fork of itself, which the kernel ends when a judgement
takes too much time or memory; the next fork costs milliseconds, because the libraries are imported once.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import resource
import signal
import socket
import sys
from typing import Any, TextIO

_TOLERANCE = 2e-6  # of the greater: 0.333333 is 1/3
_ROUNDED = 0.005  # "20/3 = 6.67" holds


def main(cpu_seconds: float, memory_bytes: int) -> None:
    """Serve standard input until it ends."""
    import math_verify

    logging.disable(logging.CRITICAL)
    _compare_relatively()
    _agree(math_verify, r"\frac{1}{2}", r"\boxed{0.5}", [])  # builds the parser's tables, which all forks then share
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no reply
    print("ready", file=replies, flush=True)
    judge: tuple[int, TextIO] | None = None
    for line in sys.stdin:
        if judge is None:
            judge = _fork(math_verify, cpu_seconds, memory_bytes)
        pid, pipe = judge
        verdict = ""
        try:
            pipe.write(line)
            pipe.flush()
            verdict = pipe.readline().strip()
        except OSError:
            pass  # it is dead, as it is when it answers nothing
        if not verdict:
            os.waitpid(pid, 0)
            judge = None
        print(verdict or "?", file=replies, flush=True)


def _fork(library: Any, cpu_seconds: float, memory_bytes: int) -> tuple[int, TextIO]:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
            _judge(library, theirs.makefile("rw", encoding="ascii"), cpu_seconds)
        finally:
            os._exit(1)
    theirs.close()
    return pid, ours.makefile("rw", encoding="ascii")


def _judge(library: Any, pipe: TextIO, cpu_seconds: float) -> None:
    """In the fork. The timer counts its own processor time, however busy the machine, and its signal kills."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for line in pipe:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            verdict = _agree(library, *json.loads(line))
        except MemoryError:
            return  # what it filled its memory with dies with it
        except Exception:
            verdict = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(int(verdict), file=pipe, flush=True)


def _agree(library: Any, reference: str, answer: str, sides: list[str]) -> bool:
    """Gold first: `verify` is not symmetric. Its own timeouts are off: they cannot end integer arithmetic."""
    if not _holds(library, sides):
        return False
    gold = library.parse(f"\\boxed{{{reference}}}", parsing_timeout=None)
    given = library.parse(answer, parsing_timeout=None)
    return bool(gold and given and library.verify(gold, given, allow_set_relation_comp=True, timeout_seconds=None))


def _holds(library: Any, sides: list[str]) -> bool:
    """Whether those sides of an equation that are numbers are the same one, give or take what rounding takes."""
    numbers = []
    for side in sides:
        parsed = library.parse(f"\\boxed{{{side}}}", parsing_timeout=None)
        number = _number(parsed[0]) if parsed else None
        if number is not None:
            numbers.append(number)
    return all(abs(a - b) <= _ROUNDED * max(abs(a), abs(b)) for a, b in itertools.pairwise(numbers))


def _compare_relatively() -> None:
    """math-verify rounds to six places behind the point, which makes all tiny numbers equal: ask for the distance.

    It looks its comparison up by name for every number, in sets, tuples and intervals, too.
    """
    from math_verify import grader

    original = grader.sympy_numeric_eq

    def compare(a: Any, b: Any, float_rounding: int, numeric_precision: int) -> bool:
        if not original(a, b, float_rounding, numeric_precision):
            return False
        if grader.is_atomic_or_pct_atomic(a, grader.Integer) and grader.is_atomic_or_pct_atomic(b, grader.Integer):
            return True  # compared exactly; 9 % may be 9
        x, y = _number(a), _number(b)
        return x is None or y is None or abs(x - y) <= _TOLERANCE * max(abs(x), abs(y))

    grader.sympy_numeric_eq = compare


def _number(expression: Any) -> Any:
    """A number of 30 digits, None for what is none."""
    try:
        if expression.free_symbols:
            return None
        number = expression.doit().evalf(30)
        return number if number.is_number and number.is_finite else None
    except (AttributeError, TypeError, ValueError):
        return None


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
