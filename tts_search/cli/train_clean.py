"""The `clean` command: a raw set of questions in, a training set out, and what went on the way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tts_search.cli import arguments as options
from tts_search.cli.outcomes import outcomes
from tts_search.cli.outputs import check_apart
from tts_search.cli.train_sample import GraderName, Questions, grader_of, quietly
from tts_search.errors import InvalidInputError

if TYPE_CHECKING:
    from tts_search.training.problems import Problem

Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where the kept lines go, as they were.")]
Against = Annotated[
    list[Path] | None,
    typer.Option(
        "--against",
        metavar="FILE",
        callback=options.there,
        help="A benchmark's questions, as JSON lines; may be given again.",
    ),
]
Runs = Annotated[
    int,
    typer.Option(
        "--words", metavar="N", parser=options.whole(1), help="A shared run of so many words is contamination."
    ),
]
Solved = Annotated[
    Path | None,
    typer.Option(
        "--solved", metavar="FILE", callback=options.there,
        help="Graded trajectories of the policy: questions that it always or never solves go.",
    ),
]  # fmt: skip


def clean(
    questions: Questions,
    out: Out,
    grader: GraderName = "math",
    against: Against = None,
    words: Runs = 10,
    solved: Solved = None,
    debug: options.Debug = False,
) -> None:
    """Turn a raw set of questions into a training set: deduplicate, decontaminate, drop what cannot be graded.

    Each stage reports what it took out and why. A file that is there is replaced only if all of its lines are among the
    raw questions.
    """
    with outcomes(debug), quietly(debug) as say:
        from tts_search.training import cleaning
        from tts_search.training.problems import read_problems
        from tts_search.whole_files import write_atomically

        check_apart(out, questions, *(against or ()), *([] if solved is None else [solved]))
        problems = read_problems(questions)
        check_replaceable(out, problems)
        stages: dict[str, cleaning.Stage] = {"deduplicate": cleaning.deduplicate}
        if against:
            benchmarks = {file.name: [p.text for p in read_problems(file)] for file in against}
            stages["decontaminate"] = cleaning.decontaminate(benchmarks, n=words)
        stages["verifiable"] = cleaning.verifiable(grader_of(grader, strict=True))
        if solved is not None:
            stages["solvable"] = cleaning.solvable(cleaning.solve_rates(solved))
        kept, reports = cleaning.clean(problems, stages)
        write_atomically(out, b"".join(map(line_of, kept)))
        for report in reports:
            typer.echo(report)
            for reason, examples in report.examples.items():
                say(f"{reason}, for example: {examples[0][:100]}")


def line_of(problem: Problem) -> bytes:
    """A problem as a line of the file that is written."""
    return json.dumps(problem.line, ensure_ascii=False).encode() + b"\n"


def check_replaceable(out: Path, problems: Sequence[Problem]) -> None:
    """Refuse to replace a file that is no selection of these problems: what it holds would be nowhere else.

    Raises:
        InvalidInputError: it is none.
    """
    if not out.exists():
        return
    lines = {line_of(problem) for problem in problems}
    if not out.is_file() or not lines.issuperset(out.read_bytes().splitlines(keepends=True)):
        raise InvalidInputError(
            f"{out} is there already and was not cleaned from these questions: it is left as it was; name another "
            "file with --out, or move it away"
        )
