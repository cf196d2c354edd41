"""A comparison as a table: for the terminal, as Markdown, as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from rich.table import Table

from tts_search.evaluation.comparison import Cell, Comparison
from tts_search.evaluation.runs import name_of
from tts_search.metrics import Interval

HEADER = ("strategy", "budget", "accuracy", "difference", "tokens", "seconds", "cached", "failed", "no answer")
CHOICES_HEADER = ("strategy", "budget", "paths", "choice", "accuracy", "gain")
WARNINGS_HEADER = ("warning", "searches", "where")
_WHICH = ("dataset", "model", "strategy", "strategy_object", "budget", "questions", "repeats", "seed")
_NOTHING = ("", "", "")


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """One row a cell, under `HEADER`, as people read it: percentages with their 95 % intervals."""
    return [_row(comparison, cell) for cell in comparison.cells]


def _row(comparison: Comparison, cell: Cell) -> tuple[str, ...]:
    difference, cached = comparison.difference(cell), cell.cached_share
    return (
        cell.setting.label,
        _budget(cell),
        percent(cell.accuracy),
        "baseline" if difference is None else percent(difference, sign=True),
        f"{cell.tokens.mean:,.0f}",
        f"{cell.seconds.mean:.2f}",
        "-" if cached is None else f"{100 * cached:.0f} %",
        str(cell.errors),
        str(cell.unanswered),
    )


def choice_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """One row a cell and a way to choose among its paths (`Cell.choices`), under `CHOICES_HEADER`."""
    return [
        (
            cell.setting.label,
            _budget(cell),
            f"{choice.paths:.1f}",
            choice.name,
            percent(choice.accuracy),
            "baseline" if choice.gain is None else percent(choice.gain, sign=True),
        )
        for cell in comparison.cells
        for choice in cell.choices
    ]


def warning_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """What results were warned of, under `WARNINGS_HEADER`."""
    total = sum(len(repeat) for cell in comparison.cells for repeat in cell.records)
    return [
        (
            warned.text,
            f"{warned.searches:,} of {total:,}",
            "; ".join(f"{name}: {n:,}" for name, n in warned.where.items()),
        )
        for warned in comparison.warnings
    ]


def warnings_json(comparison: Comparison) -> str:
    """What results were warned of, as JSON."""
    found = [{"warning": w.text, "searches": w.searches, "where": dict(w.where)} for w in comparison.warnings]
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"


def _budget(cell: Cell) -> str:
    return "none" if cell.setting.budget is None else f"{cell.setting.budget:,}"


def percent(interval: Interval, *, sign: bool = False) -> str:
    """`52.3 [48.1, 56.2]`, in percent."""
    mean, low, high = (100 * value for value in interval)
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" if sign else f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def rich_table(comparison: Comparison) -> Table:
    """For the terminal."""
    table = Table(title=caption(comparison), title_justify="left", title_style="bold")
    for name in HEADER:
        first = name == "strategy"  # of a narrow terminal it takes its share, or nobody knew which row is whose
        table.add_column(name, justify="left" if first else "right", no_wrap=not first, min_width=12 if first else None)
    for row in rows(comparison):
        table.add_row(*row)
    return table


def caption(comparison: Comparison) -> str:
    """What the table is about, in one line."""
    questions = len(comparison.dataset)
    times = "" if comparison.repeats == 1 else f", {comparison.repeats} repeats"
    return f"{comparison.dataset.name}, {questions} questions{times}: {comparison.settings['model']}"


def markdown(comparison: Comparison) -> str:
    """As Markdown."""
    return _markdown(HEADER, rows(comparison))


def choices_markdown(comparison: Comparison) -> str:
    """What other choices among the same paths would have made, as Markdown."""
    return _markdown(CHOICES_HEADER, choice_rows(comparison))


def _markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [header, ("---", *("---:" for _ in header[1:])), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines) + "\n"


def to_csv(comparison: Comparison) -> str:
    """As CSV: every number in a column of its own, accuracies from 0 to 1, nothing rounded."""
    header = (
        *_WHICH,
        *("accuracy", "accuracy_low", "accuracy_high", "difference", "difference_low", "difference_high"),
        *("tokens", "seconds", "cached_share", "failed", "unanswered"),
    )
    return _csv(header, [_numbers(comparison, cell) for cell in comparison.cells])


def choices_to_csv(comparison: Comparison) -> str:
    """What other choices among the same paths would have made, as CSV."""
    header = (
        *_WHICH,
        *("paths", "choice", "accuracy", "accuracy_low", "accuracy_high", "gain", "gain_low", "gain_high"),
    )
    body = [
        [*_which(comparison, cell), choice.paths, choice.name, *choice.accuracy, *(choice.gain or _NOTHING)]
        for cell in comparison.cells
        for choice in cell.choices
    ]
    return _csv(header, body)


def _which(comparison: Comparison, cell: Cell) -> list[object]:
    setting = cell.setting
    what = (comparison.dataset.name, comparison.settings["model"], setting.label, name_of(setting.strategy))
    budget = "" if setting.budget is None else setting.budget
    return [*what, budget, len(comparison.dataset), comparison.repeats, comparison.seed]


def _numbers(comparison: Comparison, cell: Cell) -> list[object]:
    difference, cached = comparison.difference(cell), cell.cached_share
    cost = (cell.tokens.mean, cell.seconds.mean, "" if cached is None else cached)
    accuracy = (*cell.accuracy, *(difference or _NOTHING))
    return [*_which(comparison, cell), *accuracy, *cost, cell.errors, cell.unanswered]


def _csv(header: Sequence[str], body: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *body])
    return out.getvalue()
