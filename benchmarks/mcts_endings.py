"""Does MCTS at the paper's setting come to the end of a thought, and what does it find? sqrt(2) beside the default.

    python benchmarks/mcts_endings.py [--noise 0.1] [--seeds 20] [--shapes flat rising falling late]
    python benchmarks/mcts_endings.py --puzzles 20

The first form simulates the plan alone: no model, values made up. A path has a worth that wanders as it grows; a node's
value is that worth, plus a trend by the shape (values that rise or fall with depth by .4 of the scale, or whose noise
is three times as large at the start and gone at the end), plus noise, through a logistic function. Thoughts end at
lengths of 15 % spread. Nothing is kept back for an answer, and nothing but the plan ends a path.

The second form searches held-out puzzles with the embedded model. Its thoughts are some 36 tokens long, so budgets and
expansions are divided by (thought / 36): a thought is then as many expansions deep, and a budget pays for as many of
them, as in the row's name. Counted are paths that the plan itself brought to an end before its budget was spent.

Both: children of 1,024 tokens, 4 an expansion; differences are the default minus sqrt(2), paired by question, with 95 %
intervals, over the searches in which both ended a path.
"""

from __future__ import annotations

import argparse
import math
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from rich.console import Console
from rich.table import Table

from tts_search import MCTS, BestOfN, Searcher, Tree
from tts_search.core.budget import fair_split
from tts_search.core.protocols import Plan
from tts_search.core.tree import Ending, Node
from tts_search.embedded.puzzles import held_out
from tts_search.metrics import paired_difference
from tts_search.testing import FakeGenerator, run_search

PUZZLE_THOUGHT = 36
EXPANSION = 1024
LONGEST = 32_768
WORTH_SPREAD = 0.15  # standard deviation of what whole thoughts are worth
TREND = {"rising": 0.4, "falling": -0.4}


@dataclass
class World:
    """What grows, and what it is worth; a node's children depend on its own place in the tree, not on who asks."""

    thought: int
    shape: str
    noise: float
    seed: str
    worth: list[float] = field(default_factory=lambda: [0.0])
    ends: list[float] = field(default_factory=lambda: [0.0])
    names: list[str] = field(default_factory=lambda: [""])

    def grow(self, tree: Tree, node: Node, number: int, tokens: int) -> Node:
        """The child with this number, of at most so many tokens."""
        name = f"{self.names[node.index]} {number}"
        chance = random.Random(f"{self.seed}{name}")
        left = (self.ends[node.index] or self.thought) - node.length
        end = node.length + max(1.0, left * math.exp(chance.gauss(0, 0.15)))
        length = min(math.ceil(end), node.length + tokens)
        worth = self.worth[node.index]
        worth += WORTH_SPREAD * math.sqrt((length - node.length) / self.thought) * chance.gauss(0, 1)
        place = min(1.0, length / self.thought)
        noise = self.noise * (3 * (1 - place) if self.shape == "late" else 1)
        logit = worth + TREND.get(self.shape, 0.0) * (place - 0.5) + noise * chance.gauss(0, 1)
        self.worth.append(worth)
        self.ends.append(end)
        self.names.append(name)
        ending = Ending.THOUGHT if length >= end else Ending.LENGTH
        value = 1 / (1 + math.exp(-4 * logit))  # of slope 1 in the middle
        return Node(len(tree), node, node.depth + 1, length, array("i"), ending, node.state, value=value)


@dataclass
class Found:
    """One search: whether a path ended, its best one's value, and what that one is worth without noise (or right)."""

    ended: bool
    value: float
    worth: float


def simulate(strategy: MCTS, world: World, budget: int) -> Found:
    """Drive a plan by hand until its budget is spent."""
    tree, left = empty_tree(), budget
    plan = strategy(tree)
    wanted, numbers = next(plan), dict[int, int]()
    try:
        while left > 0:
            grown = list[list[Node]]()
            for expand in wanted:
                node, children = expand.node, list[Node]()
                want = min(expand.max_tokens or LONGEST, LONGEST - node.length)
                for grant in fair_split([want] * expand.n, left):
                    if grant > 0:
                        number = numbers[node.index] = numbers.get(node.index, 0) + 1
                        children.append(tree.add(world.grow(tree, node, number, grant)))
                left -= sum(child.length - node.length for child in children)
                grown.append(children)
            wanted = plan.send(grown)
    except StopIteration:
        pass
    best = max((node for node in tree if node.ended), key=lambda node: node.value, default=None)
    return Found(False, 0.0, 0.0) if best is None else Found(True, best.value, world.worth[best.index])


def empty_tree() -> Tree:
    model = run_search(FakeGenerator(), BestOfN(n=1), budget=4).tree
    assert model is not None
    return Tree("Why?", model.prompt_ids, model.segmenter, model.decode)


@dataclass
class Watched:
    """A strategy, and the questions for which its plan brought a path to an end."""

    endless: ClassVar[bool] = True
    needs_scores: ClassVar[bool] = True

    strategy: MCTS
    ended: set[tuple[int, ...]] = field(default_factory=set)

    def __call__(self, tree: Tree) -> Plan:
        try:
            yield from self.strategy(tree)
        finally:
            if any(node.ended for node in tree):
                self.ended.add(tree.prompt_ids)


def search_puzzles(
    searcher: Searcher, strategy: MCTS, thought: int, budget: int, args: argparse.Namespace
) -> list[Found]:
    """Every puzzle, with lengths scaled from `thought` tokens down to the embedded model's."""
    scale = PUZZLE_THOUGHT / thought
    asked = held_out(args.puzzles)
    watched = Watched(replace(strategy, expansion_tokens=round(EXPANSION * scale)))
    results = searcher.search_many(
        [puzzle.question for puzzle in asked], strategy=watched, budget=round(budget * scale), seed=args.seed
    )
    found = {}
    for result in results:
        assert result.tree is not None
        right = asked[result.index].grade(result.answer)
        found[result.index] = Found(result.tree.prompt_ids in watched.ended, result.score or 0.0, float(right))
    return [found[i] for i in range(len(asked))]


def ended(found: Sequence[Found]) -> int:
    return sum(one.ended for one in found)


def difference(new: Sequence[Found], old: Sequence[Found], what: str, *, every: bool = False) -> str:
    """The default's minus the old constant's, over the searches in which both ended a path, or over all."""
    both = [(n, o) for n, o in zip(new, old, strict=True) if every or (n.ended and o.ended)]
    if len(both) < 2:
        return "-"
    return str(paired_difference([getattr(n, what) for n, _ in both], [getattr(o, what) for _, o in both]))


def simulation(args: argparse.Namespace) -> list[Table]:
    """How many searches ended a path in the worst world, and what was found in each world."""
    settings = {"selection": args.selection, "backup": args.backup}
    old, new = MCTS(exploration=2**0.5, **settings), MCTS(**settings)
    worlds = [(shape, noise) for shape in args.shapes for noise in args.noise]
    cells = [(thought, budget) for thought in args.thoughts for budget in args.budgets]
    found = dict[tuple[str, float, int, int], tuple[list[Found], list[Found]]]()
    for shape, noise in worlds:
        for thought, budget in cells:
            seeds = [f"{args.seed} {shape} {noise} {thought} {budget} {i}" for i in range(args.seeds)]
            found[shape, noise, thought, budget] = (
                [simulate(old, World(thought, shape, noise, seed), budget) for seed in seeds],
                [simulate(new, World(thought, shape, noise, seed), budget) for seed in seeds],
            )
    endings = Table(f"thought / budget: of {args.seeds}", *(f"{budget:,}" for budget in args.budgets))
    for thought in args.thoughts:
        row = [[found[shape, noise, thought, budget] for shape, noise in worlds] for budget in args.budgets]
        fewest = [[min(ended(arm[i]) for arm in cell) for i in range(2)] for cell in row]
        endings.add_row(f"{thought:,}", *(f"{before} -> {after}" for before, after in fewest))
    values = Table("values", "noise", "both ended", "best value", "what it is worth")
    for shape, noise in worlds:
        arms = [found[shape, noise, *cell] for cell in cells]
        before = [one for arm in arms for one in arm[0]]
        after = [one for arm in arms for one in arm[1]]
        both = sum(o.ended and n.ended for o, n in zip(before, after, strict=True))
        values.add_row(
            shape, f"{noise:g}", str(both), difference(after, before, "value"), difference(after, before, "worth")
        )
    return [endings, values]


def puzzles(args: argparse.Namespace) -> list[Table]:
    """The embedded model: searches that ended a path, the best value, and answers that are right."""
    table = Table(
        "thought", "budget", f"ended, of {args.puzzles}", "best value", "accuracy, old", "accuracy, difference"
    )
    with Searcher(generator="transformers", max_tokens=96, answer_tokens=32, concurrency=args.puzzles) as searcher:
        for thought in args.thoughts:
            for budget in args.budgets:
                old = search_puzzles(searcher, MCTS(exploration=2**0.5), thought, budget, args)
                new = search_puzzles(searcher, MCTS(), thought, budget, args)
                table.add_row(
                    f"{thought:,}",
                    f"{budget:,}",
                    f"{ended(old)} -> {ended(new)}",
                    difference(new, old, "value"),
                    f"{sum(one.worth for one in old) / len(old):.2f}",
                    difference(new, old, "worth", every=True),
                )
    return [table]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--puzzles", type=int, help="search so many puzzles with the embedded model, instead")
    parser.add_argument("--thoughts", type=int, nargs="+", default=[2000, 4000, 8000, 12_000], help="tokens")
    parser.add_argument("--budgets", type=int, nargs="+", default=[40_000, 80_000, 120_000, 160_000], help="tokens")
    parser.add_argument("--shapes", nargs="+", default=["flat", "rising", "falling", "late"], help="of values")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.03, 0.1, 0.3], help="standard deviation")
    parser.add_argument("--selection", choices=["uct", "puct"], default="uct", help="in the simulation")
    parser.add_argument("--backup", choices=["mean", "max"], default="mean", help="in the simulation")
    parser.add_argument("--seeds", type=int, default=20, help="simulated searches of each kind")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    console = Console()
    for table in puzzles(args) if args.puzzles else simulation(args):
        console.print(table)
    shown = {name: value for name, value in vars(args).items() if value is not None}
    console.print(", ".join(f"{name} {value}" for name, value in shown.items()))


if __name__ == "__main__":
    main()
