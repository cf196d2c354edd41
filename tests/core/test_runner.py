"""The runner with fakes: the cap, the accounts, the contracts, the ways a search can end."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.searches import Watched, Wild, scripted
from tts_search import BestOfN, Expand, Plan, Repeat, StepBeamSearch, Tree, Until
from tts_search.core.protocols import Strategy
from tts_search.core.result import StopReason
from tts_search.core.tree import Ending
from tts_search.errors import InvalidInputError
from tts_search.scorers.aggregate import geometric_mean
from tts_search.selection.selectors import SELECTORS
from tts_search.sprm.config import SPRMConfig
from tts_search.testing import FakeGenerator, FakeScorer, run_search
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
    assert result.score == max(c.score for c in result.candidates) == result.candidates[result.chosen].score
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


def test_what_early_finishers_leave_goes_to_those_cut_off() -> None:
    generator = FakeGenerator(close=0.0, step=0.1)  # no path ends by itself
    spent = run_search(generator, BestOfN(n=3), budget=100, max_tokens=1000).usage
    # A quarter is held back, and half of that may bring the best path to its end: here it never gets there.
    assert spent.sampled_tokens - spent.answer_tokens == 75 + 12

    def one_ends(prefix: tuple[int, ...], seed: int) -> int:
        return CLOSE if seed % 2 else 97

    mixed = run_search(FakeGenerator(script=one_ends), BestOfN(n=8), budget=400, max_tokens=1000)
    assert mixed.stop_reason is StopReason.BUDGET
    assert mixed.usage.sampled_tokens > 300


def test_a_whole_response_without_thinking_releases_what_is_held_back() -> None:
    def spent(*, thinks: bool) -> int:
        generator = FakeGenerator(thinks=thinks, script=scripted(*[97] * 8, CLOSE if thinks else END, thinks=thinks))
        usage = run_search(generator, Repeat(BestOfN(n=1)), budget=400, max_tokens=50, answer_tokens=100).usage
        return usage.sampled_tokens - usage.answer_tokens

    assert 400 - 9 < spent(thinks=False) <= 400
    assert 300 - 9 < spent(thinks=True) <= 300


def test_without_thinking_all_that_is_held_back_may_end_the_best_path() -> None:
    generator = FakeGenerator(thinks=False, script=scripted(*4 * [*[97] * 10, STEP], END, thinks=False))
    result = run_search(generator, StepBeamSearch(width=2, branching=4), budget=160, max_tokens=100, answer_tokens=100)
    assert result.answer == "\n\n".join(
        4 * [10 * "a" + "."]
    )  # of 120 tokens no path ends; 40 end the best one, half would not


def test_budget_is_a_reason_to_stop() -> None:
    assert run_search(FakeGenerator(close=0.0), budget=50).stop_reason is StopReason.BUDGET
    assert run_search(FakeGenerator(), budget=100_000).stop_reason is StopReason.COMPLETED


def test_the_context_leaves_room_for_the_answer() -> None:
    result = run_search(FakeGenerator(close=0.0, step=0.1, context_tokens=50), BestOfN(n=2), max_tokens=10_000)
    assert result.stop_reason is StopReason.LENGTH
    assert result.usage.answer_tokens > 0


def test_a_question_longer_than_the_context_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"5 tokens long.*holds 6"):
        run_search(FakeGenerator(context_tokens=6))


# Room: what the context and the limits leave for the thinking, and for the answer behind it.


@pytest.mark.parametrize(
    ("context", "limits", "thinking", "answer"),
    [
        (45, {"answer_tokens": 1000}, 30, 8),  # of 40 tokens a quarter is the answer's, with its newline and its tag
        (45, {"answer_tokens": 4}, 36, 2),
        (45, {"answer_tokens": 4, "max_tokens": 20}, 20, 4),
        (445, {"answer_tokens": 60, "max_tokens": 1000}, 380, 58),
    ],
)
def test_the_context_is_shared_between_thinking_and_answer(
    context: int, limits: dict[str, Any], thinking: int, answer: int
) -> None:
    generator = FakeGenerator(script=scripted(97), context_tokens=context)
    result = run_search(generator, BestOfN(n=1), **limits)
    assert result.thinking == "a" * thinking + "\n"
    assert result.answer == "a" * answer
    assert result.stop_reason is StopReason.LENGTH


def test_two_tokens_of_room_are_the_least() -> None:
    assert run_search(FakeGenerator(context_tokens=7), BestOfN(n=1)).usage.sampled_tokens == 2
    with pytest.raises(InvalidInputError, match=r"5 tokens long.*holds 6"):
        run_search(FakeGenerator(context_tokens=6))


def test_a_path_has_its_room_however_it_is_cut() -> None:
    def to_the_end(tree: Tree) -> Plan:
        node = tree.root
        while True:
            ((*children,),) = yield [Expand(node, max_tokens=7)]
            if not children:
                return
            node = children[0]

    result = run_search(FakeGenerator(script=scripted(97)), to_the_end, max_tokens=20)
    assert result.tree is not None
    assert [node.length for node in result.tree] == [0, 7, 14, 20, 20 + 2 + 40]  # newline, closing tag, answer


@pytest.mark.parametrize(("least", "left"), [(None, 1), (SPRMConfig(hidden_size=1, readout="step"), 2)])
def test_the_last_room_is_used(least: SPRMConfig | None, left: int) -> None:
    def in_parts(tree: Tree) -> Plan:
        ((node,),) = yield [Expand(tree.root, max_tokens=20 - left)]
        yield [Expand(node)]

    result = run_search(FakeGenerator(script=scripted(97), head_config=least), in_parts, max_tokens=20)
    assert result.tree is not None
    assert len(result.tree.path(result.tree.nodes[2])) == 3, "what is left is enough for one more node"


def test_an_ending_at_the_very_limit_is_an_ending() -> None:
    closed = run_search(FakeGenerator(script=scripted(97, 97, CLOSE, 98, END)), BestOfN(n=1), max_tokens=3)
    assert (closed.stop_reason, closed.thinking, closed.answer) == (StopReason.COMPLETED, "aa", "b")


def test_a_step_at_the_very_limit_is_a_step() -> None:
    def two_tokens(tree: Tree) -> Plan:
        yield [Expand(tree.root, max_tokens=2)]

    tree = run_search(FakeGenerator(script=scripted(97, STEP)), two_tokens).tree
    assert tree is not None
    assert tree.nodes[1].ending is Ending.STEP


# A budget that is spent before any path has ended.


@pytest.mark.parametrize(
    ("selector", "answer_tokens", "thinking"),
    [
        ("best", 40, 75 + 12),  # a quarter is held back, half of it may bring the best path to its end
        ("best", 10, 90 + 5),  # no more than an answer may cost is held back
        ("majority", 10, 75 + 12),  # every path has an answer to pay for
    ],
)
def test_what_is_held_back_for_the_answer(selector: str, answer_tokens: int, thinking: int) -> None:
    generator = FakeGenerator(close=0.0, step=0.1)
    result = run_search(
        generator, BestOfN(n=3), budget=100, max_tokens=1000, selector=selector, answer_tokens=answer_tokens
    )
    assert result.usage.sampled_tokens - result.usage.answer_tokens == thinking
    assert result.stop_reason is StopReason.BUDGET


def test_the_best_path_goes_on_and_of_equals_the_oldest() -> None:
    def three(tree: Tree) -> Plan:
        yield [Expand(tree.root, 3, Until.THOUGHT, max_tokens=20)]

    def parent_of_the_last(scorer: FakeScorer, seed: int = 0) -> tuple[int | None, list[float]]:
        result = run_search(FakeGenerator(close=0.0, step=0.3), three, scorer=scorer, budget=100, seed=seed)
        assert result.tree is not None
        return result.tree.nodes[4].parent, [node.value for node in result.tree.nodes[1:4]]

    assert parent_of_the_last(FakeScorer(lambda _: 0.5)) == (1, [pytest.approx(0.5)] * 3)
    for seed in range(4):
        parent, values = parent_of_the_last(FakeScorer(), seed)
        assert parent == 1 + values.index(max(values))


def test_a_path_goes_on_from_its_end_and_no_further_than_its_room() -> None:
    def two_steps(tree: Tree) -> Plan:
        ((node,),) = yield [Expand(tree.root)]
        yield [Expand(node)]

    generator = FakeGenerator(script=scripted(*[97, STEP] * 2, 98))
    result = run_search(generator, two_steps, budget=1000, max_tokens=10)
    assert result.tree is not None
    assert [(node.parent, node.length) for node in result.tree.nodes[1:4]] == [(0, 2), (1, 4), (2, 10)]


def test_a_path_that_ended_is_enough() -> None:
    def one_ends(prefix: tuple[int, ...], seed: int) -> int:
        return CLOSE if len(prefix) > 8 and seed % 2 else 97

    for seed in range(4):
        result = run_search(FakeGenerator(script=one_ends), BestOfN(n=6), budget=200, max_tokens=1000, seed=seed)
        assert result.tree is not None
        ended = [node for node in result.tree if node.ending is Ending.THOUGHT]
        assert result.usage.answer_tokens > 0
        if ended:
            assert all(not result.tree.children(node) or node.ended for node in result.tree.nodes[1:])


def test_many_rounds_that_grow_are_no_endless_strategy() -> None:
    def patient(tree: Tree) -> Plan:
        for _ in range(1100):
            yield [Expand(tree.root, max_tokens=1)]

    tree = run_search(FakeGenerator(), patient).tree
    assert tree is not None
    assert len(tree.children(tree.root)) == 1100


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
