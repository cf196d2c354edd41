"""What holds for every strategy, and how strategies relate: by Hypothesis, on fake engines."""

from __future__ import annotations

from dataclasses import replace

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tts_search import DVTS, MCTS, BestFirst, BestOfN, Expand, Repeat, SearchResult, StepBeamSearch, Tree, Until
from tts_search.core.protocols import Plan, Strategy
from tts_search.errors import InvalidInputError
from tts_search.selection.selectors import SELECTORS
from tts_search.testing import FakeGenerator, FakeScorer, run_search

small = st.integers(1, 4)
until = st.sampled_from([Until.STEP, Until.THOUGHT])
chunk = st.one_of(st.none(), st.integers(1, 20))
beams = st.builds(
    StepBeamSearch, width=small, branching=small, until=until, chunk_tokens=chunk, keep_finished=st.booleans()
)
dvts = st.builds(DVTS, subtrees=small, branching=small, width=small, until=until, chunk_tokens=chunk)
mcts = st.builds(
    MCTS,
    children=small,
    expansion_tokens=chunk,
    until=until,
    exploration=st.none() | st.floats(0, 3),
    finishing=st.none() | st.floats(0, 0.9),
    selection=st.sampled_from(["uct", "puct"]),
    backup=st.sampled_from(["mean", "max"]),
    leaves=small,
)
best_first = st.builds(BestFirst, leaves=st.none() | small, patience=st.floats(0.1, 1), until=until, chunk_tokens=chunk)
fixed = st.one_of(st.builds(BestOfN, n=st.integers(1, 9), wave=st.one_of(st.none(), small)), beams, dvts)
every = st.one_of(fixed, st.builds(Repeat, fixed), mcts, best_first)
generators = st.builds(
    FakeGenerator,
    thinks=st.booleans(),
    step=st.floats(0, 0.5),
    close=st.floats(0, 0.4),
    end=st.floats(0, 0.4),
    ends_anywhere=st.booleans(),
    context_tokens=st.integers(8, 200),
)


def search(generator: FakeGenerator, strategy: Strategy, budget: int = 150, **options: object) -> SearchResult:
    return run_search(generator, strategy, scorer=FakeScorer(), budget=budget, **options)  # pyright: ignore[reportArgumentType]


@given(every, generators, st.booleans(), st.integers(0, 5))
def test_equal_seeds_give_equal_trees_in_any_order_of_arrival(
    strategy: Strategy, generator: FakeGenerator, early_stop: bool, seed: int
) -> None:
    prompt = search(generator, strategy, seed=seed, early_stop=early_stop)
    late = search(replace(generator, delay_seconds=0.001), strategy, seed=seed, early_stop=early_stop)
    assert [(n.parent, n.token_ids, n.step_scores) for n in prompt.tree or ()] == [
        (n.parent, n.token_ids, n.step_scores) for n in late.tree or ()
    ]
    assert (prompt.answer, prompt.stop_reason) == (late.answer, late.stop_reason)
    assert replace(prompt.usage, seconds=0.0) == replace(late.usage, seconds=0.0)


@given(every)
def test_a_strategy_is_written_as_one_would_type_it(strategy: Strategy) -> None:
    assert eval(repr(strategy)) == strategy


def test_what_was_not_chosen_is_not_written() -> None:
    assert repr(BestOfN()) == "BestOfN(n=8)"
    assert repr(BestFirst(leaves=2)) == "BestFirst(leaves=2, patience=0.75, until=Until.STEP)"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (BestOfN, {"n": 0}),
        (BestOfN, {"wave": 0}),
        (StepBeamSearch, {"width": 0}),
        (StepBeamSearch, {"branching": 0}),
        (DVTS, {"subtrees": 0}),
        (DVTS, {"width": 0}),
        (DVTS, {"branching": 0}),
        (MCTS, {"children": 0}),
        (MCTS, {"leaves": 0}),
        (MCTS, {"exploration": -0.1}),
        (MCTS, {"exploration": float("nan")}),
        (MCTS, {"finishing": -0.1}),
        (MCTS, {"finishing": 1}),
        (MCTS, {"finishing": float("nan")}),
        (MCTS, {"selection": "ucb"}),
        (MCTS, {"backup": "min"}),
        (BestFirst, {"leaves": 0}),
        (BestFirst, {"patience": 0.0}),
        (BestFirst, {"patience": 1.01}),
    ],
)
def test_what_no_strategy_can_be_is_refused_by_value(kind: type, options: dict[str, object]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(InvalidInputError, match=f"{name}.*{value!r}"):
        kind(**options)


def test_the_least_of_everything_is_a_strategy() -> None:
    least: list[Strategy] = [
        BestOfN(n=1, wave=1),
        StepBeamSearch(width=1, branching=1),
        DVTS(subtrees=1, branching=1, width=1),
        MCTS(children=1, leaves=1, exploration=0),
        BestFirst(leaves=1, patience=1.0),
    ]
    assert all(search(FakeGenerator(), strategy).candidates for strategy in least)


def tokens_of(tree: Tree | None) -> list[tuple[int | None, tuple[int, ...]]]:
    assert tree is not None
    return [(node.parent, node.token_ids) for node in tree]


# The cap, the answer's share of it, the selector, the seed. Four of them a tree search: a new search costs less than
# new examples, and the cap is where a strategy stumbles.
purses = st.lists(
    st.tuples(st.integers(1, 60), st.integers(1, 30), st.sampled_from(sorted(SELECTORS)), st.integers(0, 3)),
    min_size=4,
    max_size=4,
)


@settings(max_examples=1_000)
@given(generators, every, purses)
def test_no_strategy_ever_samples_one_token_over_its_budget(
    generator: FakeGenerator, strategy: Strategy, purses: list[tuple[int, int, str, int]]
) -> None:
    for budget, answer_tokens, selector, seed in purses:
        result = search(generator, strategy, budget, answer_tokens=answer_tokens, selector=selector, seed=seed)
        assert result.tree is not None
        assert sum(len(n.token_ids) - n.forced_tokens for n in result.tree) <= result.usage.sampled_tokens <= budget


@settings(max_examples=200)
@given(generators, every, st.integers(0, 3))
def test_trees_are_arborescences_and_equal_seeds_give_equal_ones(
    generator: FakeGenerator, strategy: Strategy, seed: int
) -> None:
    tree = search(generator, strategy, seed=seed).tree
    assert tree is not None
    graph = networkx.DiGraph([(node.parent, node.index) for node in tree.nodes[1:]])
    graph.add_node(0)
    assert networkx.is_arborescence(graph)
    assert tokens_of(search(replace(generator, delay_seconds=1e-4), strategy, seed=seed).tree) == tokens_of(tree)


@settings(max_examples=200)
@given(generators, mcts)
def test_visits_add_up(generator: FakeGenerator, strategy: MCTS) -> None:
    tree = search(generator, strategy).tree
    assert tree is not None
    grown = [node for node in tree if node.index in tree.visits]  # the answer's node is not the search's
    for node in grown:
        below = sum(tree.visits.get(child.index, 0) for child in tree.children(node))
        assert tree.visits[node.index] == below + (node.index > 0), "its own evaluation, and those below it"


@settings(max_examples=100)
@given(generators, st.integers(1, 4), st.integers(0, 3))
def test_a_beam_of_width_1_is_greedy_step_search(generator: FakeGenerator, branching: int, seed: int) -> None:
    def greedy(tree: Tree) -> Plan:
        node = tree.root
        while not node.ended:
            ((*children,),) = yield [Expand(node, branching)]
            if not children:
                return
            node = max(children, key=lambda child: (child.value, -child.index))

    beam = search(generator, StepBeamSearch(width=1, branching=branching), seed=seed)
    assert tokens_of(beam.tree) == tokens_of(search(generator, greedy, seed=seed).tree)


@settings(max_examples=100)
@given(generators, small, small, until, chunk)
def test_dvts_of_one_subtree_is_a_beam(
    generator: FakeGenerator, width: int, branching: int, until: Until, chunk: int | None
) -> None:
    one = DVTS(subtrees=1, width=width, branching=branching, until=until, chunk_tokens=chunk)
    beam = StepBeamSearch(width=width, branching=branching, until=until, chunk_tokens=chunk)
    assert tokens_of(search(generator, one).tree) == tokens_of(search(generator, beam).tree)


@settings(max_examples=100)
@given(generators, st.sampled_from(["uct", "puct"]))
def test_mcts_with_one_child_is_a_chain(generator: FakeGenerator, selection: str) -> None:
    strategy = MCTS(children=1, until=Until.STEP, finishing=0, selection=selection)  # pyright: ignore[reportArgumentType]
    tree = search(generator, strategy).tree
    assert tree is not None
    assert all(len(tree.children(node)) <= 1 for node in tree)


@settings(max_examples=100)
@given(generators, st.one_of(mcts, best_first))
def test_an_ended_node_is_never_grown_by_the_search(generator: FakeGenerator, strategy: Strategy) -> None:
    asked: list[Expand] = []

    def watched(tree: Tree) -> Plan:
        plan = strategy(tree)
        wanted = next(plan)
        while True:
            asked.extend(wanted)
            assert len({expand.node.index for expand in wanted}) == len(wanted), "one request a node and round"
            try:
                wanted = plan.send((yield wanted))
            except StopIteration:
                return

    search(generator, watched)
    assert asked
    assert not any(expand.node.ended for expand in asked)


@pytest.mark.parametrize("width", [1, 3])
def test_repeat_begins_anew_in_the_same_tree(width: int) -> None:
    once = search(FakeGenerator(), StepBeamSearch(width=width, branching=2), 4000)
    again = search(FakeGenerator(), Repeat(StepBeamSearch(width=width, branching=2)), 4000)
    assert once.tree is not None
    assert again.tree is not None
    size = len(once.tree) - 1  # without its answer
    assert tokens_of(again.tree)[:size] == tokens_of(once.tree)[:size]
    assert len(again.tree.children(again.tree.root)) > len(once.tree.children(once.tree.root))
    assert 3000 < again.usage.sampled_tokens <= 4000


class GrowingMCTS(RuleBasedStateMachine):
    """Drives the plan of an MCTS by hand: whatever an engine answers, its counts stay true."""

    @initialize(strategy=mcts)
    def begin(self, strategy: MCTS) -> None:
        generator = FakeGenerator()
        tree = search(generator, BestOfN(n=1), 1).tree
        assert tree is not None
        self.strategy = strategy
        self.tree = Tree("Why?", tree.prompt_ids, tree.segmenter, tree.decode)
        self.source = search(FakeGenerator(step=0.3), BestOfN(n=40), 4000).tree
        self.plan = strategy(self.tree)
        self.wanted = list(next(self.plan))
        self.over = False

    @rule(sizes=st.lists(st.integers(0, 4), min_size=4, max_size=4), pick=st.integers(1, 30))
    def answer(self, sizes: list[int], pick: int) -> None:
        if self.over:
            return
        assert self.source is not None
        grown = []
        for expand, size in zip(self.wanted, sizes, strict=False):
            children = []
            for i in range(min(size, expand.n)):
                model = self.source.nodes[1 + (pick + i) % (len(self.source) - 1)]
                node = replace(model, index=len(self.tree), up=expand.node, value=(pick * 7 % 10) / 10)
                children.append(self.tree.add(node))
            grown.append(children)
        grown += [[] for _ in self.wanted[len(grown) :]]
        try:
            self.wanted = list(self.plan.send(grown))
        except StopIteration:
            self.over = True

    @invariant()
    def what_is_asked_for_can_grow(self) -> None:
        if getattr(self, "over", True):
            return
        assert 1 <= len(self.wanted) <= self.strategy.leaves
        assert all(not e.node.ended for e in self.wanted)
        for expand in self.wanted:
            before = len(self.tree.children(expand.node))
            assert not before or self.strategy.finishing != 0, "a leaf is expanded once; only finishing comes again"

    def teardown(self) -> None:
        if hasattr(self, "plan"):
            self.plan.close()
            for node in self.tree:
                below = sum(self.tree.visits.get(child.index, 0) for child in self.tree.children(node))
                assert self.tree.visits.get(node.index, 0) == below + (node.index > 0)


TestGrowingMCTS = GrowingMCTS.TestCase
TestGrowingMCTS.settings = settings(max_examples=60, stateful_step_count=20)
