"""What a fitted head is worth on questions it has not seen: ranking, calibration, step accuracy, Best-of-N.

Numbers in, a report out. It runs no model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from tts_search import metrics
from tts_search.metrics import Interval
from tts_search.training.trajectories import GradedTrajectory
from tts_search.whole_files import write_atomically

REPORT_FILE = "report.json"
MOST_SAMPLES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadReport:
    """Measured on held-out questions; a number is None where the data cannot give it.

    `auc`: of trajectory scores, over all held-out trajectories. `auc_within`: the mean over questions that have right
    and wrong samples; Best-of-N lives on this one. `calibration_error`: expected, of trajectory scores, 10 bins.
    `step_accuracy`: verdicts at 0.5 against step labels. `best_of`: accuracy by selector and k, over the questions with
    at least `samples` samples each. `gain`: SPRM at the largest k minus a single sample, paired by question.
    """

    trajectories: int
    questions: int
    right: float
    auc: float | None
    auc_within: Interval | None
    calibration_error: float | None
    step_accuracy: float | None
    labelled_steps: int
    samples: int
    best_of: dict[str, dict[int, Interval]] = field(default_factory=dict)
    gain: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; an interval is [mean, low, high]."""
        return json.loads(json.dumps(asdict(self)))

    def save(self, folder: Path) -> None:
        """Write `report.json`."""
        write_atomically(folder / REPORT_FILE, json.dumps(self.to_dict(), indent=1) + "\n")

    def markdown(self) -> str:
        """The report for people."""
        lines = [
            f"held out: {self.trajectories} trajectories of {self.questions} questions, {self.right:.1%} right",
            f"AUC of trajectory scores: {_number(self.auc)} overall, {_number(self.auc_within)} within a question",
            f"calibration error: {_number(self.calibration_error)}",
        ]
        if self.step_accuracy is not None:
            lines.append(f"step accuracy: {self.step_accuracy:.3f} over {self.labelled_steps} labelled steps")
        if not self.best_of:
            return "\n".join([*lines, "Best-of-N: not measured (it needs several samples of the same question)"])
        ks = list(next(iter(self.best_of.values())))
        lines += ["", "| k | " + " | ".join(map(str, ks)) + " |", "|---" * (len(ks) + 1) + "|"]
        lines += [f"| {name} | " + " | ".join(map(str, row.values())) + " |" for name, row in self.best_of.items()]
        return "\n".join([*lines, "", f"Best-of-{ks[-1]} by the head against a single sample: {_signed(self.gain)}"])


def judge(
    trajectories: Sequence[GradedTrajectory], step_scores: Sequence[Sequence[float]], values: Sequence[float]
) -> HeadReport:
    """A report on held-out trajectories, given the head's step scores and their aggregation."""
    right = [t.right for t in trajectories]
    verdicts = [
        (score > 0.5) == label
        for t, scores in zip(trajectories, step_scores, strict=True)
        for score, label in zip(scores, t.step_labels or (None,) * len(scores), strict=True)
        if label is not None
    ]
    pairs = sorted(zip(trajectories, values, strict=True), key=lambda pair: pair[0].question)
    pools = [list(pool) for _, pool in groupby(pairs, key=lambda pair: pair[0].question)]
    within = metrics.auc_within(([v for _, v in pool], [t.right for t, _ in pool]) for pool in pools)
    samples, best_of, gain = _best_of(pools)
    return HeadReport(
        trajectories=len(trajectories),
        questions=len(pools),
        right=sum(right) / len(right) if right else 0.0,
        auc=metrics.auc(values, right) if right else None,
        auc_within=metrics.bootstrap(within) if within else None,
        calibration_error=metrics.calibration_error(values, right) if right else None,
        step_accuracy=sum(verdicts) / len(verdicts) if verdicts else None,
        labelled_steps=len(verdicts),
        samples=samples,
        best_of=best_of,
        gain=gain,
    )


Pool = list[tuple[GradedTrajectory, float]]


def _best_of(pools: Sequence[Pool]) -> tuple[int, dict[str, dict[int, Interval]], Interval | None]:
    """Over the largest pool size that at least half of the questions have, so that few short ones cost little."""
    sizes = sorted((len(pool) for pool in pools), reverse=True)
    samples = min(MOST_SAMPLES, sizes[len(sizes) // 2]) if sizes else 0
    if samples < 2:
        return samples, {}, None
    kept = [pool[:samples] for pool in pools if len(pool) >= samples]
    right = [[float(t.right) for t, _ in pool] for pool in kept]
    values = [[value for _, value in pool] for pool in kept]
    logprobs = [[t.mean_logprob for t, _ in pool] for pool in kept]
    answers = [[t.answer for t, _ in pool] for pool in kept]
    table: dict[str, dict[int, Interval]] = {}
    for k in (2**i for i in range(samples.bit_length()) if 2**i <= samples):
        row = {"SPRM": metrics.best_of_k(right, values, k)}
        if all(p is not None for pool in logprobs for p in pool):
            row["mean log-probability"] = metrics.best_of_k(right, logprobs, k)  # type: ignore[arg-type]
        if any(a is not None for pool in answers for a in pool):
            row["majority"] = metrics.majority_at_k(right, answers, k)
        row["oracle"] = metrics.oracle_at_k(right, k)
        for name, accuracies in row.items():
            table.setdefault(name, {})[k] = metrics.bootstrap(accuracies)
        if 2 * k > samples:
            gain = metrics.paired_difference(row["SPRM"], metrics.best_of_k(right, values, 1))
            return samples, table, gain
    raise AssertionError("the last power of two is always reached")


def _number(value: float | Interval | None) -> str:
    return "not measured" if value is None else str(value) if isinstance(value, Interval) else f"{value:.3f}"


def _signed(value: Interval | None) -> str:
    return "not measured" if value is None else f"{value.mean:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"
