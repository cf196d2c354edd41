"""The `compare` command: a data set, a model and strategies in; a table, plots and a report out.

It reads options and writes files; what is measured and how is `evaluation`'s matter.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tts_search.cli import arguments as options
from tts_search.cli import terminal
from tts_search.cli.outcomes import outcomes
from tts_search.cli.outputs import check_folder
from tts_search.cli.searcher import check_engine, check_search, import_object, open_searcher, read_strategy
from tts_search.cli.shared import Drawing, Engine, Scoring
from tts_search.cli.solve_file import ShardOf
from tts_search.cli.wording import in_options
from tts_search.core.protocols import Strategy
from tts_search.errors import InvalidInputError
from tts_search.models import EMBEDDED
from tts_search.whole_files import replacing, write_atomically
from tts_search.written import split_calls

if TYPE_CHECKING:
    from tts_search.evaluation.comparison import Comparison
    from tts_search.evaluation.runs import OnRun, RunProgress

_DATA, _WHAT = "Data", "What is compared"
LOG = "runs.jsonl"
REPORTS = (
    "report.html",
    "table.md",
    "table.csv",
    "choices.md",
    "choices.csv",
    "warnings.json",
    "tokens.png",
    "seconds.png",
)

HELP_BELOW = """[bold]Examples[/bold]

[cyan]tts-search compare --dataset puzzles --limit 100 --strategies single,low,high,mcts --budgets 2000[/cyan]
  On the embedded model: nothing to download.

[cyan]tts-search compare --dataset gsm8k --model ./my-model --strategies "single,BestOfN(n=16),MCTS(children=4)" \\
  --budgets 4000,16000 --out results[/cyan]
  A model of yours. Interrupt it and run it again: it goes on where it was.

[cyan]tts-search compare --dataset gsm8k=./gsm8k-test.jsonl ...[/cyan]
  The same data set from a local copy, on a machine without a network.
"""


def _day(text: str | None) -> str | None:
    try:
        return None if text is None else datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a day like 2024-08-01") from None


DatasetName = Annotated[
    str,
    typer.Option(
        "--dataset", "-d", metavar="NAME", rich_help_panel=_DATA,
        help="[cyan]aime24[/cyan], [cyan]aime25[/cyan], [cyan]math500[/cyan], [cyan]gsm8k[/cyan], [cyan]amc[/cyan], "
        "[cyan]ceval[/cyan], [cyan]livecodebench[/cyan]; NAME=PATH for a local copy; a .jsonl or .parquet file of "
        "yours; or [cyan]puzzles[/cyan], for the embedded model.",
    ),
]  # fmt: skip
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", metavar="N", parser=options.whole(1), rich_help_panel=_DATA, help="Only the first N questions."
    ),
]
PromptColumn = Annotated[
    str | None, typer.Option("--prompt-column", metavar="NAME", rich_help_panel=_DATA, help="Of a file of yours.")
]
AnswerColumn = Annotated[
    str | None, typer.Option("--answer-column", metavar="NAME", rich_help_panel=_DATA, help="Of a file of yours.")
]
GraderName = Annotated[
    str | None,
    typer.Option(
        "--grader", metavar="NAME", rich_help_panel=_DATA, show_default="the data set's own, math for a file",
        help="[cyan]math[/cyan], [cyan]math-boxed[/cyan], [cyan]exact[/cyan], [cyan]choice[/cyan], "
        "[cyan]choice-released[/cyan], [cyan]code[/cyan], or [cyan]package.module:function[/cyan] of yours.",
    ),
]  # fmt: skip
Release = Annotated[
    str, typer.Option("--release", metavar="NAME", rich_help_panel=_DATA, help="Of LiveCodeBench: v1 to v6.")
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="DAY", rich_help_panel=_DATA, callback=_day, help="LiveCodeBench's first day."),
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="DAY", rich_help_panel=_DATA, callback=_day, help="LiveCodeBench's last day."),
]
Strategies = Annotated[
    str,
    typer.Option(
        "--strategies", metavar="LIST", rich_help_panel=_WHAT,
        help="With commas between: names, efforts, objects like [cyan]BestOfN(n=16)[/cyan], or "
        "[cyan]package.module:Object[/cyan]. The first is the baseline.",
    ),
]  # fmt: skip
Budgets = Annotated[
    str,
    typer.Option(
        "--budgets", metavar="LIST", rich_help_panel=_WHAT,
        help="Caps on sampled tokens a question, with commas between; [cyan]none[/cyan] for no cap.",
    ),
]  # fmt: skip
Repeats = Annotated[
    int,
    typer.Option(
        "--repeats", metavar="N", parser=options.whole(1), rich_help_panel=_WHAT,
        help="Searches of each question; accuracy is their mean. The paper repeats 64 times.",
    ),
]  # fmt: skip
Concurrency = Annotated[
    int,
    typer.Option(
        "--concurrency", metavar="N", parser=options.whole(1), rich_help_panel="Search",
        help="Questions in flight at once; 1 measures the seconds that a single user waits.",
    ),
]  # fmt: skip
Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", metavar="FOLDER", rich_help_panel="Output",
        help="Where the log, the tables, the plots and the report go. What its log holds is not searched again.",
    ),
]  # fmt: skip


def compare(
    dataset: DatasetName,
    strategies: Strategies = "single,low,medium",
    budgets: Budgets = "none",
    repeats: Repeats = 1,
    selector: options.SelectorName = None,
    extract: options.ExtractName = "auto",
    limit: Limit = None,
    grader: GraderName = None,
    prompt_column: PromptColumn = None,
    answer_column: AnswerColumn = None,
    release: Release = "v6",
    since: Since = None,
    until: Until = None,
    shard: ShardOf = None,
    *,
    engine: Engine,
    scoring: Scoring,
    concurrency: Concurrency = 64,
    drawing: Drawing,
    out: Out = Path("comparison"),
    quiet: options.QuietTable = False,
    debug: options.Debug = False,
) -> None:
    """Compare strategies on the same questions: accuracy with intervals, tokens, seconds, paired differences.

    Every finished sample is written to a log at once. Interrupt the command and run it again: it goes on.
    """
    with outcomes(debug):
        from tts_search.evaluation.comparison import compare as measure
        from tts_search.evaluation.datasets import load_dataset
        from tts_search.grading.named import resolve_grader

        chosen, caps = parse_strategies(strategies), parse_budgets(budgets)
        check_engine(engine)
        for strategy in chosen.values():
            check_search(strategy, scoring.scorer, selector, ends=None not in caps)
        judge: Any = import_object(grader, "--grader") if grader and ":" in grader else grader
        if isinstance(judge, str):
            resolve_grader(judge)
        check_folder(out, LOG, REPORTS)
        screen = None if quiet else terminal.console_for(sys.stderr)
        with terminal.own_streams(debug):
            if screen is not None:
                screen.file = sys.stderr
            terminal.silence_logs(debug)
            terminal.silence_bars(debug)
            data = load_dataset(
                dataset,
                limit=limit,
                grader=judge if isinstance(judge, str) else None,
                prompt_column=prompt_column,
                answer_column=answer_column,
                release=release,
                since=since,
                until=until,
            )
            if shard is not None:
                data = data.part(shard)
            with terminal.loading(screen, engine.generator if ":" in engine.generator else engine.model or EMBEDDED):
                searcher = open_searcher(engine, drawing, scoring, extract=extract, concurrency=concurrency)
            with searcher, evaluating(screen) as on_progress:
                comparison = measure(
                    data,
                    searcher,
                    strategies=list(chosen.values()),
                    budgets=caps,
                    selector=selector,
                    repeats=repeats,
                    seed=drawing.seed,
                    grader=judge,
                    log=out / LOG,
                    on_progress=on_progress,
                    labels=list(chosen),
                )
        written = write(comparison, out, command=terminal.command_line())
        show(comparison, written, quiet=quiet)


def parse_strategies(text: str) -> dict[str, Strategy]:
    """Strategies by what they were called, in order."""
    names = split_calls(text)
    if not names:
        raise InvalidInputError("--strategies is empty: give names like single,mcts")
    if len(set(names)) < len(names):
        raise InvalidInputError(f"--strategies names one of them twice: {text}")
    return {name: read_strategy(name, "--strategies") for name in names}


def parse_budgets(text: str) -> list[int | None]:
    """Caps in tokens, None for none."""
    found: list[int | None] = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        if word != "none" and not (word.isdecimal() and int(word) > 0):
            raise InvalidInputError(f"--budgets: {word!r} is neither a whole number above 0 nor none")
        found.append(None if word == "none" else int(word))
    return found


@contextmanager
def evaluating(screen: Any) -> Iterator[OnRun | None]:
    """A bar with the time left; where nothing can be animated, a line now and then."""
    if screen is None:
        yield None
        return
    if not terminal.animates(screen):
        yield _Lines(screen)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TextColumn("{task.fields[left]}"), console=screen) as bars:
        task = bars.add_task("searching", total=None, left="")

        def on_progress(progress: RunProgress) -> None:
            bars.update(
                task, description=progress.label, completed=progress.done, total=progress.total, left=_left(progress)
            )

        yield on_progress


class _Lines:
    """Tells each tenth of the way as a line of text, and begins again when another evaluation does."""

    def __init__(self, screen: Any) -> None:
        self._screen, self._told, self._done = screen, -1, 0

    def __call__(self, progress: RunProgress) -> None:
        tenth = 10 * progress.done // max(1, progress.total)  # questions may be added to a file as it is read
        again, self._done = progress.done < self._done, progress.done
        if tenth > self._told or again:
            self._told = tenth
            said = f"{progress.done} of {progress.total} {progress.unit}, {progress.label}"
            self._screen.print(f"{said} {_left(progress)}")


def _left(progress: RunProgress) -> str:
    seconds = progress.seconds_left
    if seconds is None:
        return f"{progress.resumed} from the log" if progress.resumed else ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02} left" if minutes >= 60 else f"{minutes}:{rest:02} left"


def write(comparison: Comparison, out: Path, *, command: str) -> Sequence[Path]:
    """Tables, plots and the report, beside the log."""
    from tts_search.evaluation import report, tables

    texts = (
        report.comparison_page(comparison, command=command),
        tables.markdown(comparison),
        tables.to_csv(comparison),
        tables.choices_markdown(comparison),
        tables.choices_to_csv(comparison),
        tables.warnings_json(comparison),
    )
    figures = report.comparison_figures(comparison)
    for name, text in zip(REPORTS, texts, strict=False):
        write_atomically(out / name, text)
    for name, figure in zip(REPORTS[len(texts) :], figures, strict=True):
        with replacing(out / name) as file:
            figure.savefig(file, format="png", dpi=150)
    return [out / name for name in (*REPORTS, LOG)]


def show(comparison: Comparison, written: Sequence[Path], *, quiet: bool) -> None:
    """The table on standard output, and where the files are; warnings on standard error."""
    from tts_search.cli.show import drawn
    from tts_search.evaluation import tables

    console = terminal.console_for(sys.stdout)
    sys.stdout.write(tables.markdown(comparison) if quiet else drawn(tables.rich_table(comparison), console))
    if not quiet:
        typer.echo(f"\n{written[0]}")
    for text, searches, where in tables.warning_rows(comparison):
        terminal.say(f"{in_options(text)} ({searches} searches: {where})", "warning: ")
