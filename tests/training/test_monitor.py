"""Statistics of a batch of scores, and when the alarm rings."""

from __future__ import annotations

import math
import re

import pytest

from tts_search.errors import InvalidInputError
from tts_search.training.monitor import CollapseAlarm, HeadStatistics, statistics


def batch(right: list[float], wrong: list[float]) -> HeadStatistics:
    """One step a trajectory."""
    scores = [*right, *wrong]
    return statistics([[s] for s in scores], scores, [True] * len(right) + [False] * len(wrong))


def test_statistics() -> None:
    got = statistics([[0.9, 0.2], [0.4], [], [0.8]], [0.5, 0.4, 0.0, 0.8], [True, False, True, False])
    assert got.steps == 4
    assert got.kept_right == 0.5
    assert got.kept_wrong == 0.5
    assert got.score_right == 0.5
    assert got.score_wrong == pytest.approx(0.6)
    assert got.gap == pytest.approx(-0.1)
    assert got.auc == 0.5, "0.5 beats 0.4 and loses to 0.8; the trajectory without steps is not ranked"
    assert got.spread == pytest.approx(math.sqrt(sum((s - 0.575) ** 2 for s in (0.9, 0.2, 0.4, 0.8)) / 4))


def test_what_a_batch_cannot_say_is_nan() -> None:
    nothing = statistics([[], []], [0.0, 0.0], [True, False])
    assert nothing.steps == 0
    assert all(map(math.isnan, (nothing.auc, nothing.spread, nothing.kept_right, nothing.gap)))
    all_right = batch([0.9, 0.8], [])
    assert math.isnan(all_right.auc)
    assert math.isnan(all_right.kept_wrong)
    assert all_right.kept_right == 1.0


@pytest.mark.parametrize(
    ("collapsed", "reason"),
    [
        (batch([0.1, 0.2, 0.3], [0.2, 0.05, 0.1]), r"only 0\.0% of the steps of right trajectories are kept"),
        (batch([0.9, 0.8, 0.95], [0.7, 0.9, 0.8]), r"only 0\.0% of the steps of wrong trajectories are kept"),
        (batch([0.502, 0.502, 0.498], [0.502, 0.498, 0.498]), "standard deviation"),
        (batch([0.7, 0.2, 0.3], [0.6, 0.9, 0.1]), "no better than chance"),
    ],
)
def test_collapse_is_called_once_with_its_remedy(collapsed: HeadStatistics, reason: str) -> None:
    alarm = CollapseAlarm(window=3)
    assert alarm.check(collapsed) is None
    assert alarm.check(collapsed) is None, "two batches say little"
    warning = alarm.check(collapsed)
    assert warning is not None
    assert "warmup_steps" in warning
    assert re.search(reason, warning)
    assert alarm.check(collapsed) is None, "said once"


def test_a_head_that_learns_is_left_alone_and_can_ring_again() -> None:
    alarm = CollapseAlarm(window=2)
    good, bad = batch([0.9, 0.8, 0.4], [0.1, 0.3, 0.6]), batch([0.1, 0.2], [0.1, 0.2])
    assert [alarm.check(good) for _ in range(5)] == [None] * 5
    assert [alarm.check(bad) is not None for _ in range(3)].count(True) == 1
    assert [alarm.check(good) for _ in range(3)] == [None] * 3
    assert [alarm.check(bad) is not None for _ in range(3)].count(True) == 1


def test_batches_without_steps_say_nothing() -> None:
    alarm = CollapseAlarm(window=1)
    assert alarm.check(statistics([[]], [0.0], [True])) is None


def test_a_window_holds_something() -> None:
    with pytest.raises(InvalidInputError, match="window"):
        CollapseAlarm(window=0)
