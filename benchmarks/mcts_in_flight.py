"""How many sequences does one MCTS tree keep in flight, and what do more leaves a round cost in accuracy?

    python benchmarks/mcts_in_flight.py [--leaves 1 8] [--budget 2000] [--questions 300]

Each search is given the same budget. A round's sequences start together and each takes as many decoding steps as it has
tokens, so a search keeps `tokens / sum over its rounds of the longest sequence` in flight on average: a number of the
tree alone, whatever the engine, the machine and the other questions. Differences are paired by question, with 95 %
intervals, against the first number of leaves.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import ClassVar

from rich.console import Console
from rich.table import Table

from tts_search import MCTS, Searcher, Tree, Until
from tts_search.core.protocols import Plan, Strategy
from tts_search.embedded.puzzles import held_out
from tts_search.metrics import bootstrap, paired_difference


@dataclass
class Watched:
    """A strategy, and for every question the tokens and the decoding steps of its rounds."""

    endless: ClassVar[bool] = True

    strategy: Strategy
    tokens: defaultdict[tuple[int, ...], int] = field(default_factory=lambda: defaultdict(int))
    steps: defaultdict[tuple[int, ...], int] = field(default_factory=lambda: defaultdict(int))

    def __call__(self, tree: Tree) -> Plan:
        plan = self.strategy(tree)
        wanted = next(plan, None)
        while wanted is not None:
            grown = yield wanted
            lengths = [len(node.token_ids) for children in grown for node in children]
            self.tokens[tree.prompt_ids] += sum(lengths)
            self.steps[tree.prompt_ids] += max(lengths, default=0)
            try:
                wanted = plan.send(grown)
            except StopIteration:
                return

    def in_flight(self) -> list[float]:
        """The mean for every question."""
        return [self.tokens[question] / self.steps[question] for question in self.tokens]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leaves", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--children", type=int, default=4)
    parser.add_argument("--budget", type=int, default=2000, help="tokens a question")
    parser.add_argument("--questions", type=int, default=300, help="held-out puzzles")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    puzzles = held_out(args.questions)
    mcts = MCTS(until=Until.STEP, children=args.children, exploration=2**0.5)
    right = dict[int, list[float]]()
    table = Table("leaves a round", "sequences in flight (median question)", "accuracy", "difference", "tokens")
    with Searcher(generator="transformers", max_tokens=96, answer_tokens=32, concurrency=args.questions) as searcher:
        for leaves in args.leaves:
            watched = Watched(replace(mcts, leaves=leaves))
            found = {
                result.index: result
                for result in searcher.search_many(
                    [puzzle.question for puzzle in puzzles], strategy=watched, budget=args.budget, seed=args.seed
                )
            }
            right[leaves] = [float(puzzle.grade(found[i].answer)) for i, puzzle in enumerate(puzzles)]
            difference = paired_difference(right[leaves], right[args.leaves[0]])
            table.add_row(
                str(leaves),
                f"{statistics.median(watched.in_flight()):.1f} (least {min(watched.in_flight()):.1f})",
                str(bootstrap(right[leaves])),
                "" if leaves == args.leaves[0] else str(difference),
                f"{statistics.mean(result.usage.sampled_tokens for result in found.values()):,.0f}",
            )
    console = Console()
    console.print(table)
    console.print(f"{mcts} on the embedded model, budget {args.budget:,}, {args.questions} puzzles, seed {args.seed}")


if __name__ == "__main__":
    main()
