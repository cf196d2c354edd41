"""Is the head learning, or talking to itself? The live form of Fig. 3 and 4, and an alarm for collapse.

Eq. 6 trains the head on the steps where it agrees with the outcome already. From a random start that confirms itself:
scores run to all 0 or all 1, the loss falls, and nothing is learned. `Watch` remembers batches as they are and gathers
them from all processes when the trainer logs, once, so that watching costs next to nothing; it changes nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor

from tts_search.errors import InvalidInputError
from tts_search.metrics import auc
from tts_search.scorers.aggregate import resolve_aggregation

REMEDY = (
    "raise warmup_steps (plain BCE until the AUC is about 0.8), start from a head made by `tts-search fit-head`, lower "
    'the head\'s learning rate, or train with loss="bce", which does not collapse'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadStatistics:
    """What one batch says about the head. A statistic that the batch cannot give is NaN.

    `kept_right` and `kept_wrong`: the share of the steps of right and of wrong trajectories whose verdict agrees with
    the outcome (`w_n` of Eq. 6). `spread`: the standard deviation of the step scores. `auc`: of the trajectory scores
    against the outcomes. `score_right`, `score_wrong`: mean trajectory scores; `gap` is their difference (Fig. 3, 4).
    """

    steps: int
    kept_right: float
    kept_wrong: float
    spread: float
    auc: float
    score_right: float
    score_wrong: float

    @property
    def gap(self) -> float:
        """How far right trajectories score above wrong ones."""
        return self.score_right - self.score_wrong


def statistics(
    step_scores: Sequence[Sequence[float]], values: Sequence[float], right: Sequence[bool]
) -> HeadStatistics:
    """Statistics of a batch of trajectories.

    Args:
        step_scores: the scores in [0, 1] of the steps of each trajectory.
        values: each trajectory's own score; those of trajectories without steps are left out of everything.
        right: each trajectory's outcome.
    """
    scored = [(s, v, r) for s, v, r in zip(step_scores, values, right, strict=True) if s]
    kept = {
        outcome: [(score > 0.5) == outcome for scores, _, r in scored if r == outcome for score in scores]
        for outcome in (True, False)
    }
    means = {outcome: [value for _, value, r in scored if r == outcome] for outcome in (True, False)}
    flat = [score for scores, _, _ in scored for score in scores]
    ranked = auc([value for _, value, _ in scored], [r for _, _, r in scored]) if scored else None
    return HeadStatistics(
        steps=len(flat),
        kept_right=_mean(kept[True]),
        kept_wrong=_mean(kept[False]),
        spread=_deviation(flat),
        auc=math.nan if ranked is None else ranked,
        score_right=_mean(means[True]),
        score_wrong=_mean(means[False]),
    )


@dataclass(slots=True, kw_only=True)
class CollapseAlarm:
    """Says so once when the head has collapsed: looks at means over the last `window` batches.

    Collapse is any of: one class keeps less than `least_kept` of its steps while the other keeps nearly all (one
    verdict for everything); the scores' spread is below `least_spread`; the AUC is not above `least_auc`.
    """

    window: int = 20
    least_kept: float = 0.05
    least_spread: float = 0.01
    least_auc: float = 0.55
    _seen: deque[HeadStatistics] = field(default_factory=deque, repr=False)
    _rung: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self.window < 1:
            raise InvalidInputError(f"the alarm's window must hold at least 1 batch, got {self.window}")

    def check(self, batch: HeadStatistics) -> str | None:
        """Take a batch in; the warning if the head has just collapsed, None if all is well or it was said already."""
        if batch.steps == 0:
            return None
        self._seen.append(batch)
        if len(self._seen) > self.window:
            self._seen.popleft()
        if len(self._seen) < self.window:
            return None
        reason = self._reason()
        said, self._rung = self._rung, reason is not None
        return None if reason is None or said else f"the SPRM head has collapsed: {reason}. Remedy: {REMEDY}"

    def _reason(self) -> str | None:
        right, wrong = self._recent("kept_right"), self._recent("kept_wrong")
        over = f"over the last {self.window} batches"
        for low, high, name, other in ((right, wrong, "right", "wrong"), (wrong, right, "wrong", "right")):
            if low < self.least_kept and high > 1 - self.least_kept:
                return (
                    f"{over} only {low:.1%} of the steps of {name} trajectories are kept, and {high:.1%} of those of "
                    f"{other} ones: every step gets the same verdict"
                )
        if (spread := self._recent("spread")) < self.least_spread:
            return f"{over} the step scores' standard deviation is {spread:.4f}: every step gets the same score"
        if (ranked := self._recent("auc")) < self.least_auc:
            return f"{over} the AUC of trajectory scores is {ranked:.2f}: no better than chance"
        return None

    def _recent(self, name: str) -> float:
        return _mean([value for batch in self._seen if not math.isnan(value := getattr(batch, name))])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _deviation(values: Sequence[float]) -> float:
    if not values:
        return math.nan
    middle = _mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / len(values))


Trajectory = tuple[int, bool, list[float]]
"""A completion's group, whether it is right, and its step scores."""


class Watch:
    """What was seen since the last log, by mode ("train", "eval"). `window` 0: no alarm."""

    def __init__(self, group_size: int, window: int) -> None:
        self._size = group_size
        self._seen: dict[str, list[tuple[Tensor, Tensor, Tensor, Tensor]]] = defaultdict(list)
        self._alarm = CollapseAlarm(window=window) if window else None
        self._last: HeadStatistics | None = None

    def remember(self, mode: str, rows: Tensor, logits: Tensor, outcomes: Tensor, numbers: Tensor) -> None:
        """A batch: rows and logits `[steps]`, outcomes (NaN: none) and group numbers `[completions]`."""
        self._seen[mode].append((rows, logits.detach(), outcomes, numbers))

    def metrics(self, mode: str, aggregation: str) -> dict[str, float]:
        """Metrics of all processes since the last call. All processes must call it."""
        own = [trajectory for batch in self._seen.pop(mode, []) for trajectory in _trajectories(*batch)]
        everybody: list[Trajectory] = gather_object(own)
        if not everybody:
            return {}
        aggregate = resolve_aggregation(aggregation)
        values = [aggregate(scores) for _, _, scores in everybody]
        found = statistics([scores for _, _, scores in everybody], values, [right for _, right, _ in everybody])
        if mode == "train":
            self._last = found
        names = ("score_right", "score_wrong", "gap", "auc", "kept_right", "kept_wrong", "spread")
        metrics = {f"sprm/{name}": float(getattr(found, name)) for name in names}
        metrics["sprm/steps"] = found.steps / len(everybody)
        metrics |= self._best_of(everybody, values)
        return {name: value for name, value in metrics.items() if not math.isnan(value)}

    def alarm(self) -> str | None:
        """The warning, if the head has just collapsed."""
        found, self._last = self._last, None
        return self._alarm.check(found) if self._alarm is not None and found is not None else None

    def _best_of(self, everybody: list[Trajectory], values: list[float]) -> dict[str, float]:
        """Accuracy of the best-scored of each whole group, beside that of a single sample of the same groups."""
        pools = defaultdict[int, list[tuple[float, bool]]](list)
        for (group, right, _), value in zip(everybody, values, strict=True):
            pools[group].append((value, right))
        whole: list[Any] = [pool for pool in pools.values() if len(pool) == self._size]
        if not whole:
            return {}
        best = [max(pool, key=lambda pair: pair[0])[1] for pool in whole]
        single = [sum(right for _, right in pool) / self._size for pool in whole]
        return {"sprm/best_of_group": sum(best) / len(best), "sprm/single": sum(single) / len(single)}


def _trajectories(rows: Tensor, logits: Tensor, outcomes: Tensor, numbers: Tensor) -> list[Trajectory]:
    scores: list[list[float]] = [[] for _ in outcomes]
    for row, value in zip(rows.tolist(), logits.sigmoid().tolist(), strict=True):
        scores[row].append(value)
    pairs = zip(numbers.tolist(), outcomes.tolist(), scores, strict=True)
    return [(group, outcome == 1.0, steps) for group, outcome, steps in pairs if not math.isnan(outcome)]
