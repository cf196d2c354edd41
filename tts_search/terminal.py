"""How a search looks in a terminal: the progress line, and a result drawn for people.

Colours and boxes only where the output is a terminal; in a pipe the same sections are plain text, one step a line.
This module knows results and numbers; it knows no engine, and it decides nothing.
"""

from __future__ import annotations

import colorsys
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TypeGuard

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBars
from rich.style import Style
from rich.table import Column, Table
from rich.text import Text

from tts_search.result import Candidate, SearchResult, StopReason
from tts_search.runner import OnProgress, Progress

COMFORTABLE_WIDTH = 100  # columns; longer lines are hard to read
UNWRAPPED_WIDTH = 1 << 16  # columns of a pipe: whoever reads it folds lines as they like
BAR_CELLS = 5
CANDIDATES_SHOWN = 8
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | dict.fromkeys(
    range(127, 160), 0xFFFD
)


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
    with console.status(Text(f"Loading {what}", "dim"), spinner="dots" if _unicode(console) else "line"):
        yield


@contextmanager
def searching(console: Console | None, budget: int | None) -> Iterator[OnProgress | None]:
    """A line that counts tokens while a search runs; what it gives is the search's `on_progress`."""
    if not animates(console):
        yield None
        return
    bar = [BarColumn(bar_width=16)] if budget is not None and console.width >= 60 else []
    with ProgressBars(
        SpinnerColumn("dots" if _unicode(console) else "line"),
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


def draw(result: SearchResult, console: Console) -> str:
    """The whole report as text for this console: answer, thinking with step scores, candidates, token account."""
    parts: list[RenderableType] = [_answer(result, console)]
    for title, detail, body in (_thinking(result, console), _candidates(result, console), _account(result)):
        if body is not None:
            parts += [Text(), Text.assemble((title, "bold"), ("  " + detail, "dim")), Padding(body, (0, 0, 0, 2))]
    return drawn(Group(*parts), console)


def drawn(what: RenderableType, console: Console) -> str:
    """Text for this console; without the blanks that tables leave at the ends of lines, unless in a terminal."""
    with console.capture() as capture:
        console.print(what)
    text = capture.get()
    return text if console.is_terminal else "".join(line.rstrip() + "\n" for line in text.splitlines())


def error_line(message: str, console: Console) -> str:
    """`error: ...`, never folded."""
    with console.capture() as capture:
        console.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
    return capture.get()


def plain(text: str) -> str:
    """What a model wrote, without the control characters that could drive a terminal."""
    return text.translate(_CONTROLS)


def remark(result: SearchResult) -> str | None:
    """Why the search ended, in plain words with a remedy; None where there is nothing to say."""
    cap = f"{result.budget:,} tokens" if result.budget else "tokens"
    if result.stop_reason is StopReason.EMPTY:
        return "the model ended its response at once: there is no text to answer from. Try another --seed or --model"
    if not result.answer.strip():
        if result.stop_reason is StopReason.BUDGET:
            return f"the budget of {cap} was spent before an answer was written: raise --budget"
        return "the model wrote nothing after its thinking: try another --seed, or more --answer-tokens"
    if result.stop_reason is StopReason.BUDGET:
        return f"the budget of {cap} was spent: this is the best answer it paid for. Raise --budget for a longer search"
    if result.stop_reason is StopReason.LENGTH:
        return "no path came to an end: the best one was cut off and answered from. Raise --max-tokens to let it finish"
    return None


def _unicode(console: Console) -> bool:
    return console.encoding.lower().replace("-", "").startswith("utf")


def _answer(result: SearchResult, console: Console) -> RenderableType:
    answer = plain(result.answer.strip())
    note = remark(result)
    lines = [Text(answer, "bold")] if answer else []
    if not console.is_terminal:
        return Group(*lines, *([Text(f"({note})")] if note else []))
    if not answer:
        lines = [Text("no answer", "italic")]
    if note:
        lines += [Text(), Text(note[0].upper() + note[1:] + ".", "yellow")]
    score = "" if result.score is None else f"score {result.score:.2f}"
    colour = "green" if answer and not note else "yellow"
    return Panel(
        Group(*lines), title=Text("Answer"), title_align="left", subtitle=score, subtitle_align="right", border_style=colour,
        padding=(0, 2),
    )  # fmt: skip


def _segments(result: SearchResult) -> list[tuple[str, float | None]]:
    """The thinking in pieces: every finished step with its score, then what follows the last of them."""
    texts = [step.text for step in result.steps]
    joined = "".join(texts)
    # A thinking tag that the model wrote itself stands in its first step, and not in `thinking`.
    tag = next((k for k in range(min(len(joined), 64)) if result.thinking.startswith(joined[k:])), None)
    if tag is not None and texts:
        texts[0] = texts[0][tag:]
    rest = result.thinking if not texts else result.thinking[len(joined) - tag :] if tag is not None else ""
    pieces = [(text, step.score) for text, step in zip(texts, result.steps, strict=True)]
    return [*pieces, (rest, None)] if rest.strip() else pieces


def _thinking(result: SearchResult, console: Console) -> tuple[str, str, RenderableType | None]:
    segments = _segments(result)
    scored = any(score is not None for _, score in segments)
    same = result.thinking.strip() == result.answer.strip()  # a model without thinking tags
    if not segments or (same and not scored):
        return "", "", None
    title = "The answer, step by step" if same else "Thinking"
    count = len(result.steps)
    detail = f"{count} step{'s' * (count != 1)}" + (", each scored from 0 to 1" if scored else ", not scored")
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", style="dim", no_wrap=True)
    if scored:
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, width=BAR_CELLS)
    table.add_column()
    for number, (text, score) in enumerate(segments, start=1):
        words = Text(plain("\n".join(line for line in text.strip("\n").rstrip().splitlines() if line.strip())))
        label = str(number) if number <= count else ""
        if not scored:
            table.add_row(label, words)
        elif score is None:
            words.stylize("dim")
            table.add_row(label, Text("   –" if _unicode(console) else "   -", "dim"), "", words)
        else:
            style = _colour(score)
            table.add_row(label, Text(f"{score:.2f}", style), Text(_bar(score, console), style), words)
    return title, detail, table


def _colour(score: float) -> Style:
    """Red to green by way of amber, dark enough for a white background and light enough for a black one."""
    red, green, blue = colorsys.hls_to_rgb(min(max(score, 0.0), 1.0) * 0.36, 0.45, 0.75)
    return Style(color=f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}")


def _bar(score: float, console: Console) -> str:
    """The score once more as a length, for eyes and places without colour."""
    eighths = round(min(max(score, 0.0), 1.0) * BAR_CELLS * 8)
    if not _unicode(console):
        return "#" * round(eighths / 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _candidates(result: SearchResult, console: Console) -> tuple[str, str, RenderableType | None]:
    candidates = result.candidates
    if len(candidates) < 2:
        return "", "", None
    scored = result.score is not None
    votes = Counter(c.vote for c in candidates if c.vote is not None)
    voted = sum(c.answer is not None for c in candidates) > 1
    order = sorted(range(len(candidates)), key=lambda i: (i != result.chosen, -candidates[i].score, i))
    shown, more = order[:CANDIDATES_SHOWN], len(order) - CANDIDATES_SHOWN
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    headings = ["score"] * scored + ["votes"] * voted + ["logprob"] * (result.selector == "logprob") + ["tokens"]
    for _ in headings:
        table.add_column(justify="right", no_wrap=True)
    table.add_column()
    table.add_row("", *(Text(name, "dim") for name in headings), Text("answer", "dim"))
    mark = "▸" if _unicode(console) else ">"
    for i in shown:
        candidate = candidates[i]
        chosen = i == result.chosen
        cells: dict[str, Text] = {
            "score": Text(f"{candidate.score:.2f}", _colour(candidate.score)),
            "votes": Text(str(votes[candidate.vote]) if candidate.vote is not None else ""),
            "logprob": Text(f"{candidate.mean_logprob:.3f}"),
            "tokens": Text(f"{result.tree.nodes[candidate.node].length:,}" if result.tree else ""),
        }
        words = _vote(candidate)
        if chosen:
            words.stylize("bold")
        table.add_row(mark if chosen else "", *(cells[name] for name in headings), words)
    rest = [Text(f"and {more} more; --json has them all", "dim")] if more > 0 else []
    return "Candidates", f"{len(candidates)} paths, selected by {result.selector}", Group(table, *rest)


def _vote(candidate: Candidate) -> Text:
    if candidate.answer is None:
        return Text("not answered", "dim")
    words = candidate.vote or " ".join(candidate.answer.split())
    return Text(plain(words), no_wrap=True, overflow="ellipsis") if words else Text("empty", "dim")


def _account(result: SearchResult) -> tuple[str, str, RenderableType]:
    usage = result.usage
    cap = f" of {result.budget:,} allowed" if result.budget else ""
    rows = [("sampled", f"{usage.sampled_tokens:,}{cap}, {usage.answer_tokens:,} of them for answers")]
    cached = (
        f", {usage.cached_tokens / usage.prompt_tokens:.0%} of it from the prefix cache" if usage.prompt_tokens else ""
    )
    rows.append(("prompt", f"{usage.prompt_tokens:,}{cached}"))
    if usage.scored_tokens:
        rows.append(("scored", f"{usage.scored_tokens:,}, in passes of the scorer's own"))
    speed = f", {usage.sampled_tokens / usage.seconds:,.0f} tokens/s" if usage.seconds else ""
    rows.append(("requests", f"{usage.requests:,} in {usage.seconds:.1f} s{speed}"))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for label, text in rows:
        table.add_row(label, text)
    return "Tokens", f"{result.model}, {result.strategy}, seed {result.seed}", table
