r"""The last step of a path, for scorers that read text: it ends where the thinking, or the whole response, ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.searches import scripted
from tts_search import BestOfN, Expand, Plan, Searcher, SearchResult, Tree, Until
from tts_search.core.tree import Trajectory
from tts_search.scorers.combine import Ensemble
from tts_search.scorers.engine_sprm import EngineSPRM
from tts_search.sprm.config import SPRMConfig
from tts_search.testing import FakeGenerator, FakeScorer
from tts_search.testing.fakes import CLOSE, END, OPEN, STEP

HEAD = SPRMConfig(hidden_size=1)


def searched(*tokens: int, thinks: bool = True, scorer: Any = None, **options: Any) -> SearchResult:
    head = HEAD if isinstance(scorer, EngineSPRM | Ensemble) else None
    generator = FakeGenerator(thinks=thinks, script=scripted(*tokens, thinks=thinks), head_config=head)
    options = {"strategy": "single", "step_rule": ".\n\n", **options}
    with Searcher(generator=generator, scorer=scorer or FakeScorer()) as searcher:
        return searcher.search("Why?", **options)


@pytest.mark.parametrize(
    ("tokens", "thinks", "steps"),
    [
        ((97, STEP, 98, END), False, ["a.\n\n", "b"]),
        ((97, END), False, ["a"]),
        ((97, STEP, END), False, ["a.\n\n"]),
        ((97, STEP, 10, 32, END), False, ["a.\n\n"]),  # white space is no step
        ((97, STEP, 98, CLOSE, 99, STEP, END), True, ["a.\n\n", "b"]),
        ((97, 10, CLOSE, 99, END), True, ["a\n"]),
        ((97, STEP, 98, END, CLOSE, 99), True, ["a.\n\n", "b"]),  # the end of text closes the thinking
        ((97, STEP, CLOSE, 99, END), True, ["a.\n\n"]),
        ((CLOSE, 99, END), True, []),
        ((OPEN, 97, CLOSE, 99, END), True, ["<think>a"]),
    ],
)
def test_what_is_complete_ends_its_last_step(tokens: tuple[int, ...], thinks: bool, steps: list[str]) -> None:
    result = searched(*tokens, thinks=thinks)
    assert [step.text for step in result.steps] == steps
    assert all(step.score is not None for step in result.steps)
    assert (result.score is None) == (not steps)


@pytest.mark.parametrize("scorer", [EngineSPRM(), Ensemble([EngineSPRM(), FakeScorer()])])
def test_a_head_reads_step_tokens_alone(scorer: Any) -> None:
    result = searched(97, STEP, 98, CLOSE, 99, END, scorer=scorer)
    assert [step.text for step in result.steps] == ["a.\n\n"]
    result = searched(97, CLOSE, 99, END, scorer=scorer)
    assert (result.steps, result.score) == ((), 0.0), "as in the released code"
    assert "found no step" in result.warnings[0]


def test_the_answer_counts() -> None:
    """Two responses that differ in their last paragraph alone are told apart by it."""

    def one(prefix: tuple[int, ...], seed: int) -> int:
        return (97, STEP, ord("0") + seed % 10, END)[len(prefix) - 4]

    generator = FakeGenerator(thinks=False, script=one)
    judge = FakeScorer(lambda step: float(step in ("7", "a.\n\n")))
    with Searcher(generator=generator, scorer=judge, step_rule=".\n\n") as searcher:
        result = searcher.search("Why?", strategy=BestOfN(n=64))
    assert len({candidate.score for candidate in result.candidates}) == 2
    assert result.answer == "a.\n\n7"


def test_a_response_without_a_step_token_does_not_lose_to_anything() -> None:
    def one(prefix: tuple[int, ...], seed: int) -> int:
        return ((97, END) if seed % 2 else (98, STEP, 98, END))[len(prefix) - 4]

    judge = FakeScorer(lambda step: 0.9 if "a" in step else 0.2)
    with Searcher(generator=FakeGenerator(thinks=False, script=one), scorer=judge, step_rule=".\n\n") as searcher:
        result = searcher.search("Why?", strategy=BestOfN(n=8))
    assert (result.answer, result.score, result.warnings) == ("a", pytest.approx(0.9), ())


def test_a_rule_that_finds_nothing_is_said() -> None:
    result = searched(97, 98, END, thinks=False)
    assert len(result.warnings) == 1
    assert "Contains(text='.\\n\\n') found no step" in result.warnings[0]
    assert "step_rule=" in result.warnings[0]
    assert json.loads(result.to_json())["warnings"] == list(result.warnings)
    assert result.step_rule == "Contains(text='.\\n\\n')"
    assert searched(97, STEP, 98, END, thinks=False).warnings == ()
    assert searched(97, CLOSE, 98, STEP, END).warnings, "a step in the answer is none"


def test_a_path_that_is_cut_off_is_judged_as_it_stands() -> None:
    result = searched(97, thinks=False, max_tokens=5, answer_tokens=3)
    assert [step.text for step in result.steps] == ["aaaaa"]
    assert result.score == result.steps[0].score != 0
    assert [step.text for step in searched(97, STEP, 98, thinks=False, max_tokens=5).steps] == ["a.\n\n"]


def test_what_was_not_scored_has_no_score() -> None:
    result = searched(END, thinks=False)
    assert (result.score, result.candidates[0].score) == (None, None)


@given(st.lists(st.sampled_from([97, 32, STEP, CLOSE, END]), min_size=1, max_size=12), st.booleans(), st.integers(1, 5))
def test_steps_are_all_of_the_thinking(tokens: list[int], thinks: bool, chunk: int) -> None:
    """However a path is cut into nodes: its steps are its text up to the last of them, and hardly anything follows."""

    def chunks(tree: Tree) -> Plan:
        node = tree.root
        while not node.ended:
            ((node,),) = yield [Expand(node, until=Until.THOUGHT, max_tokens=chunk)]

    seen: list[Trajectory] = []

    class Watching(FakeScorer):
        def score(self, trajectories: Sequence[Trajectory]) -> Sequence[Sequence[float]]:
            seen.extend(trajectories)
            return super().score(trajectories)

    written = (*tokens, CLOSE, END) if thinks else (*(t for t in tokens if t != CLOSE), END)
    result = searched(*written, thinks=thinks, scorer=Watching(), strategy=chunks)
    joined = "".join(step.text for step in result.steps)
    assert result.thinking.startswith(joined)
    assert not result.thinking[len(joined) :].replace(".", "").strip(), "but white space, and step tokens of a run"
    assert all(step.text.strip() for step in result.steps)
    whole = searched(*written, thinks=thinks)
    assert [(step.text) for step in result.steps] == [(step.text) for step in whole.steps]
