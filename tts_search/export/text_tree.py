"""A search as a tree in the terminal. Knows how to write lines; whether there is colour is the console's to say."""

from __future__ import annotations

import io
from collections.abc import Mapping

from rich.console import Console
from rich.text import Text
from rich.tree import Tree as RichTree

from tts_search.core.tree import Ending, Node, Tree
from tts_search.export.colors import DARK, color, ink
from tts_search.export.rows import Row, Source, result_of, rows, tree_of

ENDINGS: Mapping[Ending, str] = {
    Ending.ROOT: "",
    Ending.STEP: "",
    Ending.LENGTH: " ✂",
    Ending.THOUGHT: " ◆",
    Ending.END: " ■",
}
LEGEND = "value  #node  text · tokens   ★ chosen  ✂ cut off  ◆ thought complete  ■ response complete"


def rich_tree(
    source: Source, *, visits: Mapping[int, int] | None = None, max_nodes: int = 200, width: int = 72
) -> RichTree:
    """The tree for `rich.print`: value, text and tokens of each node, the chosen path starred.

    A chain of only children stands in one column, so that depth costs no width where nothing branches. Of more than
    `max_nodes` nodes the chosen path and the upper levels are shown, and the others counted. `width` cuts texts, in
    characters.

    Raises:
        InvalidInputError: the result has no tree.
    """
    tree, every = tree_of(source), rows(source, visits)
    shown = _shown(tree, every, max_nodes)
    counted = visits is not None or bool(tree.visits)
    root = RichTree(_headline(source, width), guide_style="dim")
    stack: list[tuple[RichTree, Node]] = [(root, tree.root)]
    while stack:
        branch, node = stack.pop()
        kept = [child for child in tree.children(node) if child.index in shown]
        hidden = [child for child in tree.children(node) if child.index not in shown]
        for child in kept:
            chain = _chain(tree, child, shown)
            label = Text("\n").join(_line(every[link.index], counted, width) for link in chain)
            stack.append((branch.add(label), chain[-1]))
        if hidden:
            count = sum(_size(tree, child) for child in hidden)
            branch.add(Text(f"… {count} more node{'s' if count > 1 else ''}", style="dim"))
    return root


def to_text(source: Source, *, visits: Mapping[int, int] | None = None, max_nodes: int = 2000, width: int = 160) -> str:
    """The tree as plain text, one node a line, with a legend."""
    buffer = io.StringIO()
    # Deep trees need room for their guides; lines are never folded, because texts were cut already.
    console = Console(file=buffer, width=100_000, color_system=None, legacy_windows=False)
    console.print(rich_tree(source, visits=visits, max_nodes=max_nodes, width=width))
    lines = [line.rstrip() for line in buffer.getvalue().splitlines()]
    return "\n".join([*lines, "", LEGEND, ""])


def _shown(tree: Tree, every: list[Row], max_nodes: int) -> set[int]:
    shown = {row.node.index for row in every if row.chosen} | {0}
    for node in sorted(tree, key=lambda node: (node.depth, node.index)):  # parents first: what is shown hangs together
        if len(shown) >= max_nodes:
            break
        shown.add(node.index)
    return shown


def _chain(tree: Tree, node: Node, shown: set[int]) -> list[Node]:
    chain = [node]
    while len(below := tree.children(chain[-1])) == 1 and below[0].index in shown:
        chain.append(below[0])
    return chain


def _size(tree: Tree, node: Node) -> int:
    stack, count = [node], 0
    while stack:
        count += 1
        stack.extend(tree.children(stack.pop()))
    return count


def _headline(source: Source, width: int) -> Text:
    question = tree_of(source).question
    text = question if isinstance(question, str) else question[-1].get("content", "")
    line = Text(_one_line(text, width) or "(no question)", style="bold")
    result = result_of(source)
    if result is not None:
        strategy = _one_line(result.strategy, 2 * width)
        line.append(f"\n{strategy} · {result.usage.sampled_tokens:,} tokens · {result.stop_reason}", style="dim")
        line.append(f"\nanswer: {_one_line(result.answer, width)}" if result.answer else "\nno answer", style="default")
    return line


def _line(row: Row, with_visits: bool, width: int) -> Text:
    line = Text()
    if row.value is None:
        line.append("  –  ", style="dim")
    else:
        background = color(row.value, DARK)
        line.append(f" {row.value:.2f}"[:5].ljust(5), style=f"bold {ink(background)} on {background}")
    line.append(" ★" if row.chosen else "  ", style="bold")
    line.append(f" #{row.node.index} ", style="dim")
    line.append(_one_line(row.text, width) or "(no text)", style="bold" if row.chosen else "")
    line.append(f" · {row.node.token_count}", style="dim")
    if with_visits:
        line.append(f" · {row.visits} visits", style="dim")
    line.append(ENDINGS[row.node.ending], style="dim")
    return line


def _one_line(text: str, width: int) -> str:
    """The text in one line; what a terminal would obey instead of showing it (escapes) is taken out."""
    folded = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return folded if len(folded) <= width else folded[: width - 1] + "…"
