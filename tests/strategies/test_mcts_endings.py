"""MCTS at the paper's setting, scaled down by 16: thoughts many expansions long come to an end within their budget."""

from __future__ import annotations

import random
import statistics
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_search import MCTS, BestOfN, Completion, Expand, Request, Until
from tts_search.core.protocols import Plan
from tts_search.core.tree import Ending, Node, Tree
from tts_search.strategies.spread import Spread
from tts_search.testing import FakeGenerator, FakeScorer, run_search
from tts_search.testing.fakes import CLOSE, END, STEP

EXPANSION = 64
STEP_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Thoughtful(FakeGenerator):
    """Thinks for exactly `thought` tokens, a step every 16, and then answers with one."""

    thought: int
    words: tuple[int, ...] = field(default=tuple(b"abcdefgh"))

    def _complete(self, request: Request, seed: int) -> Completion:
        prompt = len(self.tokenizer.render("Why?"))
        chance, ids = random.Random(f"{seed} {len(request.prefix)}"), list[int]()
        for place in count(len(request.prefix) - prompt + 1):
            due = CLOSE if place == self.thought else END if place > self.thought else None
            ids.append(due or (STEP if place % STEP_TOKENS == 0 else chance.choice(self.words)))
            if len(ids) == request.max_tokens or ids[-1] in request.stop_ids:
                return Completion(token_ids=ids, logprobs=[-1.0] * len(ids), scores=None, sampled_tokens=len(ids))
        raise AssertionError


def ended(strategy: MCTS, thought: int, budget: int, seed: int) -> bool:
    """Whether the plan itself brought a path to its end: what the answer is made of afterwards does not count."""
    found = False

    def watched(tree: Tree) -> Plan:
        nonlocal found
        try:
            yield from strategy(tree)
        finally:
            found = any(node.ended for node in tree)

    generator = Thoughtful(thought=thought)
    run_search(generator, watched, scorer=FakeScorer(), budget=budget, seed=seed, max_tokens=2048, answer_tokens=64)
    return found


@pytest.mark.parametrize("thought", [125, 250, 500, 750])  # of 2,000 to 12,000 tokens
@pytest.mark.parametrize("budget", [2500, 10_000])  # of 40,000 and 160,000
def test_long_thoughts_end(thought: int, budget: int) -> None:
    assert all(ended(MCTS(expansion_tokens=EXPANSION), thought, budget, seed) for seed in range(4))


def test_with_the_old_constant_they_do_not() -> None:
    strategy = MCTS(expansion_tokens=EXPANSION, exploration=2**0.5)
    assert not any(ended(strategy, 500, 10_000, seed) for seed in range(4))
    assert ended(strategy, 125, 2500, 0)


class Grown:
    """A tree that a plan grows by hand: values and lengths are whatever a test says."""

    def __init__(self, thought: int, value: Callable[[int], float]) -> None:
        model = run_search(FakeGenerator(), BestOfN(n=1), budget=4).tree
        assert model is not None
        self.tree = Tree("Why?", model.prompt_ids, model.segmenter, model.decode)
        self.thought, self.value = thought, value

    def child(self, expand: Expand, left: int) -> Node:
        node = expand.node
        want = self.thought - node.length if expand.max_tokens is None else expand.max_tokens
        length = min(self.thought, node.length + min(want, left))
        ending = Ending.THOUGHT if length == self.thought else Ending.LENGTH
        value = self.value(len(self.tree))
        return self.tree.add(
            Node(len(self.tree), node, node.depth + 1, length, array("i"), ending, node.state, value=value)
        )


@settings(max_examples=60)
@given(
    st.integers(1, 900),
    st.lists(st.floats(0, 1), min_size=1, max_size=40),
    st.sampled_from(["uct", "puct"]),
    st.sampled_from(["mean", "max"]),
    st.integers(1, 3),
    st.integers(1, 5),
)
def test_whatever_the_values_a_path_ends_for_one_thought_and_one_round(
    thought: int, values: Sequence[float], selection: str, backup: str, leaves: int, children: int
) -> None:
    """By then only one round was paid for beside it; and from then on, of all tokens about a quarter is for endings."""
    strategy = MCTS(children=children, expansion_tokens=EXPANSION, selection=selection, backup=backup, leaves=leaves)  # pyright: ignore[reportArgumentType]
    grown = Grown(thought, lambda i: values[i % len(values)])
    plan, spent, finishing = strategy(grown.tree), 0, 0
    wanted = next(plan)
    for _ in range(30):
        nodes = [[grown.child(expand, 10**9) for _ in range(expand.n)] for expand in wanted]
        cost = sum(node.length - e.node.length for e, group in zip(wanted, nodes, strict=True) for node in group)
        spent += cost
        if wanted[0].max_tokens is None:
            assert len(wanted) == wanted[0].n == 1
            assert wanted[0].until is Until.THOUGHT
            assert finishing < 0.25 * (spent - cost)
            finishing += cost
        if not any(node.ended for node in grown.tree):
            assert spent <= children * EXPANSION, "the second request goes to the end of a thought"
        try:
            wanted = plan.send(nodes)
        except StopIteration:
            break
    plan.close()
    assert any(node.ended for node in grown.tree)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=60))
def test_the_spread_is_the_standard_deviation(values: Sequence[float]) -> None:
    spread = Spread()
    assert float(spread) == 0
    spread.add(values[:1])
    assert float(spread) == 0
    spread.add(values[1:])
    assert float(spread) == pytest.approx(statistics.stdev(values), abs=1e-9)
