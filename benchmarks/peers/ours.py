"""One run of ours over an endpoint, for `compare.py`: eight questions at once, an instant scorer.

    python benchmarks/peers/ours.py WHAT URL QUESTIONS

Prints seconds and processor seconds of the searches, and of the whole process, as JSON.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Sequence

from tts_search import DVTS, MCTS, BestOfN, Searcher, StepBeamSearch
from tts_search.core.protocols import Strategy, Until
from tts_search.core.tree import Trajectory
from tts_search.generators.openai import OpenAIGenerator

MCTS_TOKENS = 3_650  # a question: what is kept for an answer is left over, so as many are sampled as the peer samples
STEP = ".\n\n"  # as the peers are told
STRATEGIES: dict[str, Strategy] = {
    "beam": StepBeamSearch(width=4, branching=4),
    "dvts": DVTS(subtrees=4, branching=4),
    "best_of_16": BestOfN(n=16),
    "mcts": MCTS(leaves=4, until=Until.STEP, finishing=0.0),
}


class Instant:
    """Scores a step by a hash of the text so far, as the peers' scorers here do."""

    inline = True

    def score_new(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        return [[_value(t.text)] * len(t.new_step_ends) for t in trajectories]

    def score(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        return [[_value(t.text)] * t.step_count for t in trajectories]


def _value(text: str) -> float:
    return hashlib.blake2b(text.encode(), digest_size=2).digest()[0] / 255


def main(what: str, url: str, questions: int) -> None:
    engine = OpenAIGenerator(f"{url}/v1", head=None)  # its scores would be the stub's, and it has none
    with Searcher(generator=engine, scorer=Instant(), step_rule=STEP, concurrency=questions) as searcher:
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        asked = [f"Question {number}: how many?" for number in range(questions)]
        budget = MCTS_TOKENS if what == "mcts" else None
        results = list(searcher.search_many(asked, strategy=STRATEGIES[what], budget=budget, keep_tree=False))
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    if failed := next((result.error for result in results if result.error), None):
        raise failed
    spent = after.ru_utime + after.ru_stime
    found = {"seconds": seconds, "cpu": spent - before.ru_utime - before.ru_stime, "process_cpu": spent}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
