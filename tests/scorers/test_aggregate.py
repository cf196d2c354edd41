"""The five aggregations."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_search.errors import InvalidInputError
from tts_search.scorers.aggregate import AGGREGATIONS, FLOOR, geometric_mean, resolve_aggregation

scores = st.lists(st.floats(0, 1), min_size=1, max_size=50)


def test_geometric_mean_is_eq_5() -> None:
    assert geometric_mean([0.9, 0.4]) == pytest.approx(math.sqrt(0.36))
    assert geometric_mean([1.0, 0.0]) == pytest.approx(math.sqrt(FLOOR))


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_no_steps_score_zero(name: str) -> None:
    assert AGGREGATIONS[name]([]) == 0.0


@given(scores)
def test_order_of_means(steps: list[float]) -> None:
    value = {name: aggregate(steps) for name, aggregate in AGGREGATIONS.items()}
    slack = 1e-9
    assert value["product"] <= value["min"] + slack <= value["mean"] + 2 * slack
    assert value["min"] - slack <= max(value["geometric_mean"], FLOOR) <= value["mean"] + FLOOR + slack
    assert value["last"] == steps[-1]
    assert all(0 <= v <= 1 + slack for v in value.values())


def test_a_long_trajectory_does_not_underflow() -> None:
    assert geometric_mean([1e-10] * 10_000) == pytest.approx(1e-10)


def test_names_and_functions() -> None:
    assert resolve_aggregation("min")([0.2, 0.1]) == 0.1
    assert resolve_aggregation(max)([0.2, 0.1]) == 0.2
    with pytest.raises(InvalidInputError, match=r"'median'.*geometric_mean"):
        resolve_aggregation("median")
