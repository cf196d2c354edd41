"""A search as a matplotlib figure: tokens from left to right, one lane a leaf, colour for value.

Every node is a bar as long as its tokens, so length, cost and branching show at a glance at thirty nodes and at three
hundred. Knows nothing of texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tts_search.core.tree import Ending
from tts_search.errors import MissingDependencyError
from tts_search.export.colors import LIGHT
from tts_search.export.rows import Row, Source, result_of, rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, UNSCORED = "#1c2330", "#9aa3af", "#c3c9d1"
NAMED_NODES = 60  # up to so many nodes are labelled
LEGEND = "outlined: chosen path    ● response complete    ○ thought complete    × cut off"


def plot(
    source: Source, *, visits: Mapping[int, int] | None = None, steps: bool = False, title: str | None = None
) -> Figure:
    """Draw the tree; `figure.savefig(path)` writes it, and a notebook shows it.

    Bars are nodes, coloured by their value, or with `steps` each step by its own score; grey is unscored. The dark
    outline is the path that was answered from, a filled circle at a bar's end a complete response, an open one a
    complete thought, a cross a path that was cut off. With `visits`, the most visited nodes have the thickest bars.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        InvalidInputError: the result has no tree.
    """
    figure_class, colormap_class, mappable_class, collection_class = import_matplotlib()
    every = rows(source, visits)
    lanes = max(row.lane for row in every) + 1
    # Not pyplot: it would keep the figure alive in a global list, and choose a window system.
    figure = figure_class(figsize=(11, min(14.0, max(3.2, 1.6 + 0.26 * lanes))), layout="constrained")
    axes = figure.add_subplot()
    colormap = colormap_class.from_list("value", list(LIGHT))
    points_per_lane = 72 * (figure.get_size_inches()[1] - 1.4) / lanes
    bar = min(11.0, max(1.0, 0.62 * points_per_lane))
    widths = _widths(every, bar, visits is not None)

    links, link_colors = [], []
    bars, bar_colors, bar_widths = [], [], []
    outline, outline_widths = [], []
    for row in every:
        parent = row.node.parent
        if parent is None:
            continue
        start = row.node.token_length - row.node.token_count
        joint = (start, every[parent].lane)
        links.append([joint, (start, row.lane)])
        link_colors.append(INK if row.chosen else FAINT)
        if row.chosen:
            outline += [[joint, (start, row.lane)], [(start, row.lane), (row.node.token_length, row.lane)]]
            outline_widths += [1.8, widths[row.node.index] + 3.2]
        for begin, end, score in _spans(row) if steps else [(start, row.node.token_length, row.value)]:
            bars.append([(begin, row.lane), (end, row.lane)])
            bar_colors.append(UNSCORED if score is None else colormap(score))
            bar_widths.append(widths[row.node.index])
    flat: dict[str, Any] = {"capstyle": "butt"}
    axes.add_collection(collection_class(links, colors=link_colors, linewidths=min(1.0, bar / 3), zorder=1))
    axes.add_collection(collection_class(outline, colors=INK, linewidths=outline_widths, zorder=2, **flat))
    axes.add_collection(collection_class(bars, colors=bar_colors, linewidths=bar_widths, zorder=3, **flat))
    parents = {row.node.parent for row in every}
    _endings(axes, every, bar, parents)
    if len(every) <= NAMED_NODES:
        _names(axes, every, parents)

    axes.set_ylim(lanes - 0.4, -0.6)
    longest = max(row.node.token_length for row in every) or 1
    axes.set_xlim(-0.01 * longest, 1.03 * longest)
    axes.set_yticks([])
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)
    axes.set_xlabel(f"tokens from the start of the response\n{LEGEND}", color=INK, fontsize=9)
    axes.set_title(_title(source) if title is None else title, color=INK, fontsize=11, loc="left")
    if any(row.value is not None for row in every):
        scale = mappable_class(cmap=colormap)
        scale.set_clim(0, 1)
        legend = figure.colorbar(scale, ax=axes, fraction=0.02, pad=0.01, aspect=30)
        legend.set_label("step score" if steps else "value", color=INK, fontsize=9)
        legend.ax.tick_params(colors=INK, labelsize=8)
        legend.outline.set_visible(False)
    return figure


def _spans(row: Row) -> list[tuple[int, int, float | None]]:
    """The node's pieces as (first token, last token, score), in tokens from the start of the response."""
    spans = []
    begin = row.node.token_length - row.node.token_count
    for piece in row.pieces:
        spans.append((begin, begin + piece.tokens, piece.score))
        begin += piece.tokens
    return spans


def _widths(every: Sequence[Row], bar: float, by_visits: bool) -> list[float]:
    if not by_visits:
        return [bar] * len(every)
    most = max((row.visits for row in every if row.node.parent is not None), default=0) or 1
    return [bar * (0.3 + 0.7 * min(1.0, row.visits / most) ** 0.5) for row in every]


def _endings(axes: Any, every: Sequence[Row], bar: float, parents: set[int | None]) -> None:
    size = max(2.0, min(7.0, bar * 0.8)) ** 2
    edge = min(1.0, bar / 4)
    for ending, style in (
        (Ending.END, {"marker": "o", "facecolors": INK, "edgecolors": INK}),
        (Ending.THOUGHT, {"marker": "o", "facecolors": "white", "edgecolors": INK}),
        (Ending.LENGTH, {"marker": "x", "color": INK}),
    ):
        # A cut that the search went on from is no end; a thought that was answered still is one.
        ends = (row for row in every if row.node.ending is ending)
        places = [
            (row.node.token_length, row.lane)
            for row in ends
            if ending is not Ending.LENGTH or row.node.index not in parents
        ]
        if places:
            axes.scatter(*zip(*places, strict=True), s=size, linewidths=edge, zorder=4, **style)


def _names(axes: Any, every: Sequence[Row], parents: set[int | None]) -> None:
    longest = max(row.node.token_length for row in every) or 1
    for row in every[1:]:
        value = "" if row.value is None else f" {row.value:.2f}"
        name, start = f"{row.node.index}{value}", row.node.token_length - row.node.token_count
        fits = (row.node.token_length - start) / longest > 0.0075 * len(name)  # of a figure eleven inches wide
        if not fits and row.node.index in parents:
            continue  # no room on the bar, and what is beside it is its child
        axes.annotate(
            name,
            ((start + row.node.token_length) / 2 if fits else row.node.token_length, row.lane),
            (0 if fits else 7, 0),
            textcoords="offset points",
            fontsize=6.5,
            color=INK,
            ha="center" if fits else "left",
            va="center",
            zorder=5,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
        )


def _title(source: Source) -> str:
    result = result_of(source)
    if result is None:
        return ""
    strategy = result.strategy if len(result.strategy) <= 80 else result.strategy[:79] + "…"
    return f"{strategy} · {result.usage.sampled_tokens:,} tokens".replace(
        "$", r"\$"
    )  # a pair of $ would be mathematics


def import_matplotlib() -> tuple[Any, Any, Any, Any]:
    """What a plot is made of.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.cm import ScalarMappable
        from matplotlib.collections import LineCollection
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("plots need matplotlib: pip install 'tts-search[plot]'") from error
    return Figure, LinearSegmentedColormap, ScalarMappable, LineCollection
