"""Room and budget: what a context, a limit and a cap leave for the thinking, and for the answer behind it."""

from typing import Any

import pytest

from tests.searches import scripted
from tts_search import BestOfN, Expand, Plan, Repeat, StepBeamSearch, Tree, Until
from tts_search.core.result import StopReason
from tts_search.core.tree import Ending
from tts_search.errors import InvalidInputError
from tts_search.sprm.config import SPRMConfig
from tts_search.testing import FakeGenerator, FakeScorer, run_search
from tts_search.testing.fakes import CLOSE, END, STEP

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


def test_what_early_finishers_leave_goes_to_those_cut_off() -> None:
    generator = FakeGenerator(close=0.0, step=0.1)  # no path ends by itself
    spent = run_search(generator, BestOfN(n=3), budget=100, max_tokens=1000).usage
    # A quarter is held back, and half of that may bring the best path to its end: here it never gets there.
    assert spent.sampled_tokens - spent.answer_tokens == 75 + 12

    def one_ends(prefix: tuple[int, ...], seed: int) -> int:
        return CLOSE if seed % 2 and CLOSE not in prefix else 97

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


def test_many_rounds_that_grow_are_no_endless_strategy() -> None:
    def patient(tree: Tree) -> Plan:
        for _ in range(1100):
            yield [Expand(tree.root, max_tokens=1)]

    tree = run_search(FakeGenerator(), patient).tree
    assert tree is not None
    assert len(tree.children(tree.root)) == 1100


def test_where_nothing_can_grow_the_answer_comes_straight_from_the_question() -> None:
    head = SPRMConfig(hidden_size=1, readout="step")  # reading a score costs a token, and one is all there is
    result = run_search(FakeGenerator(head_config=head), BestOfN(n=3), max_tokens=1)
    assert result.stop_reason is StopReason.LENGTH
    assert result.usage.sampled_tokens == result.usage.answer_tokens > 0
