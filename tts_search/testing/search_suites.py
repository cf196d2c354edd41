"""The contracts of a `Scorer` and of a `Strategy` as tests to inherit, by way of `tts_search.testing.conformance`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from tts_search.api import Searcher
from tts_search.protocols import Scorer, Strategy
from tts_search.result import SearchResult
from tts_search.testing.fakes import FakeGenerator, FakeScorer
from tts_search.tree import Trajectory


def _trajectory(steps: Sequence[str]) -> Trajectory:
    """Steps as a scorer sees them; token ids are bytes, and a token's logit says how much of "good" its step has."""
    data = [step.encode() for step in steps]
    ends = tuple(sum(map(len, data[: i + 1])) for i in range(len(data)))
    return Trajectory(
        question="Is this good?",
        prompt_ids=(63,),
        token_ids=tuple(b"".join(data)),
        step_ends=ends,
        token_scores=tuple(2.0 * step.count("good") - 1.0 for step, raw in zip(steps, data, strict=True) for _ in raw),
        known_scores=(),
        decode=lambda ids: bytes(ids).decode("utf-8", "replace"),
    )


class ScorerConformance:
    """What every `Scorer` must do.

    Override `make_scorer`, and `make_trajectories` where token ids must be a model's.
    """

    tolerance = 1e-6
    """Between two calls, and between a trajectory scored alone and among others."""

    def make_scorer(self) -> Scorer:
        """A new scorer."""
        raise NotImplementedError("override make_scorer")

    def make_trajectories(self) -> list[Trajectory]:
        """Trajectories of different lengths; one has no finished step."""
        lines = ["This is good.\n\n", "This is not so.\n\n", "Really good, good.\n\n"]
        return [_trajectory(lines), _trajectory([]), _trajectory(lines[:1])]

    def test_one_value_per_step(self) -> None:
        trajectories = self.make_trajectories()
        values = self.make_scorer().score(trajectories)
        assert [len(v) for v in values] == [len(t.step_ends) for t in trajectories]
        assert all(math.isfinite(x) and 0 <= x <= 1 for v in values for x in v)

    def test_nothing_to_score(self) -> None:
        assert len(self.make_scorer().score([])) == 0

    def test_a_value_depends_on_its_trajectory_alone(self) -> None:
        scorer, trajectories = self.make_scorer(), self.make_trajectories()
        together = scorer.score(trajectories)
        for trajectory, expected in zip(trajectories, together, strict=True):
            assert list(scorer.score([trajectory])[0]) == pytest.approx(list(expected), abs=self.tolerance)


class StrategyConformance:
    """What every `Strategy` must do. Override `make_strategy`. It is driven by the real runner, on fake engines."""

    budgets = (1, 2, 7, 50, 400, 3000)

    def make_strategy(self) -> Strategy:
        """A new strategy, small enough for a test."""
        raise NotImplementedError("override make_strategy")

    def search(self, generator: FakeGenerator, *, seed: int = 0, budget: int | None = 3000) -> SearchResult:
        """One search of a fake engine."""
        with Searcher(generator=generator, scorer=FakeScorer(), max_tokens=200, answer_tokens=50) as searcher:
            return searcher.search("What is it?", strategy=self.make_strategy(), seed=seed, budget=budget)

    @pytest.mark.parametrize(
        "generator",
        [
            FakeGenerator(),
            FakeGenerator(thinks=False),
            FakeGenerator(step=0.0, close=0.0),  # never ends a step, never closes its thinking part
            FakeGenerator(step=0.9, close=0.0),  # step tokens in long runs
            FakeGenerator(close=0.0, end=0.9, ends_anywhere=True),  # stops at once
            FakeGenerator(delay_seconds=0.005),  # completions out of order
        ],
        ids=["thinking", "plain", "stepless", "steps", "terse", "late"],
    )
    def test_ends_with_a_result(self, generator: FakeGenerator) -> None:
        result = self.search(generator)
        assert result.usage.sampled_tokens <= 3000
        assert result.candidates

    def test_budget_is_never_exceeded(self) -> None:
        for budget in self.budgets:
            assert self.search(FakeGenerator(), budget=budget).usage.sampled_tokens <= budget

    def test_equal_seeds_give_equal_results(self) -> None:
        first, second = self.search(FakeGenerator(), seed=3), self.search(FakeGenerator(delay_seconds=0.005), seed=3)
        assert first.tree is not None
        assert second.tree is not None
        assert [n.token_ids for n in first.tree] == [n.token_ids for n in second.tree]
        assert (first.answer, first.chosen) == (second.answer, second.chosen)

    def test_is_a_value(self) -> None:
        assert repr(self.make_strategy()) == repr(self.make_strategy()), "its repr is part of the key of a stored run"
