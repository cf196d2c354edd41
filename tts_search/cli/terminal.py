"""The terminal around a search: consoles, messages, a spinner, and quiet from everybody else.

What moves or has colour appears only where a terminal is. This module knows no results and no engine.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import IO, TypeGuard

from rich.console import Console
from rich.text import Text

from tts_search.addresses import without_credentials
from tts_search.cli.wording import in_options
from tts_search.confidential import shown_arguments
from tts_search.models import EMBEDDED, model_folder

COMFORTABLE_WIDTH = 100  # columns; longer lines are hard to read
UNWRAPPED_WIDTH = 1 << 16  # columns of a pipe: whoever reads it folds lines as they like
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}  # to pictures of them
_CONTROLS |= dict.fromkeys(range(127, 160), 0xFFFD)

# Engines and their libraries talk on standard error and even on standard output. A user's own settings go first.
_QUIET = {
    "GLOG_minloglevel": "2",
    "HF_HUB_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
_NO_BARS = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}


def console_for(stream: IO[str]) -> Console:
    """A console that never changes the text it is given: no markup, no emoji codes, no highlighting."""
    console = Console(file=stream, markup=False, emoji=False, highlight=False)
    if console.is_terminal:
        console.width = min(console.width, COMFORTABLE_WIDTH)
    elif not os.environ.get("COLUMNS", "").isdigit():
        console.width = UNWRAPPED_WIDTH
    return console


def animates(console: Console | None) -> TypeGuard[Console]:
    """Whether a line that redraws itself belongs there."""
    return console is not None and console.is_terminal and not console.is_dumb_terminal


@contextmanager
def loading(console: Console | None, what: str) -> Iterator[None]:
    """A spinner while `what` is loaded; nothing where nothing can be animated."""
    if not animates(console):
        yield
        return
    message = Text(f"Loading {without_credentials(what)}", "dim")
    with console.status(message, spinner="dots" if writes_unicode(console) else "line"):
        yield


def command_line() -> str:
    """The command as it was typed, for a report; without the credentials in it, of a URL or under a name."""
    return "tts-search " + shlex.join(map(without_credentials, shown_arguments(sys.argv[1:])))


def plain(text: str) -> str:
    """What a model wrote, without the control characters that could drive a terminal."""
    return text.translate(_CONTROLS)


def writes_unicode(console: Console) -> bool:
    """Whether signs beyond ASCII can be shown."""
    return console.encoding.lower().replace("-", "").startswith("utf")


def say(line: str, heading: str = "") -> None:
    """One line on standard error, which may be closed."""
    console = console_for(sys.stderr)
    text = Text.assemble((heading, "bold red"), plain(" ".join(line.split())))
    with console.capture() as capture:
        console.print(text, soft_wrap=True)
    with suppress(BrokenPipeError):
        sys.stderr.write(capture.get())
        sys.stderr.flush()


def say_error(message: str) -> None:
    """`error: ...` on standard error."""
    say(message, "error: ")


@contextmanager
def own_streams(debug: bool) -> Iterator[None]:
    """Keep the standard streams for this command: engine processes and C++ code write on them as they like.

    What they write is lost, or with `debug` on standard error. Python's `sys.stderr` stays, and `sys.stdout` joins it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept_out, kept_err = os.dup(1), os.dup(2)
    elsewhere = os.dup(2) if debug else os.open(os.devnull, os.O_WRONLY)
    os.dup2(elsewhere, 1)
    os.dup2(elsewhere, 2)
    os.close(elsewhere)
    voice = sys.stderr
    if voice is sys.__stderr__:
        voice = os.fdopen(os.dup(kept_err), "w", 1, encoding=voice.encoding, errors="backslashreplace")
    try:
        with redirect_stderr(voice), redirect_stdout(voice):
            yield
    finally:
        for kept, place in ((kept_out, 1), (kept_err, 2)):
            os.dup2(kept, place)
            os.close(kept)


class _Voice(logging.Handler):
    """What the package logs, as a line of this command's own."""

    def emit(self, record: logging.LogRecord) -> None:
        say(in_options(record.getMessage()), f"{record.levelname.lower()}: ")


def silence_logs(debug: bool) -> None:
    """No chatter of the libraries that are about to be imported, unless for debugging; our own in options' words."""
    ours = logging.getLogger("tts_search")
    if not any(isinstance(handler, _Voice) for handler in ours.handlers):
        ours.addHandler(_Voice(logging.WARNING))
    if debug:
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")
    logging.getLogger("torch").setLevel(logging.ERROR)
    sys.unraisablehook = lambda _: None  # engines that are torn down late complain to nobody
    logging.getLogger("asyncio").setLevel(
        logging.CRITICAL
    )  # an interrupted search leaves tasks, and it would list them


def silence_bars(debug: bool) -> None:
    """No progress bars of theirs either."""
    if debug:
        return
    for name, value in _NO_BARS.items():
        os.environ.setdefault(name, value)
    if "huggingface_hub" in sys.modules:  # has read the environment already
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()


def download(model: str | None) -> None:
    """Fetch a model from the hub, if that is where it is."""
    if model not in (None, EMBEDDED) and not Path(model).expanduser().exists():
        model_folder(model)
