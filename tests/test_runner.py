"""The runner with fakes: the cap, the accounts, the contracts, the ways a search can end."""

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_search import MCTS, BestOfN, Completion, Expand, Plan, Request, StepBeamSearch, Tree, Until
from tts_search.errors import GeneratorError, InvalidInputError, ScorerError, StrategyError
from tts_search.head import SPRMConfig
from tts_search.protocols import Strategy
from tts_search.result import SELECTORS, StopReason
from tts_search.runner import Progress
from tts_search.scorers.aggregate import geometric_mean
from tts_search.strategies.repeat import Repeat
from tts_search.testing import FakeGenerator, FakeScorer, run_search
from tts_search.testing.fakes import CLOSE, END, STEP
from tts_search.tree import Ending, Trajectory


@dataclass(frozen=True)
class Wild:
    """A strategy made of chance: any node, any number, any until, as long as it likes."""

    choices: tuple[tuple[int, int, Until, int | None], ...]

    def __call__(self, tree: Tree) -> Plan:
        for pick, n, until, max_tokens in self.choices:
            node = tree.nodes[pick % len(tree)]
            yield [Expand(node, n, until, max_tokens), Expand(tree.root, 1, until)]


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
    head_config=st.sampled_from([None, SPRMConfig(hidden_size=1, readout="step")]),
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


def scripted(*tokens: int, thinks: bool = True) -> Callable[[tuple[int, ...], int], int]:
    """Repeats its last token for ever."""

    def next_token(prefix: tuple[int, ...], seed: int) -> int:
        done = len(prefix) - len(FakeGenerator(thinks=thinks).tokenizer.render("Why?"))
        return tokens[min(done, len(tokens) - 1)]

    return next_token


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


def test_progress_counts_up_to_the_account() -> None:
    seen: list[Progress] = []
    result = run_search(FakeGenerator(), on_progress=seen.append)
    counts = [p.sampled_tokens for p in seen]
    assert counts == sorted(counts)
    assert counts[-1] == result.usage.sampled_tokens


# Plug-ins that break their contract.


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


# Ways to end a search before its strategy does.


def test_early_stop_at_a_sure_leader_saves_the_rest() -> None:
    generator, sure = FakeGenerator(), FakeScorer(lambda _: 0.95)
    result = run_search(generator, BestOfN(n=32, wave=4), scorer=sure, budget=4000, early_stop=0.1)
    assert result.stop_reason is StopReason.EARLY
    assert len(result.candidates) == 4
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
    with pytest.raises(StrategyError, match="ZeroDivisionError"):
        run_search(FakeGenerator(), MCTS(until=Until.STEP), budget=500, stop_when=lambda tree: 1 / 0 > 0)


class Slow(FakeGenerator):
    async def generate(self, request: Request) -> list[Completion]:
        await asyncio.sleep(3600 if request.seeds[0] % 2 and len(request.stop_ids) > 1 else 0)
        return await super().generate(request)


def test_the_clock_ends_a_search_with_the_best_so_far() -> None:
    result = run_search(Slow(), StepBeamSearch(width=2, branching=4), seconds=0.2)
    assert result.stop_reason is StopReason.TIME
    assert result.usage.seconds < 5
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
