"""What our own code costs for every sampled token: one question on an engine that is instant.

    python benchmarks/core_cost.py [--against OTHER_CHECKOUT] [--rounds 5] [--read]

The engine writes steps of 40 tokens, and thoughts of 32,000 that end; what it spends is measured and taken off. It asks
a request's prefix for its length alone; with `--read` it makes a list of it, as an engine in this process must, and
that counts as ours. The scores that it returns are the head's, so that the scorer is the product's own.

Every measurement is a process of its own, one after another, this checkout and the other in turn, so that a noisy
machine bears on both. Measured is the CPU time of all its threads; ratios are medians of those of each round. Memory is
what the result keeps alive, its tree included (`tracemalloc`, in a process apart). The cases have no budget but where a
strategy would not end: a budget changes how samples are started.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import time
import tracemalloc
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import tts_search
from tts_search import (
    MCTS,
    BestFirst,
    BestOfN,
    Completion,
    Contains,
    Request,
    Sampling,
    Searcher,
    StepBeamSearch,
    Strategy,
)
from tts_search.testing import FakeTokenizer

HERE = Path(__file__).resolve()
STEP_TOKENS = 40
VARIANTS = 4096  # different continuations of one place: as good as never two the same
WORDS = [f" {a}{b}".encode() for a in "bcdfghklmnprstvw" for b in "aeiou"]


@dataclass(frozen=True)
class Case:
    """A search to measure: `searches` of them, so that short ones take as long as long ones."""

    strategy: Strategy
    thought: int = 32_000
    budget: int | None = None
    searches: int = 1


CASES = {
    "Best-of-5": Case(BestOfN(n=5)),
    "MCTS, the paper's": Case(MCTS(), budget=160_000),
    "best-first": Case(BestFirst(), budget=160_000),
    "beam 4x4": Case(StepBeamSearch(width=4, branching=4), budget=160_000),
    "beam 1x4": Case(StepBeamSearch(width=1, branching=4)),
    "beam 1x4, paths of 4,000": Case(StepBeamSearch(width=1, branching=4), thought=4_000, searches=8),
}


class Words(FakeTokenizer):
    """The fake tokenizer with words, whose ids are as large as real ones: Python keeps no copy of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first_word = len(self.pieces)
        self.pieces = (*self.pieces, *WORDS)


@dataclass(frozen=True)
class Head:
    """What a generator with an SPRM head says of it; the class itself would import torch in older versions."""

    readout: str = "previous"
    step_rule: object = Contains(".\n\n")
    aggregation: str = "geometric_mean"


class Instant:
    """Continues any place of a response at once; the seed says with which of many stretches of words."""

    name = "instant"
    context_tokens = 1_000_000
    sampling = Sampling()
    head_config = cast(Any, Head())

    def __init__(self, thought: int, question: str, *, read: bool) -> None:
        self.tokenizer = Words()
        self.seconds = 0.0  # of CPU
        self.prompt = len(self.tokenizer.render(question))
        self.thought = thought
        self.read = read
        (self.end,) = self.tokenizer.eos_ids
        (self.step,) = self.tokenizer.encode(".\n\n")
        self.close = self.tokenizer.thinking[1] if self.tokenizer.thinking else -1
        chance, longest = random.Random(0), thought + VARIANTS * STEP_TOKENS
        word = self.tokenizer.first_word
        ids = [self.step if i % STEP_TOKENS == 0 else chance.randrange(len(WORDS)) + word for i in range(1, longest)]
        # Numbers out of an array are new objects each time, as those out of an engine are.
        self.ids = array("l", ids)
        self.logprobs = array("d", (-chance.random() for _ in ids))
        self.scores = array("d", (chance.gauss(1, 1) for _ in ids))
        self.answer = self.tokenizer.encode("\\boxed{7}")

    async def generate(self, request: Request) -> Sequence[Completion]:
        if self.read:
            list(request.prefix)
        started = time.thread_time()
        place = len(request.prefix) - self.prompt
        completions = [self._complete(request, place, seed) for seed in request.seeds]
        self.seconds += time.thread_time() - started
        return completions

    def _complete(self, request: Request, place: int, seed: int) -> Completion:
        if self.close not in request.stop_ids:  # it is the answer's turn
            count, last = 0, (*self.answer, self.end)[: request.max_tokens]
        else:
            stops = self.step in request.stop_ids and place < self.thought
            left = STEP_TOKENS - place % STEP_TOKENS if stops else self.thought - place
            count = min(left, request.max_tokens)
            last = () if stops or count == request.max_tokens else (self.close,)
        shift = place % STEP_TOKENS + STEP_TOKENS * (seed % VARIANTS)
        part, rest = slice(shift, shift + count), (-0.5,) * len(last)
        return Completion(
            token_ids=(*self.ids[part], *last),
            logprobs=(*self.logprobs[part], *rest),
            scores=(*self.scores[part], *rest),
            sampled_tokens=count + len(last),
        )

    async def aclose(self) -> None:
        pass


def measure(name: str, *, memory: bool, read: bool) -> dict[str, Any]:
    """One case, in this process: CPU microseconds and bytes a token, and what was searched."""
    case, question = CASES[name], "Why?"
    engine = Instant(case.thought, question, read=read)
    with Searcher(generator=engine) as searcher:
        searcher.search(question, strategy=BestOfN(n=1), budget=400)  # imports and caches
        gc.collect()
        if memory:
            tracemalloc.start()
        engine.seconds, started = 0.0, time.process_time()
        results = [
            searcher.search(question, strategy=case.strategy, budget=case.budget, seed=seed)
            for seed in range(case.searches)
        ]
        cpu = time.process_time() - started - engine.seconds
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] if memory else 0
    tokens = sum(result.usage.sampled_tokens for result in results)
    return {
        "cpu": 1e6 * cpu / tokens,
        "bytes": kept / tokens,
        "engine": 1e6 * engine.seconds / tokens,
        "tokens": tokens,
        "longest": max(node.length for result in results for node in result.tree or ()),
        "package": str(Path(tts_search.__file__).resolve().parent),
    }


def measured_apart(checkout: Path, name: str, *, memory: bool, read: bool) -> dict[str, Any]:
    """`measure` in a process that imports `tts_search` from a checkout."""
    command = [sys.executable, str(HERE), "--measure", name, *["--memory"] * memory, *["--read"] * read]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found = json.loads(done.stdout)
    if Path(found["package"]).parent != checkout:
        sys.exit(f"{checkout} was to be measured, and {found['package']} was imported")
    return found


Costs = dict[tuple[str, str], list[float]]
"""Microseconds a token, one for each round, by case and side."""


def report(sides: dict[str, Path], names: Sequence[str], rounds: int, *, read: bool) -> None:
    """Measure and print."""
    costs: Costs = {(name, side): [] for name in names for side in sides}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for number in range(rounds):
        for name in names:
            for side in list(sides)[:: -1 if number % 2 else 1]:
                found[name, side] = measured_apart(sides[side], name, memory=False, read=read)
                costs[name, side].append(found[name, side]["cpu"])
    print(
        f"CPU microseconds a sampled token: median [least .. most] of {rounds} rounds; bytes a token that results keep"
    )
    print(f"{'':25}{'':6}{'tokens':>8}{'longest':>8}{'microseconds':>24}{'of Best-of-5':>14}{'bytes':>7}")
    for (name, side), cost in costs.items():
        work = found[name, side]
        kept = measured_apart(sides[side], name, memory=True, read=read)["bytes"]
        spread = f"{statistics.median(cost):6.2f} [{min(cost):6.2f} .. {max(cost):6.2f}]"
        share = ratio(costs, (name, side), (next(iter(CASES)), side))
        print(f"{name:25}{side:6}{work['tokens']:8,}{work['longest']:8,}{spread:>24}{share:>14}{kept:7.0f}", flush=True)
    long, short = list(CASES)[-2:]
    for side in sides:
        print(
            f"{long}, {side}: {ratio(costs, (long, side), (short, side)) or 'not'} times what it costs at 4,000 tokens"
        )
    for name in names if len(sides) == 2 else ():
        print(f"{name}: {ratio(costs, (name, 'here'), (name, 'there'))} of the other checkout's")


def ratio(costs: Costs, one: tuple[str, str], other: tuple[str, str]) -> str:
    """Median over rounds of one cost as a multiple of another."""
    pairs = zip(costs[one], costs.get(other, ()), strict=False)
    ratios = [a / b for a, b in pairs]
    return f"{statistics.median(ratios):.2f}" if ratios else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--against", type=Path, metavar="OTHER_CHECKOUT", help="measured in turn with this one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--read", action="store_true", help="the engine reads every prefix, at our expense")
    parser.add_argument("--measure", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, memory=options.memory, read=options.read)))
        return
    sides = {"here": HERE.parent.parent} | ({"there": options.against.resolve()} if options.against else {})
    report(sides, options.cases, options.rounds, read=options.read)


if __name__ == "__main__":
    main()
