"""What becomes of a command: exit codes that scripts can rely on, and every failure as one line. Runs nothing."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from tts_search.cli.terminal import say, say_error
from tts_search.cli.wording import in_options
from tts_search.errors import (
    HeadMismatchError,
    InvalidInputError,
    MissingDependencyError,
    ModelNotFoundError,
    TTSError,
)

FAILED, INVALID, NO_ANSWER, INTERRUPTED, TERMINATED = 1, 2, 3, 130, 143
_INVALID = (InvalidInputError, ModelNotFoundError, HeadMismatchError, MissingDependencyError)

EXIT_CODES = """[bold]Exit codes[/bold]

    0  answered, if only with what the budget paid for (the output says so)
    1  the search failed: its generator, scorer or strategy
    2  unusable input: an option, the question, the model, a server that is not there, a missing package
    3  no answer: the model wrote none
  130  interrupted
  143  terminated, as tidily: engines are shut down, what was finished is kept
"""


class _Terminated(KeyboardInterrupt):
    """SIGTERM came: whatever heeds Ctrl-C heeds it, too. Without it an engine would outlive the command."""


@contextmanager
def outcomes(debug: bool) -> Iterator[None]:
    """Every failure as one line on standard error, and its exit code."""
    try:
        with _heeding_sigterm():
            yield
    except typer.Exit:
        raise
    except _Terminated:
        say("terminated")
        raise typer.Exit(TERMINATED) from None
    except KeyboardInterrupt:
        say("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        message = in_options(str(error))
        if not isinstance(error, TTSError):
            message = f"{type(error).__name__}: {error}"
        if not debug and not isinstance(error, _INVALID):
            message += " (--debug shows more)"
        say_error(message)
        raise typer.Exit(INVALID if isinstance(error, _INVALID) else FAILED) from error


@contextmanager
def _heeding_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # which alone may take signals over
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None: not set from Python


def _terminate(_signal: int, _frame: Any) -> None:
    raise _Terminated
