"""The table of options in docs/cli.md, out of the commands themselves: `python -m tools.option_table` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from tts_search.cli import app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
BEGIN, END = "<!-- options -->\n", "<!-- end of options -->\n"


def table() -> str:
    """One row an option, in the order of the commands; what it says is from the first command that has it."""
    found: dict[str, tuple[list[str], str]] = {}
    for name, flags, words in _options():
        found.setdefault(flags, ([], words))[0].append(name)
    rows = [f"| `{flags}` | {', '.join(commands)} | {words} |" for flags, (commands, words) in found.items()]
    return "\n".join(["| option | of | |", "|---|---|---|", *rows]) + "\n"


def _options() -> Iterator[tuple[str, str, str]]:
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        for parameter in command.params:
            if parameter.opts[0].startswith("-") and parameter.name != "help":
                flags = ", ".join([*parameter.opts, *parameter.secondary_opts])
                words = re.sub(r"\\?\[/?(?:cyan|bold)\]", "", parameter.help or "").replace("\\[", "[")
                yield name, flags, words.replace("|", "\\|")


def main() -> None:
    """Put the table into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + table() + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
