"""The `train` command: policy and SPRM head, jointly, from a small file or from flags."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from tts_search.cli import arguments as options
from tts_search.cli.outcomes import INTERRUPTED, outcomes
from tts_search.cli.train_sample import grader_of, quietly
from tts_search.errors import InvalidInputError
from tts_search.written import read_value

HELP_BELOW = r"""[bold]The file[/bold], in TOML; flags go before it

    model = "path/to/model"
    data = "questions.jsonl"      # question and answer
    out = "runs/first"
    grader = "math"
    preset = "metastone-1.5b"     # the released settings

    \[training]                    # settings of TRL's GRPOConfig and the head's
    max_steps = 500
    head_warmup_steps = 50

    \[rewards]
    well_formed = 0.1

    \[lora]                        # train an adapter instead of the whole policy
    r = 16
"""

File = Annotated[
    Path | None, typer.Argument(metavar="FILE", callback=options.there, help="A description of the run; see below.")
]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="FILE", callback=options.there, help="Questions with answers, as JSON lines."),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="Checkpoints, log, curves, model.")]
Head = Annotated[
    Path | None,
    typer.Option("--head", metavar="FOLDER", show_default="the model's, else a new one", help="The head to begin."),
]
Grader = Annotated[
    str | None,
    typer.Option(
        "--grader", metavar="NAME", show_default="math",
        help="[cyan]math[/cyan], [cyan]exact[/cyan], [cyan]choice[/cyan], [cyan]puzzle[/cyan], or "
        "[cyan]package.module:function[/cyan] of yours.",
    ),
]  # fmt: skip
Preset = Annotated[str | None, typer.Option("--preset", metavar="NAME", help="The released settings of that size.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="NAME=VALUE", help="A setting of [cyan]training[/cyan]; may be given again."),
]


def train(
    file: File = None,
    model: options.LocalModel = None,
    data: Data = None,
    out: Out = None,
    head: Head = None,
    grader: Grader = None,
    preset: Preset = None,
    settings: Settings = None,
    debug: options.Debug = False,
) -> None:
    """Train a policy by GRPO and its SPRM head on the same rollouts.

    Ctrl-C saves behind the current step; run it again to go on. The trained model is [cyan]final/[/cyan] in the folder.
    """
    with outcomes(debug), quietly(debug) as say:
        chosen = dict(map(_setting, settings or ()))
        if file is None and (
            missing := [f"--{n}" for n, v in (("model", model), ("data", data), ("out", out)) if not v]
        ):
            raise InvalidInputError(f"without a FILE that says it, {' and '.join(missing)} must be given")
        if grader is not None:
            grader_of(grader, strict=True)
        if head is not None and not head.expanduser().is_dir():
            raise InvalidInputError(f"--head: the folder {head} is not there")
        from tts_search.training.run import read_config
        from tts_search.training.run import train as run

        config = read_config(
            file,
            model=model,
            data=data,
            out=out,
            head=head,
            grader=grader,
            preset=preset,
            training=chosen,
        )
        trainer, final = run(config, grader_of(config.grader, strict=True), report=say)
        trainer.end()  # else a process may abort as it exits: threads of the process group outlive the interpreter
        if final is None:
            raise typer.Exit(INTERRUPTED)
        if trainer.is_world_process_zero():
            typer.echo(str(final))


def _setting(text: str) -> tuple[str, Any]:
    """`name=value`, the value as TOML writes it; a bare word is a text."""
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise InvalidInputError(f"--set {text}: write NAME=VALUE, such as learning_rate=1e-6")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), read_value(value.strip())  # True, as Python writes it, is no text
