"""What joint training looks like (paper, Fig. 3 and 4): the score curves of right and wrong trajectories, the step at
which they part, and a picture of it all. Works on a trainer's log history; trains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tts_search.errors import MissingDependencyError
from tts_search.whole_files import replacing

LEAST_GAP = 0.05
"""By how much the gap must have grown for the curves to have parted."""


def aha_step(steps: Sequence[int], gaps: Sequence[float], *, least: float = LEAST_GAP) -> int | None:
    """The step from which on the gap between right and wrong trajectories is larger; None where nothing changed.

    The one rise of the mean that explains most of the gaps' variance (least squares), if the mean grew there by
    `least` and by three of its standard errors. A later fall does not hide it. NaN gaps are passed over.
    """
    pairs = [(step, gap) for step, gap in zip(steps, gaps, strict=True) if not math.isnan(gap)]
    n, values = len(pairs), [gap for _, gap in pairs]
    if n < 4:
        return None
    total, left, best, at = sum(values), 0.0, -math.inf, 0
    for i in range(1, n):
        left += values[i - 1]
        explained = left**2 / i + (total - left) ** 2 / (n - i)
        rises = (total - left) / (n - i) > left / i
        if 2 <= i <= n - 2 and rises and explained > best:
            best, at = explained, i
    if not at:
        return None
    before, after = values[:at], values[at:]
    grown = sum(after) / len(after) - sum(before) / len(before)
    error = math.sqrt(_variance(before) / len(before) + _variance(after) / len(after))
    return pairs[at][0] if grown >= least and grown > 3 * error else None


def history(log: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric of a log history, where it has a value."""
    rows = [(int(row["step"]), float(row[name])) for row in log if row.get(name) is not None]
    return [step for step, _ in rows], [value for _, value in rows]


def plot(log: Sequence[Mapping[str, Any]], file: str | Path) -> Path:
    """Reward, scores, ranking and what Eq. 6 keeps, over the steps of a run, as a picture.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("plots need matplotlib: pip install 'tts-search[plot]'") from error
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    panels = figure.subplots(2, 2)
    for panel, (title, names) in zip(panels.flat, PANELS.items(), strict=True):
        for name, label in names.items():
            steps, values = history(log, name)
            if steps:
                panel.plot(steps, _smooth(values), label=label)
                panel.plot(steps, values, color=panel.lines[-1].get_color(), alpha=0.2)
        panel.set(title=title, xlabel="step")
        if panel.lines:
            panel.legend(frameon=False, fontsize=8)
    parted = aha_step(*history(log, "sprm/gap"))
    if parted is not None:
        panels.flat[1].axvline(parted, color="grey", linestyle=":", label="curves part")
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as whole:
        figure.savefig(whole, format=file.suffix[1:] or "png", dpi=120)
    return file


PANELS: Mapping[str, Mapping[str, str]] = {
    "Reward": {"reward": "reward", "sprm/single": "single sample", "sprm/best_of_group": "best of the group"},
    "Trajectory score": {"sprm/score_right": "right", "sprm/score_wrong": "wrong"},
    "Ranking": {"sprm/auc": "AUC", "sprm/gap": "gap"},
    "Steps that Eq. 6 keeps": {"sprm/kept_right": "of right", "sprm/kept_wrong": "of wrong", "sprm/spread": "spread"},
}


def _smooth(values: Sequence[float], weight: float = 0.8) -> list[float]:
    smooth = list[float]()
    for value in values:
        smooth.append(value if not smooth else weight * smooth[-1] + (1 - weight) * value)
    return smooth


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
