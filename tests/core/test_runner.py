"""The runner with fakes: the cap, the same tree from the same seed, the endings of paths, the answer."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.searches import Watched, Wild, scripted
from tts_search import BestOfN, Expand, Plan, Tree, Until
from tts_search.core.protocols import Strategy
from tts_search.core.result import StopReason
from tts_search.core.tree import Ending
from tts_search.errors import InvalidInputError
from tts_search.scorers.aggregate import geometric_mean
from tts_search.selection.selectors import SELECTORS
from tts_search.sprm.config import SPRMConfig
from tts_search.testing import FakeGenerator, run_search
from tts_search.testing.fakes import CLOSE, END, STEP

wild = st.builds(
    Wild,
    st.lists(
        st.tuples(
            st.integers(0, 50), st.integers(1, 5), st.sampled_from(Until), st.one_of(st.none(), st.integers(1, 30))
        ),
        max_size=8,
    ).map(tuple),
)
strategies = st.one_of(st.builds(BestOfN, n=st.integers(1, 40)), wild)
generators = st.builds(
    FakeGenerator,
    thinks=st.booleans(),
    step=st.floats(0, 0.4),
    close=st.floats(0, 0.3),
    end=st.floats(0, 0.3),
    ends_anywhere=st.booleans(),
    context_tokens=st.integers(8, 400),
    head_config=st.sampled_from([None, SPRMConfig(hidden_size=1), SPRMConfig(hidden_size=1, readout="step")]),
)


@given(generators, strategies, st.sampled_from(sorted(SELECTORS)), st.integers(1, 600), st.integers(1, 100))
@settings(max_examples=400)
def test_never_one_token_over_the_budget(
    generator: FakeGenerator, strategy: Strategy, selector: str, budget: int, answer_tokens: int
) -> None:
    result = run_search(generator, strategy, selector=selector, budget=budget, answer_tokens=answer_tokens)
    tree = result.tree
    assert tree is not None
    assert result.usage.sampled_tokens <= budget
    assert result.usage.answer_tokens <= result.usage.sampled_tokens
    assert result.usage.sampled_tokens >= sum(len(n.token_ids) - n.forced_tokens for n in tree)
    assert len(tree.prompt_ids) + max(n.length for n in tree) <= generator.context_tokens
    least = 2 if generator.head_config and generator.head_config.readout == "step" else 1
    assert all(request.max_tokens >= least for request in generator.requests), "a score at the step costs one more"


@given(generators, strategies, st.sampled_from(sorted(SELECTORS)), st.integers(0, 5))
@settings(max_examples=200)
def test_equal_seeds_give_equal_trees_whatever_comes_first(
    generator: FakeGenerator, strategy: Strategy, selector: str, seed: int
) -> None:
    prompt = run_search(generator, strategy, selector=selector, budget=300, seed=seed)
    late = run_search(replace(generator, delay_seconds=0.001), strategy, selector=selector, budget=300, seed=seed)
    assert [n.token_ids for n in prompt.tree or ()] == [n.token_ids for n in late.tree or ()]
    assert (prompt.answer, prompt.chosen, prompt.score) == (late.answer, late.chosen, late.score)


@given(generators, strategies)
@settings(max_examples=200)
def test_trees_are_trees_and_steps_are_lossless(generator: FakeGenerator, strategy: Strategy) -> None:
    tree = run_search(generator, strategy, budget=400).tree
    assert tree is not None
    for node in tree.nodes[1:]:
        assert node.parent is not None
        parent = tree.nodes[node.parent]
        assert node.parent < node.index
        assert node in tree.children(parent)
        assert node.depth == parent.depth + 1
        assert node.length == parent.length + len(node.token_ids) == len(tree.token_ids(node))
        assert len(node.step_scores) == len(node.step_ends)
        ends, state = tree.segmenter.scan(tree.root.state, tree.token_ids(node))
        assert (tuple(ends), state) == (node.step_ends, node.state)
        trajectory = tree.trajectory(node)
        assert "".join(trajectory.steps) == trajectory.decode(trajectory.token_ids[: ends[-1]] if ends else ())


def test_different_seeds_differ() -> None:
    one, two = (run_search(FakeGenerator(), seed=seed).tree for seed in (0, 1))
    assert one is not None
    assert two is not None
    assert one.token_ids(one.nodes[1]) != two.token_ids(two.nodes[1])


def test_best_of_n_answers_from_the_best_thinking() -> None:
    result = run_search(FakeGenerator(), BestOfN(n=8))
    assert len(result.candidates) == 8
    assert result.chosen is not None
    assert result.score == max(c.score or 0.0 for c in result.candidates) == result.candidates[result.chosen].score
    assert [c.answer is not None for c in result.candidates].count(True) == 1
    assert result.score == pytest.approx(geometric_mean([s.score or 0 for s in result.steps]))
    assert result.stop_reason is StopReason.COMPLETED


@pytest.mark.parametrize("selector", ["majority", "weighted", "logprob"])
def test_selectors_over_answers_answer_every_path_and_say_what_it_cost(selector: str) -> None:
    result = run_search(FakeGenerator(), BestOfN(n=6), selector=selector)
    assert all(c.answer is not None for c in result.candidates)
    one = run_search(FakeGenerator(), BestOfN(n=6))
    assert result.usage.answer_tokens > one.usage.answer_tokens > 0
    assert (
        result.usage.sampled_tokens - result.usage.answer_tokens == one.usage.sampled_tokens - one.usage.answer_tokens
    )


def test_a_model_without_tags_gives_whole_responses() -> None:
    result = run_search(FakeGenerator(thinks=False), BestOfN(n=3))
    assert result.usage.answer_tokens == 0
    assert result.answer == result.thinking.strip()
    assert result.tree is not None
    assert all(leaf.ending is Ending.END for leaf in result.tree.leaves())


def test_a_model_that_never_closes_its_thinking_is_closed_by_force() -> None:
    result = run_search(FakeGenerator(script=scripted(97, STEP, 98)), BestOfN(n=2), max_tokens=20)
    assert result.stop_reason is StopReason.LENGTH
    assert result.tree is not None
    forced = result.tree.nodes[-1]
    assert forced.token_ids[: forced.forced_tokens] == (ord("\n"), CLOSE)
    assert result.thinking == "a.\n\n" + "b" * 18 + "\n"
    assert result.answer == "b" * 40
    assert [s.text for s in result.steps] == ["a.\n\n"]


def test_a_model_that_stops_at_once_is_an_outcome() -> None:
    for thinks in (True, False):
        result = run_search(FakeGenerator(thinks=thinks, script=scripted(END)), BestOfN(n=2))
        assert result.stop_reason is StopReason.EMPTY
        assert (result.answer, result.steps, result.score) == ("", (), 0.0)


def test_an_end_of_text_inside_the_thinking_part_closes_it() -> None:
    result = run_search(FakeGenerator(script=scripted(97, STEP, END, CLOSE, 98, END)), BestOfN(n=1))
    assert result.tree is not None
    assert result.tree.nodes[1].ending is Ending.THOUGHT
    assert END not in result.tree.nodes[1].token_ids


def test_a_run_of_step_tokens_ends_one_step() -> None:
    generator = FakeGenerator(script=scripted(97, STEP, STEP, STEP, 98, STEP, CLOSE))
    result = run_search(generator, Wild(((0, 1, Until.STEP, None), (1, 1, Until.STEP, None))))
    assert result.tree is not None
    first, second = result.tree.nodes[1], result.tree.nodes[3]
    assert (first.token_ids, first.ending) == ((97, STEP), Ending.STEP)
    assert (second.token_ids, second.ending) == ((STEP, STEP, 98, STEP), Ending.STEP)


# The answer.


@pytest.mark.parametrize(
    ("thought", "forced"),
    [((97,), b"\n"), ((97, 10), b""), ((97, 10, 98), b"\n"), ((97, STEP), b"")],
)
def test_a_thought_is_closed_on_a_line_of_its_own(thought: tuple[int, ...], forced: bytes) -> None:
    generator = FakeGenerator(script=scripted(*thought))
    result = run_search(generator, BestOfN(n=1), max_tokens=len(thought))
    assert result.tree is not None
    final = result.tree.nodes[-1]
    assert final.token_ids[: final.forced_tokens] == (*forced, CLOSE)


def test_an_empty_thought_is_closed_without_a_line() -> None:
    generator = FakeGenerator(script=scripted(END, 98, END))
    result = run_search(generator, BestOfN(n=1))
    assert result.tree is not None
    final = result.tree.nodes[-1]
    assert (final.token_ids[: final.forced_tokens], final.parent) == ((CLOSE,), 1)


def test_an_answer_is_asked_for_once_and_an_ended_response_is_its_own() -> None:
    plain = FakeGenerator(thinks=False, script=scripted(97, END, thinks=False))
    result = run_search(plain, BestOfN(n=3), selector="majority")
    assert result.tree is not None
    assert len(result.tree) == 4
    assert [c.answer for c in result.candidates] == ["a"] * 3
    closed = run_search(FakeGenerator(script=scripted(97, CLOSE, 98, END)), BestOfN(n=3), selector="majority")
    assert closed.tree is not None
    assert len(closed.tree) == 1 + 3 + 3
    assert [c.answer for c in closed.candidates] == ["b"] * 3


def test_a_candidate_says_what_its_whole_path_is_worth() -> None:
    def steps(tree: Tree) -> Plan:
        ((node,),) = yield [Expand(tree.root)]
        yield [Expand(node, until=Until.THOUGHT)]

    generator = Watched(script=scripted(97, STEP, 98, CLOSE, ord("B"), ord("."), END))
    for selector in ("best", "logprob"):
        (candidate,) = run_search(generator, steps, selector=selector).candidates
        tokens = (97, STEP, 98, CLOSE, ord("B"), ord("."), END)
        assert candidate.mean_logprob == pytest.approx(-sum(tokens) / 1000 / len(tokens))
        assert (candidate.answer, candidate.vote) == ("B.", "B"), "the vote is what the answer comes down to"
    nothing = run_search(Watched(script=scripted(END)), BestOfN(n=1), max_tokens=1).candidates[0]
    assert nothing.mean_logprob == pytest.approx(-END / 1000)


def test_steps_are_those_of_the_thinking_alone() -> None:
    result = run_search(FakeGenerator(script=scripted(97, STEP, CLOSE, 98, STEP, 99, END)), BestOfN(n=1))
    assert [step.text for step in result.steps] == ["a.\n\n"]
    assert result.answer == "b.\n\nc"


def test_a_choice_is_one_of_the_candidates() -> None:
    for wrong in (2, -1):
        with pytest.raises(InvalidInputError, match=f"chose {wrong} of 2 candidates"):
            run_search(FakeGenerator(), BestOfN(n=2), selector=lambda candidates, wrong=wrong: wrong)


def test_a_result_says_how_it_came_about() -> None:
    result = run_search(FakeGenerator(name="model"), BestOfN(n=3), selector="logprob", seed=5, budget=999)
    assert (result.strategy, result.selector, result.model) == ("BestOfN(n=3)", "logprob", "model")
    assert (result.seed, result.budget, result.question) == (5, 999, "Why?")
    assert result.chosen is not None
    chosen = result.candidates[result.chosen]
    assert result.answer == chosen.answer
    assert result.tree is not None
    assert result.score == chosen.score == result.tree.nodes[chosen.node].value
