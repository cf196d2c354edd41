"""Ways to end a search before its strategy does: a sure leader, a function of the tree, the clock, a halt."""

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.searches import scripted
from tts_search import MCTS, BestOfN, Completion, Expand, Plan, Repeat, Request, StepBeamSearch, Tree, Until
from tts_search.core.result import StopReason
from tts_search.errors import InvalidInputError
from tts_search.testing import FakeGenerator, FakeScorer, run_search
from tts_search.testing.fakes import CLOSE, END, OPEN, STEP


def test_early_stop_at_a_sure_leader_saves_the_rest() -> None:
    generator, sure = FakeGenerator(), FakeScorer(lambda _: 0.95)
    result = run_search(generator, BestOfN(n=32, wave=4), scorer=sure, budget=4000, early_stop=0.1)
    assert result.stop_reason is StopReason.EARLY
    assert len(result.candidates) <= 4
    assert 0 < result.usage.saved_tokens <= 4000 - result.usage.sampled_tokens
    assert result.chosen is not None and result.candidates[result.chosen].answer is not None  # noqa: PT018
    unsure = run_search(generator, BestOfN(n=32, wave=4), scorer=sure, budget=4000, early_stop=0.01)
    assert (unsure.stop_reason, len(unsure.candidates)) == (StopReason.COMPLETED, 32)


@pytest.mark.parametrize("selector", ["majority", "weighted"])
def test_early_stop_of_a_decided_vote_changes_no_answer(selector: str) -> None:
    def often_a(prefix: tuple[int, ...], seed: int) -> int:
        return {CLOSE: 97 if seed % 4 else 98, 97: END, 98: END}.get(prefix[-1], CLOSE if prefix[-1] == STEP else STEP)

    generator = FakeGenerator(script=lambda p, s: 99 if p[-1] == 257 else often_a(p, s))
    full = run_search(generator, BestOfN(n=16, wave=2), selector=selector, scorer=FakeScorer())
    early = run_search(generator, BestOfN(n=16, wave=2), selector=selector, scorer=FakeScorer(), early_stop=0.0)
    assert early.stop_reason is StopReason.EARLY
    assert len(early.candidates) < len(full.candidates) == 16
    assert early.answer == full.answer


def test_a_function_of_the_tree_can_stop_any_search() -> None:
    result = run_search(FakeGenerator(), MCTS(until=Until.STEP), budget=5000, stop_when=lambda tree: len(tree) > 10)
    assert result.stop_reason is StopReason.EARLY
    assert result.tree is not None
    assert 10 < len(result.tree) <= 16
    with pytest.raises(InvalidInputError, match=r"stop_when=.*ZeroDivisionError"):
        run_search(FakeGenerator(), MCTS(until=Until.STEP), budget=500, stop_when=lambda tree: 1 / 0 > 0)


class Slow(FakeGenerator):
    async def generate(self, request: Request) -> list[Completion]:
        await asyncio.sleep(3600 if request.seeds[0] % 2 and len(request.stop_ids) > 1 else 0)
        return await super().generate(request)


def test_the_clock_ends_a_search_with_the_best_so_far() -> None:
    result = run_search(Slow(), StepBeamSearch(width=2, branching=4), seconds=0.2)
    assert result.stop_reason is StopReason.TIME
    assert result.chosen is not None and result.candidates[result.chosen].answer is not None  # noqa: PT018


def test_a_halt_from_another_thread_keeps_what_is_complete() -> None:
    def one_path_hangs(request: Request) -> float:
        return 3600 if request.seeds[0] % 2 else 0

    class Hanging(FakeGenerator):
        async def generate(self, request: Request) -> list[Completion]:
            await asyncio.sleep(one_path_hangs(request) if len(request.prefix) < 8 else 0)
            return await super().generate(request)

    class Single(BestOfN):
        def __call__(self, tree: Tree) -> Plan:
            yield [Expand(tree.root, max_tokens=100 + i, until=Until.THOUGHT) for i in range(self.n)]

    halt = threading.Event()
    threading.Timer(0.2, halt.set).start()
    result = run_search(Hanging(), Single(n=8), halt=halt, budget=2000)
    assert result.stop_reason is StopReason.HALTED
    assert result.chosen is not None and result.candidates[result.chosen].answer is not None  # noqa: PT018
    assert 0 < len(result.candidates) < 8
    assert result.usage.sampled_tokens <= 2000


@settings(max_examples=150)
@given(
    st.sampled_from(["majority", "weighted"]),
    st.integers(1, 8),
    st.integers(1, 3),
    st.integers(0, 10**6),
    st.sampled_from([(1, 1), (2, 1), (3, 1), (6, 1)]),
)
def test_a_race_that_is_called_is_won(selector: str, n: int, wave: int, seed: int, odds: tuple[int, int]) -> None:
    """Whatever the paths are worth: the answer is that of the whole race."""

    def write(prefix: tuple[int, ...], seed: int) -> int:
        if prefix[-1] == OPEN:
            return 97 + seed % 26
        letter = prefix[prefix.index(OPEN) + 1]  # of the thinking, on which the answer hangs alone
        answer = 65 if letter % sum(odds) < odds[0] else 66
        return {STEP: CLOSE, CLOSE: answer, 65: END, 66: END}.get(prefix[-1], STEP)

    generator, scorer = FakeGenerator(script=write), FakeScorer()
    shared: dict[str, Any] = {"selector": selector, "scorer": scorer, "seed": seed}
    full = run_search(generator, BestOfN(n=n, wave=wave), **shared)
    early = run_search(generator, BestOfN(n=n, wave=wave), **shared, early_stop=0.0)
    assert early.answer == full.answer
    assert len(early.candidates) <= len(full.candidates) == n


def always(answer: int) -> FakeGenerator:
    return FakeGenerator(script=scripted(97, STEP, CLOSE, answer, END))


@pytest.mark.parametrize(
    ("selector", "worth", "paths"),
    [
        ("majority", 0.25, 5),  # of 8 paths: 5 votes to 0, and 3 to come
        ("weighted", 0.25, 7),  # 7 * 0.25 to 0, and 1 to come
        ("weighted", 0.75, 5),
        ("weighted", 0.125, 8),  # 7 * 0.125 is less than the one to come
    ],
)
def test_a_vote_is_decided_as_soon_as_it_is(selector: str, worth: float, paths: int) -> None:
    scorer = FakeScorer(lambda _: worth)
    result = run_search(always(65), BestOfN(n=8, wave=1), selector=selector, scorer=scorer, early_stop=0.0)
    assert len(result.candidates) == paths


@pytest.mark.parametrize(("margin", "paths"), [(0.25, 1), (0.24, 4)])
def test_a_leader_exactly_at_the_margin_is_sure(margin: float, paths: int) -> None:
    scorer = FakeScorer(lambda _: 0.75)
    aggregated = run_search(always(65), BestOfN(n=4, wave=1), scorer=scorer, early_stop=margin)
    assert aggregated.score == 0.75
    assert len(aggregated.candidates) == paths


def test_a_strategy_that_cannot_say_what_is_to_come_votes_to_its_end() -> None:
    result = run_search(
        always(65), Repeat(BestOfN(n=1)), selector="majority", early_stop=0.0, budget=90, scorer=FakeScorer()
    )
    assert result.stop_reason is StopReason.BUDGET


def test_what_a_stop_saved_is_the_search_s_own_share_of_the_budget() -> None:
    sure = FakeScorer(lambda _: 1.0)
    result = run_search(always(65), BestOfN(n=4, wave=1), scorer=sure, early_stop=0.0, budget=100)
    thought = result.usage.sampled_tokens - result.usage.answer_tokens
    assert result.usage.saved_tokens == 100 - 25 - thought, "what is held back was never the search's"
    full = run_search(always(65), BestOfN(n=4, wave=1), scorer=sure, budget=100)
    assert full.usage.saved_tokens == 0
    endless = run_search(always(65), BestOfN(n=4, wave=1), scorer=sure, early_stop=0.0)
    assert (endless.stop_reason, endless.usage.saved_tokens) == (StopReason.EARLY, 0), "no budget, nothing to save"


def test_a_stop_keeps_its_reason_whatever_was_cut_off() -> None:
    cut = run_search(
        FakeGenerator(close=0.0), MCTS(until=Until.STEP), budget=60, max_tokens=30, stop_when=lambda tree: len(tree) > 4
    )
    assert cut.stop_reason is StopReason.EARLY


class Halting(FakeGenerator):
    """Calls a halt in its request number `hangs`, having told of `told` tokens, and never answers that one."""

    halt: threading.Event
    asked: list[Request]

    def __init__(self, hangs: int, told: int = 0, **options: Any) -> None:
        super().__init__(**options)
        for name, value in {"halt": threading.Event(), "asked": [], "hangs": hangs, "told": told}.items():
            object.__setattr__(self, name, value)

    async def generate(self, request: Request) -> list[Completion]:
        self.asked.append(request)
        if len(self.asked) != self.hangs:  # pyright: ignore[reportAttributeAccessIssue]
            return await super().generate(request)
        for _ in range(self.told):  # pyright: ignore[reportAttributeAccessIssue]
            assert request.on_tokens is not None, "what ends by the clock or by a halt is counted as it goes"
            request.on_tokens(1)
        self.halt.set()
        await asyncio.Event().wait()
        raise AssertionError("it is cancelled before")


@pytest.mark.parametrize("how", ["halt", "seconds"])
def test_tokens_of_a_request_that_was_cut_off_are_counted_as_far_as_it_told(how: str) -> None:
    def search(told: int) -> tuple[StopReason, int]:
        generator = Halting(2, told, script=scripted(97, 97, CLOSE, 98, END))
        end: dict[str, Any] = {"halt": generator.halt} if how == "halt" else {"seconds": 0.05}
        result = run_search(generator, BestOfN(n=2, wave=1), **end, max_tokens=50, answer_tokens=1)
        return result.stop_reason, result.usage.sampled_tokens

    reason, without = search(told=0)
    assert reason is (StopReason.HALTED if how == "halt" else StopReason.TIME)
    assert search(told=7) == (reason, without + 7)


def test_a_sample_under_way_is_not_kept_by_a_halt() -> None:
    """Its first request came back with a token that could have ended a step and did not; the second never did."""
    generator = Halting(2, script=scripted(STEP, STEP, 97))

    def one_step(tree: Tree) -> Plan:
        yield [Expand(tree.root)]

    result = run_search(generator, one_step, halt=generator.halt)
    assert result.stop_reason is StopReason.HALTED
    assert result.tree is not None
    assert [node.parent for node in result.tree] == [None, 0], "the answer, straight from the question"


def test_of_equal_paths_the_earlier_is_taken_to_its_end() -> None:
    """The budget ends in the middle of two thoughts that are worth the same."""

    def strategy(tree: Tree) -> Plan:
        yield [Expand(tree.root, 2, Until.STEP)]

    result = run_search(FakeGenerator(close=0, step=0.3), strategy, scorer=FakeScorer(value=lambda _: 0.5), budget=400)
    tree = result.tree
    assert tree is not None
    first, second = tree.children(tree.root)
    assert first.value == second.value
    assert tree.nodes[3].parent == first.index
