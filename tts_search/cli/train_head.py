"""The `fit-head` command: graded trajectories in, an SPRM head and what it is worth out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from tts_search.cli import arguments as options
from tts_search.cli.outcomes import outcomes
from tts_search.cli.train_sample import quietly
from tts_search.models import EMBEDDED
from tts_search.scorers.aggregate import AGGREGATIONS

_share = options.number(lambda share: 0 < share < 1, "above 0 and below 1")
_rate = options.number(lambda rate: 0 < rate < math.inf, "above 0")
Data = Annotated[
    Path,
    typer.Argument(
        metavar="TRAJECTORIES",
        callback=options.there,
        help="JSON lines with [cyan]question[/cyan], [cyan]response[/cyan] and [cyan]correct[/cyan] (or "
        "[cyan]reward[/cyan]), as tts-search sample writes them.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="FOLDER", show_default="sprm/ in the model's folder", help="The head's folder."
    ),
]
Readout = Annotated[
    str,
    typer.Option(
        "--readout", metavar="NAME", callback=options.choice(("previous", "step")),
        help="Where a step is read: at the token before its step token ([cyan]previous[/cyan], what engines score "
        "without an extra token), or at the [cyan]step[/cyan] token.",
    ),
]  # fmt: skip
StepText = Annotated[
    str | None,
    typer.Option(
        "--step", metavar="TEXT", show_default=r".\n\n", help="The text that ends a step; \\n is a line break."
    ),
]
Aggregation = Annotated[
    str,
    typer.Option(
        "--aggregation",
        metavar="NAME",
        callback=options.choice(AGGREGATIONS),
        help=f"From step scores to the trajectory's score: {', '.join(AGGREGATIONS)}.",
    ),
]
Labels = Annotated[
    str,
    typer.Option(
        "--labels", metavar="NAME", callback=options.choice(("outcome", "steps")),
        help="What a step is labelled with: its trajectory's [cyan]outcome[/cyan], or [cyan]steps[/cyan]: its own "
        "label where it has one.",
    ),
]  # fmt: skip
HeldOut = Annotated[
    float, typer.Option("--held-out", metavar="SHARE", parser=_share, help="Share of the questions to measure on.")
]
Epochs = Annotated[int, typer.Option("--epochs", metavar="N", parser=options.whole(1), help="Passes over the steps.")]
LearningRate = Annotated[
    float, typer.Option("--learning-rate", metavar="RATE", parser=_rate, help="At the start; falls to 0.")
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache", metavar="FOLDER", show_default="beside the trajectories", help="Where hidden states are kept."
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="Where the policy runs.")]
BatchTokens = Annotated[
    int, typer.Option("--batch-tokens", metavar="N", parser=options.whole(1), help="Tokens the policy reads at once.")
]


def fit_head(
    trajectories: Data,
    model: options.LocalModel = None,
    out: Out = None,
    readout: Readout = "previous",
    step: StepText = None,
    aggregation: Aggregation = "geometric_mean",
    labels: Labels = "outcome",
    held_out: HeldOut = 0.2,
    epochs: Epochs = 40,
    learning_rate: LearningRate = 2e-3,
    seed: options.Seed = 0,
    cache: Cache = None,
    device: Device = "auto",
    batch_tokens: BatchTokens = 16_384,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Fit an SPRM head on a frozen model, and measure it on questions that it has not seen.

    Hidden states are computed once and kept: another run with other settings takes seconds.
    """
    with outcomes(debug), quietly(debug) as say:
        from tts_search.segmentation import DEFAULT_STEP_RULE
        from tts_search.training.fit import FitSettings
        from tts_search.training.fit import fit_head as fit
        from tts_search.training.probe import ProbeSettings
        from tts_search.training.states import Reader

        chosen: Any = {"readout": readout, "labels": labels}
        settings = FitSettings(
            **chosen,
            step_rule=DEFAULT_STEP_RULE if step is None else step.replace("\\n", "\n"),
            aggregation=aggregation,
            held_out=held_out,
            probe=ProbeSettings(epochs=epochs, learning_rate=learning_rate, seed=seed),
            reader=Reader(device=device, batch_tokens=batch_tokens),
        )
        report = fit(model or EMBEDDED, trajectories, out, settings=settings, cache=cache, report=say)
        if json:
            import json as encoder

            typer.echo(encoder.dumps(report.to_dict()))
        else:
            typer.echo(report.markdown())
