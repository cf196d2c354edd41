"""Every statistic against a slow, plain computation of the same thing, and against numbers worked out by hand."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_search.errors import InvalidInputError
from tts_search.metrics import (
    Interval,
    auc,
    auc_within,
    best_of_k,
    bootstrap,
    calibration_error,
    first_error_f1,
    majority_at_k,
    oracle_at_k,
    paired_difference,
    pass_at_1,
    pass_at_k,
)

POOL = [[False, True, False, False], [True, True, True, False]]
pools = st.integers(1, 7).flatmap(
    lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=4)
)


def test_pass_at_1_is_the_mean_of_the_repeats() -> None:
    assert pass_at_1(POOL).tolist() == [0.25, 0.75]


@given(pools, st.data())
def test_pass_at_k_is_the_mean_over_all_subsets(pool: list[list[bool]], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(pool[0])))
    expected = [np.mean([any(subset) for subset in combinations(row, k)]) for row in pool]
    assert pass_at_k(pool, k) == pytest.approx(expected)


def test_pass_at_k_stays_exact_for_large_pools() -> None:
    row = [True] + [False] * 9_999
    assert pass_at_k([row], 100)[0] == pytest.approx(0.01)


@given(pools, st.randoms(use_true_random=False), st.data())
def test_selectors_choose_within_disjoint_groups(
    pool: list[list[bool]], chance: random.Random, data: st.DataObject
) -> None:
    n = len(pool[0])
    k = data.draw(st.integers(1, n))
    scores = [[chance.choice([0.1, 0.5, 0.9]) for _ in row] for row in pool]
    answers = [[chance.choice([None, "a", "b"]) for _ in row] for row in pool]

    def slow(choose) -> list[float]:
        groups = [range(i, i + k) for i in range(0, n - k + 1, k)]
        return [float(np.mean([choose(q, group) for group in groups])) for q in range(len(pool))]

    def most_voted(q: int, group: range) -> bool:
        votes = Counter(answers[q][i] for i in group if answers[q][i] is not None)
        return bool(votes) and next(pool[q][i] for i in group if answers[q][i] == votes.most_common(1)[0][0])

    oracle, best = oracle_at_k(pool, k), best_of_k(pool, scores, k)
    assert best == pytest.approx(slow(lambda q, g: pool[q][max(g, key=lambda i: (scores[q][i], -i))]))
    assert oracle == pytest.approx(slow(lambda q, g: any(pool[q][i] for i in g)))
    assert majority_at_k(pool, answers, k) == pytest.approx(slow(most_voted))
    assert (best <= oracle).all()
    assert pass_at_k(pool, n) == pytest.approx(oracle_at_k(pool, n))


def test_a_majority_of_no_votes_is_wrong() -> None:
    assert majority_at_k([[True, True]], [[None, None]], 2).tolist() == [0.0]
    assert majority_at_k([[False, True, True]], [["a", "b", "b"]], 3).tolist() == [1.0]


@pytest.mark.parametrize("call", [pass_at_k, oracle_at_k, lambda p, k: best_of_k(p, p, k)])
@pytest.mark.parametrize("k", [0, 5])
def test_k_beyond_the_pool_is_refused(call, k: int) -> None:
    with pytest.raises(InvalidInputError, match=f"k must lie between 1 and the pool's 4 samples: got {k}"):
        call(POOL, k)


def test_ragged_pools_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="as many samples"):
        pass_at_1([[True], [True, False]])


def test_the_bootstrap_draws_what_the_standard_library_draws() -> None:
    values = [0.0, 1.0, 0.25, 0.5, 1.0, 0.0, 0.75]
    rng, n = random.Random(3), len(values)
    means = sorted(sum(rng.choices(values, k=n)) / n for _ in range(2_000))
    assert bootstrap(values, seed=3) == pytest.approx((0.5, means[50], means[1950]))


def test_the_bootstrap_in_blocks_is_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(50)
    whole = bootstrap(values)
    monkeypatch.setattr("tts_search.metrics._CELLS", 333)
    assert bootstrap(values) == whole


@pytest.mark.parametrize("seed", [0, 5])
def test_an_interval_leaves_out_as_much_at_either_end(seed: int) -> None:
    values = [0.0, 1.0, 0.25, 0.5, 1.0, 0.0, 0.75]
    rng, n = random.Random(seed), len(values)
    means = sorted(sum(rng.choices(values, k=n)) / n for _ in range(1_000))
    interval = bootstrap(values, confidence=0.8, resamples=1_000, seed=seed)
    assert interval == pytest.approx((0.5, means[100], means[900]))
    assert paired_difference(values, [0.0] * n, confidence=0.8, resamples=1_000, seed=seed) == interval
    one = bootstrap(values, resamples=1, seed=seed)
    assert one.low == one.high != one.mean == 0.5, "one resample is both ends; the mean is the sample's own"


@pytest.mark.parametrize("options", [{"confidence": 0}, {"confidence": 1}, {"confidence": -0.5}, {"resamples": 0}])
def test_an_interval_that_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match="confidence must lie in"):
        bootstrap([0.0, 1.0], **options)  # pyright: ignore[reportArgumentType]


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        low, high = bootstrap(rng.random(40) < 0.3, resamples=400, seed=trial)[1:]
        hits += low <= 0.3 <= high
    assert 0.86 < hits / 200 < 0.99


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    rng = np.random.default_rng(2)
    baseline = rng.random(200)
    better = baseline + 0.05
    difference = paired_difference(better, baseline)
    assert difference == pytest.approx((0.05, 0.05, 0.05))
    assert bootstrap(better).high - bootstrap(better).low > 0.05
    with pytest.raises(InvalidInputError, match="same questions"):
        paired_difference([1.0], [1.0, 0.0])


@pytest.mark.parametrize("values", [[], [float("nan")], [[1.0]]])
def test_what_has_no_mean_is_refused(values: list[float]) -> None:
    with pytest.raises(InvalidInputError):
        bootstrap(values)


def test_an_interval_reads_well() -> None:
    assert str(Interval(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"


def test_auc_by_hand() -> None:
    assert auc([0.9, 0.1], [True, False]) == 1.0
    assert auc([0.5, 0.5], [True, False]) == 0.5
    assert auc([0.9, 0.2, 0.5, 0.2], [True, True, False, False]) == 0.625
    assert auc([0.9], [True]) is None
    assert auc_within([([0.9, 0.1], [1, 0]), ([0.3], [1])]) == [1.0]


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), min_size=1, max_size=12))
def test_auc_counts_pairs(samples: list[tuple[float, bool]]) -> None:
    right = [score for score, label in samples if label]
    wrong = [score for score, label in samples if not label]
    value = auc([score for score, _ in samples], [label for _, label in samples])
    if not right or not wrong:
        assert value is None
    else:
        assert value == pytest.approx(np.mean([(r > w) + (r == w) / 2 for r in right for w in wrong]))


def test_calibration() -> None:
    assert calibration_error([0.75, 0.75, 0.75, 0.75], [1, 1, 1, 0]) == pytest.approx(0.0)
    assert calibration_error([1.0, 1.0], [0, 0]) == pytest.approx(1.0)
    assert calibration_error([0.05, 0.95], [1, 1]) == pytest.approx((0.95 + 0.05) / 2)
    # 0.19 is of the second tenth, beside 0.11, and not of the third: a bin begins at its lower edge.
    assert calibration_error([0.19, 0.11], [1, 0]) == pytest.approx(abs(0.3 - 1) / 2)
    assert calibration_error([0.2, 0.29], [1, 0]) == pytest.approx(abs(0.49 - 1) / 2)
    assert calibration_error([0.2, 0.19], [1, 0]) == pytest.approx((0.8 + 0.19) / 2)
    assert calibration_error([0.95, 1.0], [1, 0]) == pytest.approx(0.95 / 2), "1 is of the last tenth"
    assert calibration_error([0.0, 0.05], [1, 0]) == pytest.approx(0.95 / 2)
    assert calibration_error([0.1, 0.9], [0, 1], bins=1) == pytest.approx(0.0)
    for scores in ([1.5], [-0.1]):
        with pytest.raises(InvalidInputError, match=r"\[0, 1\]"):
            calibration_error(scores, [1])
    with pytest.raises(InvalidInputError, match="at least 1"):
        calibration_error([0.5], [1], bins=0)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=20), st.integers(1, 12))
def test_calibration_is_the_mean_gap_of_the_bins(samples: list[tuple[float, bool]], bins: int) -> None:
    expected = 0.0
    for i in range(bins):
        inside = [(s, y) for s, y in samples if i <= s * bins < i + 1 or (i == bins - 1 and s == 1.0)]
        expected += abs(sum(s for s, _ in inside) - sum(y for _, y in inside))
    value = calibration_error([s for s, _ in samples], [y for _, y in samples], bins=bins)
    assert value == pytest.approx(expected / len(samples))


def test_what_does_not_fit_together_is_refused() -> None:
    for call in (auc, calibration_error):
        with pytest.raises(InvalidInputError, match="every score needs its label"):
            call([0.5, 0.5], [True])
    with pytest.raises(InvalidInputError, match="every label needs its prediction"):
        first_error_f1([1], [1, -1])
    with pytest.raises(InvalidInputError, match="do not fit the pool"):
        best_of_k(POOL, [[0.5] * 4], 1)
    with pytest.raises(InvalidInputError, match="do not fit the pool"):
        majority_at_k(POOL, [["a"] * 4, ["a"] * 3], 1)
    with pytest.raises(InvalidInputError, match="holds NaN, first for question 1"):
        pass_at_1([[1.0, 0.0], [float("nan"), 1.0]])
    for pool in ([], [[]], [1.0]):
        with pytest.raises(InvalidInputError, match="none of them 0"):
            pass_at_1(pool)


@pytest.mark.parametrize("k", [1, 4])
def test_the_least_and_the_largest_k(k: int) -> None:
    assert oracle_at_k(POOL, k).tolist() == ([0.25, 0.75] if k == 1 else [1.0, 1.0])
    assert pass_at_k(POOL, k).tolist() == pytest.approx([0.25, 0.75] if k == 1 else [1.0, 1.0])


def test_first_error_f1() -> None:
    result = first_error_f1([1, 0, -1, -1], [1, 2, -1, -1])
    assert result == (0.5, 1.0, pytest.approx(2 / 3))
    assert first_error_f1([0, 0], [1, -1]).f1 == 0.0
    assert first_error_f1([1, 0, -1], [0, 0, -1]) == (0.5, 1.0, pytest.approx(2 / 3)), "step 0 can be the wrong one"
    for labels in ([1], [-1]):
        with pytest.raises(InvalidInputError, match="with and without"):
            first_error_f1([1], labels)
