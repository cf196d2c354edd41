"""Generators, scorers and strategies that break their contract are named, with what they did."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.searches import Wild
from tts_search import Completion, Expand, Plan, Request, Tree, Until
from tts_search.core.protocols import Strategy
from tts_search.core.tree import Trajectory
from tts_search.errors import GeneratorError, ScorerError, StrategyError
from tts_search.testing import FakeGenerator, FakeScorer, run_search


class Broken(FakeGenerator):
    def __init__(self, change: Callable[[list[Completion]], Any]) -> None:
        super().__init__()
        object.__setattr__(self, "change", change)

    async def generate(self, request: Request) -> list[Completion]:
        return self.change(await super().generate(request))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda cs: cs[:-1], "3 completions for 4 seeds"),
        (lambda cs: [replace(c, token_ids=()) for c in cs], "0 tokens"),
        (lambda cs: [replace(c, sampled_tokens=10**6) for c in cs], "sampled 1000000"),
        (lambda cs: [replace(c, logprobs=c.logprobs[1:]) for c in cs], "log-probabilities"),
        (lambda cs: [replace(c, scores=(0.0, *(c.scores or ()))) for c in cs], "scores"),
        (lambda cs: [replace(c, logprobs=(math.nan,) * len(c.logprobs)) for c in cs], "NaN"),
        (lambda cs: [replace(c, token_ids=(*c.token_ids[:-1], 97)) for c in cs], "not a stop token"),
        (lambda cs: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_a_generator_that_breaks_its_contract(change: Callable[[list[Completion]], Any], says: str) -> None:
    with pytest.raises(GeneratorError, match=says):
        run_search(Broken(change))


class BadScorer:
    def __init__(self, score: Callable[[Trajectory], Any]) -> None:
        self._score = score

    def score(self, trajectories: Sequence[Trajectory]) -> Any:
        return [self._score(t) for t in trajectories]


@pytest.mark.parametrize(
    ("score", "says"),
    [
        (lambda t: [], "0 scores for"),
        (lambda t: [math.nan] * len(t.step_ends), "returned nan"),
        (lambda t: [1.5] * len(t.step_ends), "returned 1.5 for step 1"),
        (lambda t: [-0.1] * len(t.step_ends), "returned -0.1"),
        (lambda t: {}["x"], "raised KeyError"),
    ],
)
def test_a_scorer_that_breaks_its_contract(score: Callable[[Trajectory], Any], says: str) -> None:
    with pytest.raises(ScorerError, match=says):
        run_search(FakeGenerator(), scorer=BadScorer(score))


def test_nan_from_the_head_is_named() -> None:
    def poison(completions: list[Completion]) -> list[Completion]:
        return [replace(c, scores=(math.nan,) * len(c.token_ids)) for c in completions]

    with pytest.raises(ScorerError, match="SPRM head gave nan for step 1"):
        run_search(Broken(poison))


def test_a_generator_without_a_head_says_what_to_do() -> None:
    with pytest.raises(ScorerError, match="pass another scorer"):
        run_search(FakeGenerator(scores=False))


def test_a_text_scorer_sees_the_steps() -> None:
    result = run_search(FakeGenerator(), scorer=FakeScorer(lambda text: min(1.0, len(text) / 100)))
    assert all(s.score == min(1.0, len(s.text) / 100) for s in result.steps)


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        (lambda tree: iter(()), "must be a generator function"),
        (Wild(((0, 0, Until.STEP, None),)), "n=0"),
        (Wild(((0, 1, Until.STEP, 0),)), "max_tokens=0"),
    ],
)
def test_a_strategy_that_breaks_its_contract(strategy: Strategy, says: str) -> None:
    with pytest.raises(StrategyError, match=says):
        run_search(FakeGenerator(), strategy)


def test_a_strategy_that_raises_or_never_ends() -> None:
    def raises(tree: Tree) -> Plan:
        yield [Expand(tree.root)]
        raise RuntimeError("lost")

    def never(tree: Tree) -> Plan:
        (nodes,) = yield [Expand(tree.root, until=Until.THOUGHT)]
        while True:
            yield [Expand(nodes[0])]

    with pytest.raises(StrategyError, match="RuntimeError: lost"):
        run_search(FakeGenerator(), raises)
    with pytest.raises(StrategyError, match="asked 1001 times for what cannot grow"):
        run_search(FakeGenerator(), never)
