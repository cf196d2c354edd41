"""All strategies on the embedded model at equal token budgets: a table, and a plot of accuracy against tokens.

    python examples/compare_strategies.py [--questions 60] [--budgets 150 300 600] [--out strategies.png]

A few minutes on two cores. Every strategy gets the same questions, seeds and budgets. What is left out here, and what
`tts-search compare` adds: a log to go on from, and a page to send to a colleague.
"""

import argparse

from rich.console import Console
from rich.progress import Progress

from tts_search import DVTS, MCTS, BestFirst, BestOfN, Repeat, Searcher, StepBeamSearch, Until
from tts_search.evaluation.comparison import compare
from tts_search.evaluation.datasets import load_dataset
from tts_search.evaluation.report import comparison_figures
from tts_search.evaluation.tables import rich_table

STRATEGIES = {
    "Best-of-N": Repeat(BestOfN(n=4)),
    "beam": Repeat(StepBeamSearch(width=2, branching=4)),
    "DVTS": Repeat(DVTS(subtrees=2, branching=4)),
    "MCTS (paper)": MCTS(),
    "MCTS, a step at a time": MCTS(until=Until.STEP),
    "best-first": BestFirst(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--budgets", type=int, nargs="+", default=[150, 300, 600], help="sampled tokens a question")
    parser.add_argument("--out", default="strategies.png", help="where to put the plot")
    args = parser.parse_args()
    with Searcher(max_tokens=96, answer_tokens=32) as searcher, Progress() as progress:
        bar = progress.add_task("searching", total=args.questions * len(args.budgets) * len(STRATEGIES))
        comparison = compare(
            load_dataset("puzzles", limit=args.questions),
            searcher,
            strategies=list(STRATEGIES.values()),
            labels=list(STRATEGIES),
            budgets=args.budgets,
            on_progress=lambda *_: progress.advance(bar),
        )
    Console(width=max(110, Console().width)).print(rich_table(comparison))
    against_tokens, _ = comparison_figures(comparison)
    against_tokens.savefig(args.out, dpi=150, bbox_inches="tight")
    print(f"plot: {args.out}")


if __name__ == "__main__":
    main()
