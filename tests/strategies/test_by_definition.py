"""Tree searches against what they are by definition: every choice, computed anew from the whole tree, without any queue
or running sum.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tts_search import DVTS, MCTS, BestFirst, BestOfN, Expand, Repeat, Searcher, StepBeamSearch, Tree, Until
from tts_search.core.protocols import Plan, Strategy
from tts_search.core.tree import Node
from tts_search.testing import FakeGenerator, FakeScorer

PROPERTY = settings(max_examples=40)
small, seeds = st.integers(1, 4), st.integers(0, 1000)
untils = st.sampled_from([Until.STEP, Until.THOUGHT])
chunks = st.one_of(st.none(), st.integers(2, 12))

# Values are eighths, so that sums of them are exact in whatever order they are added.
SCORER = FakeScorer(lambda text: sum(text.encode()) % 9 / 8)
# One that often writes the same step twice, with few words and many ends.
CHATTY = FakeGenerator(step=0.3, close=0.08)
TERSE = FakeGenerator(step=0.55, close=0.15)


@pytest.fixture(scope="module", params=[CHATTY, TERSE], ids=["chatty", "terse"])
def searcher(request: pytest.FixtureRequest) -> Iterator[Searcher]:
    with Searcher(
        generator=request.param, scorer=SCORER, aggregation="last", max_tokens=60, answer_tokens=1
    ) as searcher:
        yield searcher


def grown(searcher: Searcher, strategy: Strategy, seed: int, budget: int = 150) -> list[tuple[int | None, ...]]:
    """Parent and tokens of every node, in the order in which they grew."""
    tree = searcher.search("Why?", strategy=strategy, seed=seed, budget=budget).tree
    assert tree is not None
    return [(node.parent, *node.token_ids) for node in tree]


# Monte Carlo tree search.


class ByDefinition:
    """The state of an MCTS, out of the tree alone: no counter is carried from one round to the next."""

    def __init__(self, tree: Tree, strategy: MCTS) -> None:
        self.tree = tree
        self.strategy = strategy
        self.expanded: set[int] = set()
        self.finished: set[int] = set()  # nodes that were grown to the end of their thought, one for itself
        self.chosen: list[Node] = []
        self.unsure = False

    def below(self, node: Node) -> list[Node]:
        return [node, *(n for child in self.tree.children(node) for n in self.below(child))]

    def evaluations(self, node: Node) -> list[float]:
        return [n.value for n in self.below(node) if n.depth]

    def losses(self, node: Node) -> int:
        return sum(leaf in self.below(node) for leaf in self.chosen)

    def visits(self, node: Node) -> int:
        return len(self.evaluations(node)) + self.losses(node)

    def value(self, node: Node) -> float:
        values = self.evaluations(node)
        return max(values) if self.strategy.backup == "max" else math.fsum(values) / self.visits(node)

    def open(self, node: Node) -> bool:
        return any(
            not n.ended and n.index not in self.expanded and not any(n is leaf for leaf in self.chosen)
            for n in self.below(node)
        )

    def spread(self) -> float:
        values = self.evaluations(self.tree.root)
        return statistics.stdev(values) if len(values) > 1 else 0.0

    def tokens(self) -> int:
        return sum(node.length - node.up.length for node in self.tree if node.up is not None)

    def tokens_of_finished(self) -> int:
        nodes = [self.tree.nodes[i] for i in self.finished]
        return sum(node.length - node.up.length for node in nodes if node.up is not None)

    def bound(self, child: Node, parent: Node) -> float:
        if self.strategy.selection == "uct":
            spread = math.sqrt(math.log(self.visits(parent)) / self.visits(child))
        else:
            siblings = math.fsum(n.value for n in self.tree.children(parent))
            share = child.value / siblings if siblings else 0.0
            spread = math.sqrt(self.visits(parent)) * share / (1 + self.visits(child))
        c = math.sqrt(24) * self.spread() if self.strategy.exploration is None else self.strategy.exploration
        return self.value(child) + c * spread

    def walk(self, bound: Callable[[Node, Node], float]) -> Node:
        node = self.tree.root
        while children := [child for child in self.tree.children(node) if self.open(child)]:
            bounds = [bound(child, node) for child in children]
            highest = max(bounds)
            # What differs by a rounding error is a tie for the definition, and the running sums may break it.
            self.unsure |= sum(highest - 1e-12 < bound for bound in bounds) > bounds.count(highest)
            node = children[bounds.index(highest)]
        return node

    def choose(self) -> list[Node]:
        self.chosen = []
        while len(self.chosen) < self.strategy.leaves and self.open(self.tree.root):
            self.chosen.append(self.walk(self.bound))
        return self.chosen

    def to_finish(self) -> Node | None:
        """The best leaf, where less than its share of the tokens was spent on finishing."""
        self.chosen = []
        share = self.strategy.finishing
        if share is None:
            share = 0.25 if self.strategy.exploration is None else 0.0
        if self.open(self.tree.root) and self.tokens_of_finished() < share * self.tokens():
            return self.walk(lambda child, _: self.value(child))
        return None


@PROPERTY
@given(
    st.builds(
        MCTS,
        children=small,
        expansion_tokens=chunks,
        until=untils,
        exploration=st.sampled_from([None, 0.0, 0.3, 1.0, math.sqrt(2), 4.0]),
        finishing=st.sampled_from([None, 0.0, 0.3, 0.6]),
        selection=st.sampled_from(["uct", "puct"]),
        backup=st.sampled_from(["mean", "max"]),
        leaves=st.integers(1, 3),
    ),
    seeds,
)
def test_mcts_selects_the_highest_bound(searcher: Searcher, strategy: MCTS, seed: int) -> None:
    states = list[ByDefinition]()

    def by_definition(tree: Tree) -> Plan:
        states.append(state := ByDefinition(tree, strategy))
        while chosen := state.choose():
            yield [Expand(leaf, strategy.children, strategy.until, strategy.expansion_tokens) for leaf in chosen]
            state.expanded.update(leaf.index for leaf in chosen)
            best = state.to_finish()
            if best is not None:
                (ended,) = yield [Expand(best, 1, Until.THOUGHT)]
                state.finished.update(node.index for node in ended)
                state.expanded.update([] if ended else [best.index])

    expected = grown(searcher, by_definition, seed)
    assume(not states[0].unsure)
    assert grown(searcher, strategy, seed) == expected


def test_the_papers_setting_is_the_default() -> None:
    assert MCTS() == MCTS(
        children=4, expansion_tokens=1024, until=Until.THOUGHT, exploration=None, selection="uct", backup="mean"
    )


# Best-first search.


def promise(tree: Tree, node: Node, patience: float) -> float:
    """The mean of the last scores' roots, times the chance of a new child, times the patience that is left."""
    children = tree.children(node)
    times = Counter(child.token_ids for child in children)
    ended = {child.token_ids for child in children if child.ended}
    firsts = [next(child for child in children if child.token_ids == ids) for ids in times]
    scored = [node, *firsts] if node.depth else firsts
    roots = [math.sqrt(n.step_scores[-1]) if n.step_scores else 0.0 for n in scored]
    worth = sum(roots) / len(roots) if roots else 1.0
    once = sum(count == 1 and ids not in ended for ids, count in times.items())
    return worth * (once + 0.5) / (len(children) + 0.5) * patience ** len(times)


@PROPERTY
@given(
    st.builds(
        BestFirst,
        leaves=st.none() | st.integers(1, 5),
        patience=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
        until=untils,
        chunk_tokens=chunks,
    ),
    seeds,
)
def test_best_first_grows_what_promises_most(searcher: Searcher, strategy: BestFirst, seed: int) -> None:
    def by_definition(tree: Tree) -> Plan:
        dead: set[int] = set()
        while True:
            first = {}  # of equal children only the oldest goes on
            for node in tree:
                first.setdefault((node.parent, node.token_ids), node)
            alive = [node for node in first.values() if not node.ended and node.index not in dead]
            promises = {node.index: promise(tree, node, strategy.patience) for node in alive}
            asked: Counter[int] = Counter()
            for _ in range((strategy.leaves or 1 + len(tree) // 32) if promises else 0):
                best = max(promises, key=lambda i: (promises[i], -i))
                asked[best] += 1
                promises[best] *= strategy.patience  # asked for, one more child counts at once
            if not asked:
                return
            answer = yield [Expand(tree.nodes[i], n, strategy.until, strategy.chunk_tokens) for i, n in asked.items()]
            dead.update(i for i, children in zip(asked, answer, strict=True) if not children)

    assert grown(searcher, strategy, seed, 250) == grown(searcher, by_definition, seed, 250)


def test_what_a_question_promises_before_anything_grew(searcher: Searcher) -> None:
    tree = searcher.search("Why?", strategy="single").tree
    assert tree is not None
    assert BestFirst().promise(tree.root, []) == 1.0


# Beams.


def widest(nodes: Sequence[Node], width: int) -> list[Node]:
    return sorted(nodes, key=lambda node: (-node.value, node.index))[:width]


def one_beam(tree: Tree, strategy: StepBeamSearch | DVTS, *, keep_finished: bool = True) -> Plan:
    answer = yield [Expand(tree.root, strategy.width * strategy.branching, strategy.until, strategy.chunk_tokens)]
    places: list[Node] = []  # of the beam, finished paths among them
    while True:
        children = [child for group in answer for child in group]
        finished = [node for node in places if node.ended] if keep_finished else []
        if not keep_finished:
            children = [child for child in children if not child.ended]
        places = widest([*finished, *children], strategy.width)
        growing = [node for node in places if not node.ended]
        if not growing:
            return
        answer = yield [Expand(node, strategy.branching, strategy.until, strategy.chunk_tokens) for node in growing]


@PROPERTY
@given(
    st.builds(
        StepBeamSearch, width=small, branching=small, until=untils, chunk_tokens=chunks, keep_finished=st.booleans()
    ),
    seeds,
)
def test_a_beam_keeps_the_best(searcher: Searcher, strategy: StepBeamSearch, seed: int) -> None:
    def by_definition(tree: Tree) -> Plan:
        return one_beam(tree, strategy, keep_finished=strategy.keep_finished)

    assert grown(searcher, strategy, seed, 300) == grown(searcher, by_definition, seed, 300)


@PROPERTY
@given(st.builds(DVTS, subtrees=small, branching=small, width=small, until=untils, chunk_tokens=chunks), seeds)
def test_the_beams_of_dvts_never_meet(searcher: Searcher, strategy: DVTS, seed: int) -> None:
    def side_by_side(tree: Tree) -> Plan:
        beams = [one_beam(tree, strategy) for _ in range(strategy.subtrees)]
        wanted = {i: list(next(beam)) for i, beam in enumerate(beams)}
        while wanted:
            answer = list((yield [expand for i in sorted(wanted) for expand in wanted[i]]))
            for i in sorted(wanted):
                mine, answer = answer[: len(wanted[i])], answer[len(wanted[i]) :]
                try:
                    wanted[i] = list(beams[i].send(mine))
                except StopIteration:
                    del wanted[i]

    assert grown(searcher, strategy, seed, 400) == grown(searcher, side_by_side, seed, 400)


# Strategies of a fixed size.


def sizes(strategy: Strategy, most: int) -> list[int]:
    """How many samples it asks for in each round, of an engine that gives at most so many."""
    asked: list[int] = []

    def stingy(tree: Tree) -> Plan:
        plan = strategy(tree)
        (expand,) = next(plan)
        while True:
            asked.append(expand.n)
            answer = yield [replace(expand, n=min(most, expand.n))]
            try:
                (expand,) = plan.send(answer)
            except StopIteration:
                return

    with Searcher(generator=FakeGenerator(), scorer=FakeScorer()) as searcher:
        searcher.search("Why?", strategy=stingy)
    return asked


def test_best_of_n_asks_again_for_what_it_did_not_get() -> None:
    assert sizes(BestOfN(n=5), most=9) == [5]
    assert sizes(BestOfN(n=5, wave=2), most=9) == [2, 2, 1]
    assert sizes(BestOfN(n=5, wave=2), most=1) == [2, 2, 2, 2, 1]
    assert sizes(BestOfN(n=3), most=2) == [3, 1]


def test_best_of_n_says_what_is_to_come() -> None:
    seen: list[int] = []

    def look(tree: Tree) -> bool:
        seen.append(strategy.remaining(tree))
        return False

    strategy = BestOfN(n=5, wave=2)
    with Searcher(generator=FakeGenerator(), scorer=FakeScorer()) as searcher:
        searcher.search("Why?", strategy=strategy, stop_when=look)
    assert seen == [3, 1]


def rounds_of(strategy: Strategy, most: int) -> int:
    """How often a plan begins before its repetition ends by itself; `most` is a bound on the test."""
    begun = 0

    def counted(tree: Tree) -> Plan:
        nonlocal begun
        begun += 1
        assert begun <= most
        return strategy(tree)

    with Searcher(generator=FakeGenerator(), scorer=FakeScorer(), max_tokens=30) as searcher:
        searcher.search("Why?", strategy=Repeat(counted), budget=500)
    return begun


def test_a_round_that_grew_nothing_was_the_last() -> None:
    def nothing(tree: Tree) -> Plan:
        yield from ()

    def once(tree: Tree) -> Plan:
        if len(tree) == 1:
            yield [Expand(tree.root)]

    assert rounds_of(nothing, most=3) == 1
    assert rounds_of(once, most=3) == 2


def test_a_repetition_is_endless_and_needs_what_its_strategy_needs() -> None:
    assert Repeat(StepBeamSearch()).needs_scores
    assert not Repeat(BestOfN()).needs_scores
    assert Repeat(BestOfN()).endless
