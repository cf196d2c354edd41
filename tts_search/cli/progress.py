"""The line that counts tokens while a search runs. Imported when one runs, because `rich.progress` takes its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBars
from rich.table import Column
from rich.text import Text

from tts_search.cli.terminal import animates, writes_unicode
from tts_search.core.events import OnProgress, Progress


@contextmanager
def searching(console: Console | None, budget: int | None) -> Iterator[OnProgress | None]:
    """A line that counts tokens while a search runs; what it gives is the search's `on_progress`."""
    if not animates(console):
        yield None
        return
    bar = [BarColumn(bar_width=16)] if budget is not None and console.width >= 60 else []
    with ProgressBars(
        SpinnerColumn("dots" if writes_unicode(console) else "line"),
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        *bar,
        _Tokens(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bars:
        task = bars.add_task("waiting for the first token", total=budget)
        yield _throttled(lambda progress: bars.update(task, completed=progress.sampled_tokens, description="thinking"))


def _throttled(show: Callable[[Progress], None], seconds: float = 0.05) -> OnProgress:
    """Tokens come thousands a second, and nobody reads so fast."""
    shown = 0.0

    def on_progress(progress: Progress) -> None:
        nonlocal shown
        now = time.monotonic()
        if progress.sampled_tokens and now - shown >= seconds:
            shown = now
            show(progress)

    return on_progress


class _Tokens(ProgressColumn):
    """`12,345 of 16,000 tokens · 950/s`."""

    def render(self, task: Task) -> Text:
        if not task.completed:
            return Text()
        cap = f" of {task.total:,.0f}" if task.total else ""
        speed = f" · {task.speed:,.0f}/s" if task.speed else ""
        return Text(f"{task.completed:,.0f}{cap} tokens{speed}")
