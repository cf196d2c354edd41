"""The command line: `tts-search solve "..."`, and room for more commands.

Importing it imports neither torch nor vllm: `--help` is for people who wait.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tts_search import __version__
from tts_search.cli.compare import HELP_BELOW as COMPARE_HELP_BELOW
from tts_search.cli.compare import compare
from tts_search.cli.merge import HELP_BELOW as MERGE_HELP
from tts_search.cli.merge import merge
from tts_search.cli.outcomes import INTERRUPTED, INVALID
from tts_search.cli.reproduce import HELP_BELOW as REPRODUCE_HELP_BELOW
from tts_search.cli.reproduce import reproduce
from tts_search.cli.serve import HELP_BELOW as SERVE_HELP_BELOW
from tts_search.cli.serve import serve
from tts_search.cli.shared import grouped
from tts_search.cli.solve import HELP_BELOW, solve
from tts_search.cli.terminal import say_error
from tts_search.cli.train import HELP_BELOW as TRAIN_HELP
from tts_search.cli.train import train
from tts_search.cli.train_clean import clean
from tts_search.cli.train_head import fit_head
from tts_search.cli.train_sample import sample
from tts_search.cli.wording import speak_of


class _Commands(TyperGroup):
    """Usage errors as one line, like every other error."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        try:
            code = super().main(*args, standalone_mode=False, **extra)
        except Exception as error:
            # Typer has its own copy of click from 0.20 or so on: the method tells a usage error, the class does not.
            describe: Callable[[], str] | None = getattr(error, "format_message", None)
            if describe is None or not standalone_mode:
                raise
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "tts-search"
            say_error(f"{describe().rstrip('.')} (see {command} --help)")
            code = getattr(error, "exit_code", INVALID)
        if standalone_mode:
            sys.exit(code)
        return code


app = typer.Typer(
    cls=_Commands,
    name="tts-search",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The entry point of the `tts-search` command."""
    try:
        app(prog_name="tts-search")
    except KeyboardInterrupt:  # between two commands' worth of code: while arguments are read
        sys.exit(INTERRUPTED)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tts-search {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _tts_search(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """A language model answers better when several of its thoughts are sampled, scored and chosen from.

    Start with: [bold]tts-search solve "Using the numbers 7, 5, 15 and 11, make 24."[/bold]
    """
    if context.invoked_subcommand is None:
        say_error('no command given: try tts-search solve "...", or tts-search --help')
        raise typer.Exit(INVALID)
    commands: Any = context.command
    speak_of(commands.commands[context.invoked_subcommand].params)


app.command(epilog=HELP_BELOW)(grouped(solve))
app.command(epilog=SERVE_HELP_BELOW)(grouped(serve))
app.command(epilog=COMPARE_HELP_BELOW)(grouped(compare))
app.command(epilog=REPRODUCE_HELP_BELOW)(grouped(reproduce))
app.command(epilog=MERGE_HELP)(merge)
app.command()(clean)
app.command()(grouped(sample))
app.command("fit-head")(fit_head)
app.command(epilog=TRAIN_HELP)(train)
