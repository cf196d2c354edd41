"""What a call may say: per call or for all calls of a searcher, checked, and listed where people look."""

from __future__ import annotations

import inspect
import math
import pickle
from typing import Any

import pytest

from tts_search import BestOfN, Sampling, Searcher, asearch, search
from tts_search.core.budget import Usage
from tts_search.core.tree import Tree
from tts_search.embedded.puzzles import held_out
from tts_search.errors import InvalidInputError
from tts_search.export import from_json, to_json
from tts_search.options import DEFAULTS, Options
from tts_search.testing import FakeGenerator, FakeScorer, run_search


def test_every_option_has_a_default_and_stands_in_every_signature() -> None:
    assert list(DEFAULTS) == list(Options.__annotations__)
    for function in (search, asearch, Searcher.search, Searcher.asearch, Searcher.search_many, Searcher.asearch_many):
        parameters = inspect.signature(function).parameters
        assert {name: parameters[name].default for name in DEFAULTS} == dict(DEFAULTS)
        assert inspect.Parameter.VAR_KEYWORD not in {p.kind for p in parameters.values()}
        for name in DEFAULTS:
            assert f"`{name}`" in (function.__doc__ or "")
    assert set(DEFAULTS) <= set(inspect.signature(Searcher).parameters)


def test_a_call_goes_before_the_searchers_defaults() -> None:
    generator = FakeGenerator(close=0.0, sampling=Sampling(top_k=7))
    options: dict[str, Any] = {
        "max_tokens": 30,
        "answer_tokens": 9,
        "strategy": "single",
        "sampling": {"temperature": 0.3},
    }
    with Searcher(generator=generator, scorer=FakeScorer(), **options) as searcher:
        searcher.search("Why?")
        assert generator.requests[0].sampling == Sampling(temperature=0.3, top_k=7)
        assert generator.requests[0].max_tokens == 30
        assert generator.requests[-1].max_tokens == 9
        generator.requests.clear()
        sampled = Sampling(temperature=1.0, min_p=0.1, repetition_penalty=1.05)
        result = searcher.search("Why?", effort="low", max_tokens=40, answer_tokens=8, sampling=sampled)
        assert len(result.candidates) == 2, "an effort goes before a default strategy"
        assert generator.requests[0].sampling == sampled
        assert (generator.requests[0].max_tokens, generator.requests[-1].max_tokens) == (40, 8)
        assert all(step.text.endswith("a") for step in searcher.search("Why?", step_rule="a").steps)
        assert searcher.search("Why?", keep_tree=False).tree is None
        assert searcher.search("Why?", aggregation="min").score == min(
            s.score or 0 for s in searcher.search("Why?").steps
        )


def test_a_system_message_stands_in_front_and_the_question_stays_the_users() -> None:
    asked: list[Any] = []

    class Asked(FakeGenerator):
        @property
        def tokenizer(self) -> Any:
            tokenizer = super().tokenizer
            render = tokenizer.render
            tokenizer.render = lambda messages: asked.append(messages) or render(messages)
            return tokenizer

    with Searcher(generator=Asked(), scorer=FakeScorer()) as searcher:
        result = searcher.search("Why?", strategy="single", system="Be brief.")
    assert asked == [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]]
    assert result.question == "Why?"
    assert result.tree is not None
    assert result.tree.question == "Why?"


def test_text_parts_are_text_and_other_parts_are_refused_by_name() -> None:
    parts = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]
    with Searcher(generator=FakeGenerator(), scorer=FakeScorer()) as searcher:
        one = searcher.search([{"role": "user", "content": parts}], strategy="single")
        two = searcher.search([{"role": "user", "content": "Why?"}], strategy="single")
        assert (one.answer, one.thinking) == (two.answer, two.thinking)
        with pytest.raises(InvalidInputError, match="type 'image_url' cannot be read"):
            searcher.search([{"role": "user", "content": [*parts, {"type": "image_url", "image_url": {}}]}])


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": math.nan},
        {"temperature": -1},
        {"temperature": math.inf},
        {"temperature": "hot"},
        {"top_p": 0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"top_k": 2.5},
        {"min_p": 1},
        {"min_p": -0.1},
        {"repetition_penalty": 0},
        {"temperature": True},
    ],
)
def test_settings_out_of_their_range_are_refused_by_name(wrong: dict[str, Any]) -> None:
    (name, value), *_ = wrong.items()
    with pytest.raises(InvalidInputError, match=f"{name} must be .*got"):
        Sampling(**wrong)
    with Searcher(generator=FakeGenerator(), scorer=FakeScorer()) as searcher:
        with pytest.raises(InvalidInputError, match=f"{name} must be .*got"):
            searcher.search("Why?", sampling=wrong)  # pyright: ignore[reportArgumentType]
        with pytest.raises(InvalidInputError, match="sampling is a Sampling, or a dict with temperature"):
            searcher.search("Why?", sampling={"heat": 1})
    del value


def test_a_result_travels_without_its_tokenizer() -> None:
    with Searcher() as searcher:
        result = searcher.search(held_out(1)[0].question, strategy=BestOfN(n=4))
    packed = pickle.dumps(result)
    assert len(packed) < 100_000
    again = pickle.loads(packed)
    assert again == result
    assert isinstance(again.tree, Tree)
    assert result.tree is not None
    assert [again.tree.split(node) for node in again.tree] == [result.tree.split(node) for node in result.tree]
    assert [node.step_scores for node in again.tree] == [node.step_scores for node in result.tree]
    assert to_json(again) == to_json(result)
    assert pickle.loads(pickle.dumps(from_json(to_json(result)))).answer == result.answer


def test_a_tree_of_eight_hundred_steps_travels_too() -> None:
    result = run_search(FakeGenerator(step=0.9, close=0.0), BestOfN(n=1), scorer=FakeScorer(), max_tokens=3000)
    deep = run_search(FakeGenerator(step=0.9, close=0.0), _deep, scorer=FakeScorer(), max_tokens=3000)
    for one in (result, deep):
        again = pickle.loads(pickle.dumps(one))
        assert [node.token_ids for node in again.tree] == [node.token_ids for node in one.tree or ()]
    assert deep.tree is not None
    assert max(node.depth for node in deep.tree) > 800


def _deep(tree: Tree) -> Any:
    from tts_search import Expand

    grown = [tree.root]
    while grown:
        (grown,) = yield [Expand(grown[0], max_tokens=2)]


def test_where_nothing_scores_no_candidate_has_a_score() -> None:
    with Searcher(generator=FakeGenerator(), scorer=None) as searcher:
        result = searcher.search("Why?", strategy=BestOfN(n=3))
    assert [candidate.score for candidate in result.candidates] == [None] * 3
    assert result.score is None


def test_an_endless_search_spends_its_budget() -> None:
    with Searcher(max_tokens=96, answer_tokens=32) as searcher:
        for budget in (600, 3000):
            endless: list[Any] = [{"strategy": "best_first"}, {"strategy": BestOfN(n=4), "repeat": True}]
            for options in endless:
                usage: Usage = searcher.search(held_out(1)[0].question, budget=budget, **options).usage
                assert 0.95 * budget <= usage.sampled_tokens <= budget
