"""Is memory flat over many questions? One `search_many` without trees, on an engine that is instant.

    python benchmarks/many_questions.py [--questions 5000] [--strategy best_of_n|beam|best_first|mcts]

Every question spends about 6,400 tokens (the engine of `core_cost.py`: steps of 40 tokens, thoughts of 1,600). What
the process holds is read ten times on the way; each question must come back, once, with an answer. The questions come
from a generator, and the results are let go of as a user's loop would.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterator

import psutil

from tts_search import MCTS, BestFirst, BestOfN, Searcher, StepBeamSearch, Strategy

from core_cost import Instant  # isort: skip  (its neighbour: scripts are run from their folder)

THOUGHT = 1_600
SPENT = 6_400
MIB = 2**20
STRATEGIES: dict[str, tuple[Strategy, int | None]] = {
    "best_of_n": (BestOfN(n=4), None),
    "beam": (StepBeamSearch(width=2, branching=2), SPENT),
    "best_first": (BestFirst(), SPENT),
    "mcts": (MCTS(expansion_tokens=400), SPENT),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=5_000)
    parser.add_argument("--strategy", choices=list(STRATEGIES), default="best_of_n")
    options = parser.parse_args()
    strategy, budget = STRATEGIES[options.strategy]
    searcher = Searcher(generator=Instant(THOUGHT, "What is 1 + 1?", read=False))
    process, seen, tokens, held = psutil.Process(), set[int](), 0, list[float]()
    started = time.process_time()
    with searcher:
        results = searcher.search_many(
            questions(options.questions), strategy=strategy, budget=budget, seed=0, keep_tree=False
        )
        for result in results:
            index = result.index
            if result.error or index in seen or not result.answer:
                raise SystemExit(f"question {index}: {result.error or 'twice, or without an answer'}")
            seen.add(index)
            tokens += result.usage.sampled_tokens
            if len(seen) % max(1, options.questions // 10) == 0:
                gc.collect()
                held.append(process.memory_info().rss / MIB)
                print(f"{len(seen):7,} questions, {tokens:11,} tokens: {held[-1]:7.1f} MiB", flush=True)
    if len(seen) != options.questions:
        raise SystemExit(f"{len(seen):,} of {options.questions:,} questions came back")
    seconds = time.process_time() - started
    print(f"from the first tenth to the last: {held[-1] - held[0]:+.1f} MiB; {seconds:.0f} s of CPU")


def questions(count: int) -> Iterator[str]:
    """All of one length in tokens, which tells the engine where a response begins."""
    return (f"What is {i % 10} + {i % 7}?" for i in range(count))


if __name__ == "__main__":
    main()
