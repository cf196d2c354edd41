"""The `reproduce` command: the paper's tables and figures in kind, on the embedded model or one of yours."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tts_search.cli import arguments as options
from tts_search.cli import terminal
from tts_search.cli.compare import LOG, DatasetName, evaluating, parse_budgets
from tts_search.cli.outcomes import outcomes
from tts_search.cli.outputs import check_folder
from tts_search.cli.searcher import check_engine, open_searcher
from tts_search.cli.shared import Drawing, Engine, Scoring
from tts_search.errors import InvalidInputError
from tts_search.models import EMBEDDED
from tts_search.whole_files import write_atomically

if TYPE_CHECKING:
    from tts_search.paper.study import Item

REPORTS = ("report.html", "report.md")

HELP_BELOW = """[bold]Examples[/bold]

[cyan]tts-search reproduce --questions 200[/cyan]
  All tables and figures on the embedded model, in less than 40 minutes on two cores.

[cyan]tts-search reproduce --no-heads --questions 50 --out quick[/cyan]
  What searching alone can show, in a few minutes.

[cyan]tts-search reproduce --dataset gsm8k --model ./my-model --budgets 4000,16000 --out mine[/cyan]
  The same measurements on a model of yours.
"""


def _samples(text: str) -> int:
    samples = options.whole(1)(text)
    if not 8 <= samples <= 1024 or samples & (samples - 1):
        raise typer.BadParameter(f"{samples} is not a power of two from 8 to 1024")
    return samples


Questions = Annotated[
    int, typer.Option("--questions", metavar="N", parser=options.whole(1), help="Questions of the data set.")
]
Samples = Annotated[
    int,
    typer.Option("--samples", metavar="N", parser=_samples, help="Samples a question: a power of two, 8 to 1024."),
]
Budgets = Annotated[str, typer.Option("--budgets", metavar="LIST", help="Of the tree search, in tokens a question.")]
Parameters = Annotated[
    int | None,
    typer.Option(
        "--parameters",
        metavar="N",
        parser=options.whole(1),
        help="The model's size, for the scaling law.",
        show_default="counted",
    ),
]
Heads = Annotated[
    bool,
    typer.Option(
        "--heads/--no-heads",
        help="Train too, for puzzles: reward models (Table 2) and policy with head (Table 3, Figures 3, 4 and 7). Some "
        "ten minutes on one core, once; needs tts-search\\[train].",
    ),
]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="FOLDER", help="Where the log and the report go; what is there is not redone."),
]


def reproduce(
    questions: Questions = 200,
    samples: Samples = 32,
    budgets: Budgets = "150,300,600,1200",
    dataset: DatasetName = "puzzles",
    *,
    engine: Engine,
    scoring: Scoring,
    parameters: Parameters = None,
    drawing: Drawing,
    heads: Heads = True,
    out: Out = Path("reproduction"),
    quiet: options.QuietTable = False,
    debug: options.Debug = False,
) -> None:
    """Measure what the paper measured, and say of each table and figure whether the same is seen.

    With the embedded model nothing is downloaded. Interrupt it and run it again: it goes on.
    """
    with outcomes(debug):
        from tts_search.evaluation.datasets import PUZZLES, load_dataset
        from tts_search.paper import items as paper
        from tts_search.paper import study as frame
        from tts_search.store import RunLog

        caps = [cap for cap in parse_budgets(budgets) if cap is not None]
        if not caps:
            raise InvalidInputError("--budgets needs at least one number of tokens")
        check_engine(engine)
        check_folder(out, LOG, REPORTS)
        items = [item for item in paper.ITEMS if dataset == PUZZLES or item is not paper.figure_6]
        trains = heads and dataset == PUZZLES and engine.generator == "auto"
        screen = None if quiet else terminal.console_for(sys.stderr)
        with terminal.own_streams(debug):
            if screen is not None:
                screen.file = sys.stderr
            terminal.silence_logs(debug)
            terminal.silence_bars(debug)
            if trains:
                items = training_items()
            data = load_dataset(dataset, limit=questions)
            size = parameters or count_parameters(engine.model or EMBEDDED)
            with terminal.loading(screen, engine.model or EMBEDDED):
                searcher = open_searcher(engine, drawing, scoring)
            with searcher, evaluating(screen) as on_progress, RunLog(out / LOG) as log:
                study = frame.Study(
                    searcher=searcher,
                    dataset=data,
                    log=log,
                    parameters=size,
                    samples=samples,
                    budgets=caps,
                    seed=drawing.seed,
                    keep_tokens=trains,
                    on_progress=on_progress,
                )
                findings = frame.reproduce(study, items)
                page = frame.findings_page(study, findings, command=terminal.command_line())
        text = frame.findings_markdown(findings)
        for name, content in zip(REPORTS, (page, text), strict=True):
            write_atomically(out / name, content)
        if quiet:
            sys.stdout.write(text)
            return
        for finding in findings:
            typer.echo(f"{finding.name}: {'' if finding.same else 'not '}the same in kind. {finding.sentence}")
        typer.echo(f"\n{out / REPORTS[0]}")


def training_items() -> Sequence[Item]:
    """All items, with those that train.

    Raises:
        MissingDependencyError: what trains them is not installed.
    """
    from tts_search.paper.joint import check_installed

    check_installed()
    from tts_search.paper.training_items import ITEMS

    return ITEMS


def count_parameters(model: str) -> int:
    """From the shapes in a model's safetensors files, head left out.

    Raises:
        InvalidInputError: the model is no folder with such files here; `--parameters` says its size.
    """
    from safetensors import safe_open

    from tts_search.models import model_folder

    total = 0
    for file in model_folder(model).glob("*.safetensors"):
        with safe_open(file, framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 - no mapping, though it looks like one
                size = 1
                for length in weights.get_slice(name).get_shape():
                    size *= length
                total += size
    if not total:
        raise InvalidInputError(f"{model} holds no safetensors files to count: give its size with --parameters")
    return total
