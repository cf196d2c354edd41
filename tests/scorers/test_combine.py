"""Verifiers and ensembles."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scorers.reward_checkpoints import QUESTION, trajectory
from tts_search import InvalidInputError, Scorer, ScorerError, Scores, Searcher
from tts_search.core.tree import Trajectory
from tts_search.scorers.combine import Ensemble
from tts_search.scorers.verifier import Verifier
from tts_search.testing import FakeGenerator, FakeScorer
from tts_search.testing.conformance import ScorerConformance


def ends_with(answer: str, reference: str) -> bool:
    return answer.strip().endswith(reference)


def test_a_verifier_scores_right_trajectories_one() -> None:
    verifier = Verifier(ends_with, {QUESTION: "22"}, answer=lambda text: text.split("and then")[0].strip(". \n"))
    right, wrong = trajectory(["Add.", "It is 22."]), trajectory(["Add.", "It is 23.", "Really."])
    assert verifier.score([right, wrong, trajectory([])]) == [[1.0, 1.0], [0.0, 0.0, 0.0], []]


def test_what_follows_the_last_thought_is_graded() -> None:
    verifier = Verifier(lambda answer, reference: answer.startswith(reference), {QUESTION: "22"})
    assert verifier.score([trajectory(["a</think>9 <think>", "b</think>22"])]) == [[1.0, 1.0]]


def test_what_follows_the_thinking_part_is_graded() -> None:
    seen: list[tuple[str, str]] = []

    def grade(answer: str, reference: str) -> bool:
        seen.append((answer, reference))
        return True

    done = trajectory(["Think.", "Done.</think>The answer is 22."])
    Verifier(grade, lambda question: question.upper()).score([done, trajectory(["Think."])])
    assert seen[0] == ("The answer is 22.\n\nand then", QUESTION.upper())
    assert seen[1] == ("<think>\nThink.\n\nand then", QUESTION.upper())


def test_a_question_without_a_reference_is_named() -> None:
    with pytest.raises(ScorerError, match=r"no reference for the question 'What is 13 \+ 9\?'"):
        Verifier(ends_with, {}).score([trajectory()])


def test_search_finds_what_the_oracle_knows() -> None:
    oracle = Verifier(lambda text, letter: letter in text, lambda _: "a")
    with Searcher(generator=FakeGenerator(), scorer=oracle, max_tokens=60) as searcher:
        result = searcher.search("Why?", effort="medium")
    assert {c.score for c in result.candidates} == {0.0, 1.0}
    assert result.score == 1.0


def constant(*values: float) -> FakeScorer:
    it = iter(values * 1000)
    return FakeScorer(lambda _: next(it))


@pytest.mark.parametrize(
    ("combine", "weights", "expected"),
    [
        ("mean", None, (0.2 + 0.9) / 2),
        ("mean", [3, 1], 0.75 * 0.2 + 0.25 * 0.9),
        ("mean", [0, 2], 0.9),
        ("geometric_mean", None, math.sqrt(0.2 * 0.9)),
        ("geometric_mean", [3, 1], 0.2**0.75 * 0.9**0.25),
        ("min", None, 0.2),
        ("max", None, 0.9),
    ],
)
def test_combinations(combine: Any, weights: list[float] | None, expected: float) -> None:
    ensemble = Ensemble([constant(0.2), constant(0.9)], weights=weights, combine=combine)
    assert ensemble.score([trajectory(), trajectory([])]) == [[pytest.approx(expected)] * 3, []]


unit = st.floats(0, 1)


@given(
    st.lists(st.tuples(unit, st.floats(0.01, 1e6)), min_size=1, max_size=5), st.sampled_from(["mean", "geometric_mean"])
)
def test_a_mean_lies_between_its_members(members: list[tuple[float, float]], combine: Any) -> None:
    ensemble = Ensemble([constant(v) for v, _ in members], weights=[w for _, w in members], combine=combine)
    ((value, *_),) = ensemble.score([trajectory()])
    assert min(v for v, _ in members) - 1e-9 <= value <= max(v for v, _ in members) + 1e-9
    assert 0 <= value <= 1


class Counting(FakeScorer):
    aggregation = "min"

    def score(self, trajectories: Sequence[Trajectory]) -> Scores:
        return Scores(super().score(trajectories), tokens=5)


class Lengthy(FakeScorer):
    inline = False


def test_tokens_add_up_and_shared_habits_stay() -> None:
    both = Ensemble([Counting(), Counting()])
    assert both.score([trajectory()]).tokens == 10
    assert both.aggregation == "min"
    assert Ensemble([Counting(), FakeScorer()]).aggregation is None
    assert Ensemble([Counting(), FakeScorer()], aggregation="mean").aggregation == "mean"
    assert both.inline
    assert not Ensemble([Counting(), Lengthy()]).inline, "one that takes its time takes a thread for all"


@pytest.mark.parametrize(
    ("members", "options", "says"),
    [
        ([], {}, "at least one scorer"),
        ([FakeScorer()], {"weights": [1, 2]}, "ensemble of 1 needs as many weights"),
        ([FakeScorer()], {"weights": [0]}, "not all zero"),
        ([FakeScorer()], {"weights": [-1]}, "none negative"),
        ([FakeScorer()], {"weights": [math.nan]}, "none negative"),
        ([FakeScorer()], {"weights": [1], "combine": "min"}, "no use for weights"),
        ([FakeScorer()], {"weights": [1], "combine": "max"}, "no use for weights"),
        ([FakeScorer()], {"weights": [math.inf]}, "as many weights"),
        ([FakeScorer()], {"combine": "median"}, "unknown combination 'median': choose from mean"),
    ],
)
def test_what_makes_no_ensemble(members: list[Scorer], options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        Ensemble(members, **options)


def test_an_ensemble_reads_as_far_as_all_its_members_do() -> None:
    class Brief(FakeScorer):
        warnings = ("it is brief",)

        def score(self, trajectories: Sequence[Trajectory]) -> Scores:
            return Scores((steps[:2] for steps in super().score(trajectories)), unread="it reads 2 steps")

    both = Ensemble([constant(0.2), Brief(lambda _: 0.6), Brief(lambda _: 1.0)])
    found = both.score([trajectory(), trajectory(["One."])])
    assert [list(row) for row in found] == [pytest.approx([0.6, 0.6]), pytest.approx([0.6])]
    assert found.unread == "it reads 2 steps; it reads 2 steps"
    assert both.warnings == ("it is brief",)
    assert Ensemble([constant(0.2)]).score([trajectory()]).unread is None


def test_a_broken_member_is_named() -> None:
    class Short(FakeScorer):
        def score(self, trajectories: Sequence[Trajectory]) -> Sequence[Sequence[float]]:
            return [steps[:-1] for steps in super().score(trajectories)]

    with pytest.raises(ScorerError, match=r"scorer Short returned \[2\] scores for \[3\] steps"):
        Ensemble([FakeScorer(), Short()]).score([trajectory()])
    with pytest.raises(ScorerError, match="scorer FakeScorer returned nan"):
        Ensemble([constant(math.nan)]).score([trajectory()])


class TestEnsemble(ScorerConformance):
    def make_scorer(self) -> Scorer:
        return Ensemble([FakeScorer(), FakeScorer(lambda text: len(text) / 100)], weights=[2, 1])


class TestVerifier(ScorerConformance):
    def make_scorer(self) -> Scorer:
        return Verifier(ends_with, lambda _: "good.")


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_a_member_whose_scores_are_none_is_named(value: float) -> None:
    with pytest.raises(ScorerError, match=rf"scorer FakeScorer returned {value}: scores are numbers in \[0, 1\]"):
        Ensemble([FakeScorer(), constant(value)]).score([trajectory()])
