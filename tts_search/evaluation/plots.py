"""Curves with their intervals: accuracy against tokens, against seconds, against k. Knows numbers and labels only."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tts_search.errors import MissingDependencyError
from tts_search.metrics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#1c2330", "#9aa3af", "#e4e7eb"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7b5ea7", "#555555")  # Okabe and Ito
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points of one name: `x` in the axis's unit, `y` with its interval; not `joined`, they have no line between."""

    label: str
    x: Sequence[float]
    y: Sequence[Interval]
    joined: bool = True


def curves(
    lines: Sequence[Curve],
    *,
    xlabel: str,
    ylabel: str = "accuracy",
    log_x: bool = True,
    title: str = "",
    ticks: Sequence[float] | None = None,
    marks: Mapping[str, float] = MappingProxyType({}),
) -> Figure:
    """Lines with error bars, on a logarithmic x axis by default, the legend beside them. `marks` are named places on
    the x axis, `ticks` all that are labelled there.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure, axes = figure_and_axes(xlabel=xlabel, ylabel=ylabel, title=title)
    for i, line in enumerate(lines):
        points = sorted(zip(line.x, line.y, strict=True))
        xs, ys = [x for x, _ in points], [y.mean for _, y in points]
        below, above = [y.mean - y.low for _, y in points], [y.high - y.mean for _, y in points]
        axes.errorbar(
            xs, ys, yerr=[[max(0.0, e) for e in below], [max(0.0, e) for e in above]],
            color=COLORS[i % len(COLORS)], marker=MARKERS[i % len(MARKERS)], markersize=5.5, linewidth=1.6,
            linestyle="-" if line.joined else "none", elinewidth=1, capsize=2.5, label=line.label, zorder=3,
        )  # fmt: skip
    for (name, x), style in zip(marks.items(), ("--", ":", "-."), strict=False):
        axes.axvline(x, color=INK, linestyle=style, linewidth=1.2, label=name, zorder=2)
    if ticks is not None and not log_x:
        axes.set_xticks(list(ticks))
    if log_x:
        axes.set_xscale("log")
        _plain_log_ticks(axes, [x for line in lines for x in line.x], ticks)
    if len(lines) > 1 or lines[0].label:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9, labelcolor=INK)
    return figure


def figure_and_axes(*, xlabel: str, ylabel: str, title: str) -> tuple[Figure, Any]:
    """An empty figure in the house style."""
    try:
        from matplotlib.figure import Figure as MatplotlibFigure
    except ImportError as error:
        raise MissingDependencyError("plots need matplotlib: pip install 'tts-search[eval]'") from error
    # Not pyplot: it would keep the figure alive in a global list, and choose a window system.
    figure = MatplotlibFigure(figsize=(8.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(_text(xlabel), color=INK, fontsize=10)
    axes.set_ylabel(_text(ylabel), color=INK, fontsize=10)
    axes.set_title(_text(title), color=INK, fontsize=11, loc="left")
    axes.grid(color=GRID, linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)
    return figure, axes


def to_svg(figure: Figure) -> str:
    """The figure as SVG, letters drawn as shapes, so that it looks the same everywhere."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _plain_log_ticks(axes: Any, values: Sequence[float], ticks: Sequence[float] | None) -> None:
    """Ticks that people can read (`200`, `1k`), and few enough not to touch."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(values), max(values)
    if ticks is None:
        steps = [m * 10.0**e for e in range(-4, 12) for m in (1, 2, 5)]
        ticks = [t for t in steps if low / 1.6 <= t <= high * 1.6] or [low]
        while len(ticks) > 9:
            ticks = ticks[::2]
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.set_xlim(min(low, *ticks) / 1.15, max(high, *ticks) * 1.15)


def short(value: float) -> str:
    """`0.5`, `20`, `5k`, `1.2M`."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _text(text: str) -> str:
    return text.replace("$", r"\$")  # a pair of $ would be mathematics
