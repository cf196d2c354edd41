"""What choosing among samples is worth: accuracy at k = 1 to 16 for four selectors, with 95 % intervals.

It works on graded samples and scores alone; where they come from it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tools.embedded.graded_samples import Sample
from tts_search.metrics import Floats, auc, auc_within, best_of_k, bootstrap, majority_at_k, oracle_at_k
from tts_search.sprm.module import SPRM

KS = (1, 2, 4, 8, 16)


@torch.inference_mode()
def trajectory_scores(head: SPRM, groups: Sequence[Sequence[Sample]]) -> list[list[float]]:
    """Geometric means of the step scores (Eq. 5); 0 for a trajectory without steps."""

    def score(sample: Sample) -> float:
        if len(sample.steps) == 0:
            return 0.0
        return float(head(sample.steps).sigmoid().clamp(min=1e-10).log().mean().exp())

    return [[score(sample) for sample in group] for group in groups]


def quality(groups: Sequence[Sequence[Sample]], scores: Sequence[Sequence[float]], *, seed: int = 0) -> dict[str, Any]:
    """Accuracy by selector and k, each `[mean, low, high]`, and the AUC overall and within a question.

    At each k the pool of a question is cut into groups of k and the mean is taken, so every sample counts at every k.
    Intervals are bootstrapped over questions.
    """
    size = min(map(len, groups))
    pools = [group[:size] for group in groups]
    correct = [[sample.correct for sample in pool] for pool in pools]
    log_probabilities = [[sample.log_probability for sample in pool] for pool in pools]
    answers = [[sample.answer for sample in pool] for pool in pools]
    selectors: dict[str, Callable[[int], Floats]] = {
        "SPRM": lambda k: best_of_k(correct, [values[:size] for values in scores], k),
        "mean log-probability": lambda k: best_of_k(correct, log_probabilities, k),
        "majority": lambda k: majority_at_k(correct, answers, k),
        "oracle": lambda k: oracle_at_k(correct, k),
    }
    labels = [[sample.correct for sample in group] for group in groups]
    within = auc_within(zip(scores, labels, strict=True))
    return {
        "questions": len(groups),
        "samples": size,
        "accuracy": {
            name: {str(k): _interval(select(k), seed) for k in KS if k <= size} for name, select in selectors.items()
        },
        "auc": auc([value for row in scores for value in row], [label for row in labels for label in row]),
        "auc_within_question": _interval(within, seed) if within else None,
    }


def markdown(report: dict[str, Any]) -> str:
    """The accuracy table of a quality report, with its intervals, as Markdown."""
    ks = list(next(iter(report["accuracy"].values())))
    lines = ["| k | " + " | ".join(ks) + " |", "|---" * (len(ks) + 1) + "|"]
    for name, row in report["accuracy"].items():
        cells = (f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in row.values())
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _interval(values: Floats | Sequence[float], seed: int) -> list[float]:
    return [round(value, 4) for value in bootstrap(values, seed=seed)]
