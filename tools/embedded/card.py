"""The embedded model's card, written from its build's own numbers."""

from __future__ import annotations

from typing import Any

from tools.embedded.quality import markdown
from tools.embedded.recipe import Recipe


def card(report: dict[str, Any], recipe: Recipe, parameters: int) -> str:
    """The model folder's README.md."""
    within = report["auc_within_question"] or [float("nan")] * 3
    return TEMPLATE.format(
        millions=parameters / 1e6,
        table=markdown(report),
        overall=float("nan") if report["auc"] is None else report["auc"],
        within=within[0],
        low=within[1],
        high=within[2],
        graded=recipe.head_puzzles * recipe.head_samples,
        recipe=recipe,
        **{name: report[name] for name in ("questions", "samples", "temperature", "command", "cpu_minutes")},
    )


TEMPLATE = """\
---
license: apache-2.0
language: en
pipeline_tag: text-generation
library_name: transformers
tags: [reflective-generative-model, sprm, test-time-scaling]
---

# The embedded reflective model of tts-search

A toy with a purpose: a Qwen2 language model of {millions:.1f} million parameters that thinks in steps about one kind of
question, and an SPRM head (`sprm/`) that scores its steps. It ships inside the package so that search runs with
nothing to download. Its policy is unreliable: there is something for search to find.

> Using the numbers 4, 6, 9 and 13, make 87.

Four numbers from 1 to 20, a target from 1 to 99, each number used exactly once with + - * /. It thinks one operation a
step, checks, and answers with an expression:

    13 - 4 = 9 left 6, 9, 9.

    9 * 9 = 81 left 6, 81.

    81 + 6 = 87.

    87 = 87? yes.

    </think>

    (13 - 4) * 9 + 6 = 87

Any text tokenizes (byte-level BPE), and several wordings of the question work; anything else gets nonsense. It has
seen only puzzles that can be solved with whole numbers from 1 to 99 on the way.

## Measured

{questions} held-out puzzles: random numbers, and the target that random moves lead to, kept out of training in any
order by a hash of the sorted numbers and the target. A pool of {samples} samples each at temperature {temperature},
top_p 1. Accuracy with 95 % intervals, bootstrapped over questions; at each k the pool is cut into groups of k and the
mean over them is taken.

{table}

*SPRM* takes the trajectory of the highest geometric mean of step scores. The AUC of that score is {overall:.3f}
overall and {within:.3f} [{low:.3f}, {high:.3f}] within a question. `quality.json` holds the same numbers;
`python -m benchmarks.embedded_quality` measures them again.

## Made by

    {command}

It took {cpu_minutes} minutes of one CPU core: {recipe.blocks} blocks of width {recipe.width}, {recipe.steps:,}
steps of {recipe.traces} fresh traces. Half of the traces are right; a quarter wander, a quarter aim beside the target.
Trained on right traces only, the model writes whatever result hits the target, and no head can tell. What follows from
a move (its result, the numbers left, the check, the answer) is learned as it is; of the choice of a move, not the one
made is learned but an equal share of all that keep the target in reach. Beside the tokens, the hidden states that the
head reads learn through a linear probe, which is thrown away, whether the target is still in reach after each step.

The head was fitted by BCE on {graded:,} graded samples of the frozen policy, `readout="previous"`, every step labelled
with the outcome of its trajectory.

License: Apache-2.0. Nothing but generated puzzles went into it.
"""
