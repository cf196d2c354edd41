"""What choosing among samples is worth: accuracy at k = 1 to 16 for four selectors, with 95 % intervals.

It works on graded samples and scores alone; where they come from it does not know.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tts_search.embedded.sampling import Sample
from tts_search.head import SPRM

KS = (1, 2, 4, 8, 16)
BOOTSTRAPS = 2_000

Scored = tuple[Sample, float]


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
    pools = [list(zip(group, values, strict=True)) for group, values in zip(groups, scores, strict=True)]
    pool_size = min(map(len, pools))
    table: dict[str, dict[str, list[float]]] = {}
    for name, choose in SELECTORS.items():
        table[name] = {
            str(k): _interval([_mean_over_groups(pool[:pool_size], k, choose) for pool in pools], seed)
            for k in KS
            if k <= pool_size
        }
    within = [value for pool in pools if (value := auc(pool)) is not None]
    return {
        "questions": len(pools),
        "samples": pool_size,
        "accuracy": table,
        "auc": auc([scored for pool in pools for scored in pool]),
        "auc_within_question": _interval(within, seed) if within else None,
    }


def auc(pool: Sequence[Scored]) -> float | None:
    """Probability that a right sample scores above a wrong one (a tie counts half); None without one of each."""
    ranked = sorted(pool, key=lambda scored: scored[1])
    right = sum(sample.correct for sample, _ in ranked)
    wrong = len(ranked) - right
    if not right or not wrong:
        return None
    won, wrong_below, i = 0.0, 0, 0
    while i < len(ranked):
        j = i
        while j < len(ranked) and ranked[j][1] == ranked[i][1]:
            j += 1
        tied_right = sum(sample.correct for sample, _ in ranked[i:j])
        tied_wrong = j - i - tied_right
        won += tied_right * (wrong_below + tied_wrong / 2)
        wrong_below += tied_wrong
        i = j
    return won / (right * wrong)


def markdown(report: dict[str, Any]) -> str:
    """The accuracy table of a quality report, with its intervals, as Markdown."""
    ks = list(next(iter(report["accuracy"].values())))
    lines = ["| k | " + " | ".join(ks) + " |", "|---" * (len(ks) + 1) + "|"]
    for name, row in report["accuracy"].items():
        cells = (f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in row.values())
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean_over_groups(pool: Sequence[Scored], k: int, choose: Callable[[Sequence[Scored]], float]) -> float:
    groups = [pool[i : i + k] for i in range(0, len(pool) - k + 1, k)]
    return sum(map(choose, groups)) / len(groups)


def _interval(values: Sequence[float], seed: int) -> list[float]:
    rng, n = random.Random(seed), len(values)
    means = sorted(sum(rng.choices(values, k=n)) / n for _ in range(BOOTSTRAPS))
    low, high = means[int(0.025 * BOOTSTRAPS)], means[int(0.975 * BOOTSTRAPS)]
    return [round(value, 4) for value in (sum(values) / n, low, high)]


def _best_score(group: Sequence[Scored]) -> float:
    return float(max(group, key=lambda scored: scored[1])[0].correct)


def _best_log_probability(group: Sequence[Scored]) -> float:
    return float(max((sample for sample, _ in group), key=lambda sample: sample.log_probability).correct)


def _majority(group: Sequence[Scored]) -> float:
    (winner, _), *_ = Counter(sample.answer for sample, _ in group).most_common(1)
    return float(next(sample.correct for sample, _ in group if sample.answer == winner))


def _oracle(group: Sequence[Scored]) -> float:
    return float(any(sample.correct for sample, _ in group))


SELECTORS: dict[str, Callable[[Sequence[Scored]], float]] = {
    "SPRM": _best_score,
    "mean log-probability": _best_log_probability,
    "majority": _majority,
    "oracle": _oracle,
}
