"""The budget: fair, exact, never over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_search.core.budget import Budget, Usage, fair_split
from tts_search.errors import GeneratorError, InvalidInputError

wants = st.lists(st.integers(0, 1000), max_size=20)


@given(wants, st.integers(0, 5000))
def test_fair_split_is_max_min_fair(wants: list[int], available: int) -> None:
    grants = fair_split(wants, available)
    assert sum(grants) == min(sum(wants), available)
    assert all(0 <= grant <= want for grant, want in zip(grants, wants, strict=True))
    unmet = [grant for grant, want in zip(grants, wants, strict=True) if grant < want]
    if unmet:  # nobody who was cut off has less than anybody else, but for the odd token
        assert max(grants) - min(unmet) <= 1


def test_too_few_tokens_go_to_the_first() -> None:
    assert fair_split([100] * 5, 3) == [1, 1, 1, 0, 0]
    assert fair_split([7, 100, 100], 100) == [7, 47, 46]


@given(st.integers(1, 500), st.integers(0, 500), st.lists(st.tuples(wants, st.floats(0, 1)), max_size=10))
def test_never_over_whatever_is_asked(tokens: int, answer_reserve: int, rounds: list[tuple[list[int], float]]) -> None:
    budget = Budget(tokens, answer_reserve=answer_reserve)
    for asked, share in rounds:
        for grant in budget.reserve(asked):
            budget.settle(grant, int(grant * share))
        assert budget.spent <= tokens - min(answer_reserve, tokens)
    budget.release()
    for grant in budget.reserve([10_000]):
        budget.settle(grant, grant)
    assert budget.spent == tokens


def test_overspending_is_the_generators_fault() -> None:
    budget = Budget(10)
    (grant,) = budget.reserve([4])
    with pytest.raises(GeneratorError, match="sampled 5 tokens where 4 were granted"):
        budget.settle(grant, 5)


@pytest.mark.parametrize("tokens", [0, -1])
def test_a_budget_has_at_least_one_token(tokens: int) -> None:
    with pytest.raises(InvalidInputError, match=f"got {tokens}"):
        Budget(tokens)


def test_no_budget_is_no_limit() -> None:
    budget = Budget(None, answer_reserve=100)
    assert budget.reserve([32_768] * 1000) == [32_768] * 1000


def test_usage_adds_up() -> None:
    total = Usage(sampled_tokens=3, seconds=0.5) + Usage(sampled_tokens=4, requests=1)
    assert total == Usage(sampled_tokens=7, requests=1, seconds=0.5)
