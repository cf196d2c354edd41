"""The contracts of a `Scorer` and of a `Strategy` as tests to inherit, by way of `tts_search.testing.conformance`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tts_search.api import Searcher
from tts_search.core.protocols import Scorer, Scores, Strategy
from tts_search.core.result import SearchResult
from tts_search.core.tree import Trajectory, Tree
from tts_search.scorers.aggregate import resolve_aggregation
from tts_search.segmentation import Segmenter
from tts_search.strategies.best_of_n import BestOfN
from tts_search.testing.fakes import FakeGenerator, FakeScorer


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


def _grown(result: SearchResult) -> list[tuple[int | None, tuple[int, ...]]]:
    """All that a search sampled, and from where: equal for equal searches."""
    return [(node.parent, node.token_ids) for node in result.tree or ()]


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
        """Of different lengths; one has no finished step, one answers a conversation, two differ by their question."""
        lines = ["This is good.\n\n", "This is not so.\n\n", "Really good, good.\n\n"]
        chat = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好, good?"})
        return [
            _trajectory(lines),
            _trajectory([]),
            _trajectory(lines[:1]),
            replace(_trajectory(lines[:1]), question="Is this bad?"),
            replace(_trajectory(["<think>\n\n", " \n", "naïve 👩‍🔬 </think>\n\n"]), question=chat),
        ]

    def check(self, scorer: Scorer, trajectories: Sequence[Trajectory]) -> Sequence[Sequence[float]]:
        """Score, and hold the answer to the contract."""
        values = scorer.score(trajectories)
        assert [len(v) for v in values] == [len(t.step_ends) for t in trajectories], "one value per finished step"
        assert all(0 <= x <= 1 for v in values for x in v), "values are numbers in [0, 1]"
        if isinstance(values, Scores):
            assert values.tokens >= 0
        return values

    def test_one_value_per_step(self) -> None:
        self.check(self.make_scorer(), self.make_trajectories())

    def test_nothing_to_score(self) -> None:
        assert len(self.make_scorer().score([])) == 0

    def test_a_value_depends_on_its_trajectory_alone(self) -> None:
        scorer, trajectories = self.make_scorer(), self.make_trajectories()
        together = scorer.score(trajectories)
        for trajectory, expected in zip(trajectories, together, strict=True):
            assert list(scorer.score([trajectory])[0]) == pytest.approx(list(expected), abs=self.tolerance)
        backwards = self.make_scorer().score(trajectories[::-1])
        for got, expected in zip(backwards[::-1], together, strict=True):
            assert list(got) == pytest.approx(list(expected), abs=self.tolerance)

    def test_what_it_says_of_itself(self) -> None:
        if (aggregation := getattr(self.make_scorer(), "aggregation", None)) is not None:
            assert 0 <= resolve_aggregation(aggregation)([0.2, 0.7]) <= 1

    def test_in_a_search(self) -> None:
        with Searcher(generator=FakeGenerator(), scorer=self.make_scorer(), max_tokens=60) as searcher:
            results = list(searcher.search_many(["Is this good?", "Is that?"], strategy=BestOfN(n=3)))
        assert [result.error for result in results] == [None, None]


class StrategyConformance:
    """What every `Strategy` must do. Override `make_strategy`. It is driven by the real runner, on fake engines."""

    budgets = (1, 2, 7, 50, 400, 3000)

    def make_strategy(self) -> Strategy:
        """A new strategy, small enough for a test."""
        raise NotImplementedError("override make_strategy")

    def search(self, generator: FakeGenerator, *, seed: int = 0, budget: int | None = 3000) -> SearchResult:
        """One search of a fake engine."""
        with Searcher(generator=replace(generator), scorer=FakeScorer(), max_tokens=200, answer_tokens=50) as searcher:
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
        assert result.candidates

    def test_budget_is_never_exceeded(self) -> None:
        for budget in self.budgets:
            assert self.search(FakeGenerator(), budget=budget).usage.sampled_tokens <= budget

    def test_equal_seeds_give_equal_results(self) -> None:
        first, second = self.search(FakeGenerator(), seed=3), self.search(FakeGenerator(delay_seconds=0.005), seed=3)
        assert _grown(first) == _grown(second)

    def test_one_object_serves_many_searches(self) -> None:
        strategy = self.make_strategy()
        with Searcher(generator=FakeGenerator(), scorer=FakeScorer(), max_tokens=200, answer_tokens=50) as searcher:
            questions = ["One?", "Two?", "One?"]
            found = list(searcher.search_many(questions, strategy=strategy, budget=1000))
        by_index = {result.index: result for result in found}
        assert [result.error for result in found] == [None] * 3
        assert _grown(by_index[0]) == _grown(by_index[2]), "a strategy keeps nothing of one search for the next"

    def test_can_be_abandoned(self) -> None:
        generator = FakeGenerator()
        segmenter = Segmenter(generator.tokenizer)
        tree = Tree("What is it?", generator.tokenizer.render("What is it?"), segmenter, generator.tokenizer.decode)
        plan = self.make_strategy()(tree)
        assert next(plan), "its first round asks for something"
        plan.close()

    def test_is_a_value(self) -> None:
        one, other = self.make_strategy(), self.make_strategy()  # both alive, so that no address is used again
        assert repr(one) == repr(other), "its repr is part of the key of a stored run"
