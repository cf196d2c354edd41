"""What a tree search itself costs: selection and backup per node in a tree of 100,000 nodes, without engine and scorer.

    python benchmarks/tree_cost.py

Drives the plan of a strategy by hand. Timed is the plan alone (`send`), in five stretches of the tree's growth; making
the nodes is not. CPU time, since other work on the machine is not the tree's.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import replace

from tts_search import MCTS, BestFirst, BestOfN, Tree, Until
from tts_search.core.protocols import Strategy
from tts_search.testing import FakeGenerator, run_search

STRATEGIES: dict[str, Strategy] = {
    "mcts, one leaf a round": MCTS(until=Until.STEP),
    "mcts, 16 leaves a round": MCTS(until=Until.STEP, leaves=16),
    "mcts, puct, max, 16 leaves": MCTS(until=Until.STEP, leaves=16, selection="puct", backup="max"),
    "best-first, one leaf a round": BestFirst(leaves=1),
    "best-first, 16 leaves a round": BestFirst(leaves=16),
}


def grow(strategy: Strategy, nodes: int, seed: int) -> list[float]:
    """Microseconds a node, in each fifth of the tree's growth."""
    model = run_search(FakeGenerator(), BestOfN(n=1), budget=4).tree
    assert model is not None
    pattern, chance = model.nodes[1], random.Random(seed)
    tree = Tree("Why?", model.prompt_ids, model.segmenter, model.decode)
    plan = strategy(tree)
    costs, spent, begun = [], 0.0, 1
    wanted = next(plan)
    while len(tree) < nodes:
        grown = []
        for expand in wanted:
            children = []
            for _ in range(expand.n):
                score = chance.random()
                node = replace(pattern, index=len(tree), parent=expand.node.index, step_scores=(score,), value=score)
                children.append(tree.add(node))
            grown.append(children)
        started = time.process_time()
        wanted = plan.send(grown)
        spent += time.process_time() - started
        if len(tree) - begun >= nodes // 5:
            costs.append(1e6 * spent / (len(tree) - begun))
            spent, begun = 0.0, len(tree)
    plan.close()
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"microseconds a node while a tree grows to {options.nodes:,} nodes, by fifths (seed {options.seed})")
    for name, strategy in STRATEGIES.items():
        costs = grow(strategy, options.nodes, options.seed)
        print(f"  {name:32}" + "".join(f"{cost:8.1f}" for cost in costs), flush=True)


if __name__ == "__main__":
    main()
