"""The `sample` command: a model and questions with reference answers in, graded trajectories out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from tts_search.cli import arguments as options
from tts_search.cli import terminal
from tts_search.cli.outcomes import outcomes
from tts_search.cli.outputs import check_apart
from tts_search.cli.searcher import check_engine, import_object, open_searcher
from tts_search.cli.shared import Drawing, Engine
from tts_search.cli.solve_file import ShardOf

Questions = Annotated[
    Path,
    typer.Argument(
        metavar="QUESTIONS",
        callback=options.there,
        help="JSON lines with [cyan]question[/cyan] and [cyan]answer[/cyan].",
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", metavar="FILE", help="Where to write; what an earlier run wrote is kept and not sampled again."
    ),
]
GraderName = Annotated[
    str,
    typer.Option(
        "--grader", metavar="NAME",
        help="What tells right answers from wrong ones: [cyan]math[/cyan], [cyan]exact[/cyan], [cyan]choice[/cyan], "
        "[cyan]puzzle[/cyan], or [cyan]package.module:function[/cyan] of yours.",
    ),
]  # fmt: skip
Samples = Annotated[
    int, typer.Option("--n", "-n", metavar="N", parser=options.whole(1), help="Trajectories for each question.")
]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", parser=options.whole(1), help="Only the first N questions.")
]


def sample(
    questions: Questions,
    out: Out,
    engine: Engine,
    grader: GraderName = "math",
    n: Samples = 8,
    limit: Limit = None,
    shard: ShardOf = None,
    *,
    drawing: Drawing,
    debug: options.Debug = False,
) -> None:
    """Sample graded trajectories, for [cyan]tts-search fit-head[/cyan] to learn from.

    Interrupt it and run it again: it goes on where it was, in the middle of a question too. A file that
    something else wrote is refused.
    """
    with outcomes(debug):
        check_engine(engine)
        check_apart(out, questions)
        with quietly(debug) as say:
            from tts_search.training.collection import collect
            from tts_search.training.problems import read_problems

            problems = read_problems(questions)[:limit]
            judge = grader_of(grader)
            with open_searcher(engine, drawing) as searcher:
                collect(searcher, problems, out, grader=judge, n=n, seed=drawing.seed, shard=shard, report=say)
        typer.echo(f"{out}")


def grader_of(name: str, *, strict: bool = False) -> Any:
    """A grader by name, or a function of the user's. A strict one of mathematics accepts nothing but a boxed answer."""
    from tts_search.grading.named import resolve_grader

    if ":" in name:
        return import_object(name, "--grader")
    return resolve_grader("math-boxed" if strict and name == "math" else name)


@contextmanager
def quietly(debug: bool) -> Iterator[Callable[[str], None]]:
    """Quiet libraries, and a function that says one line of progress on standard error."""
    terminal.silence_logs(debug)
    terminal.silence_bars(debug)
    if not debug and "transformers" in sys.modules:
        from transformers.utils import logging

        logging.disable_progress_bar()
    yield terminal.say
