"""How much of the raw engine's throughput does a search keep, and how much of what its paths share is computed once?

    python benchmarks/search_many.py [--strategy best_of_n|beam|mcts|best_first] [--model FOLDER] [--pairs 5]

One strategy over many questions through one vLLM engine, against the same engine given the same token work at once:
every prefix that the search sent, with exactly as many tokens as it sampled there, no strategy, no scoring, no waiting
for one step before the next. The two alternate on one warm engine, with the prefix cache emptied before each, so that a
noisy machine bears on both. A model without a head gets a random one.

Beside it: of the prompt tokens that could come from the prefix cache, which share came. They could if an earlier
request held the same whole blocks in front, or left them behind; the last token of a prompt never can.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tts_search import DVTS, MCTS, BestFirst, BestOfN, Completion, Request, Searcher, StepBeamSearch, Until
from tts_search.core.protocols import Strategy
from tts_search.embedded.puzzles import held_out
from tts_search.generators.vllm import VLLMGenerator
from tts_search.generators.vllm import engine as vllm_engine
from tts_search.models import EMBEDDED, model_folder
from tts_search.sprm.loading import head_folder

from score_overhead import random_head  # isort: skip  (its neighbour: scripts are run from their folder)

STRATEGIES: dict[str, Strategy] = {
    "best_of_n": BestOfN(n=16),
    "beam": StepBeamSearch(width=4, branching=4),
    "dvts": DVTS(subtrees=4, branching=4),
    "mcts": MCTS(until=Until.STEP, leaves=4, exploration=2**0.5),
    "best_first": BestFirst(leaves=8),
}
BLOCK = 32


class Recording(VLLMGenerator):
    """Keeps what was asked of the engine, and counts what it need not have computed."""

    def forget(self) -> None:
        """Begin anew."""
        self.work: list[tuple[tuple[int, ...], int]] = []  # prefix, tokens sampled behind it
        self.known: set[int] = set()  # whole blocks, each with all before it, that the engine has met
        self.shareable = self.shared = 0

    async def generate(self, request: Request) -> Sequence[Completion]:
        blocks = [hash(request.prefix[:end]) for end in range(BLOCK, len(request.prefix), BLOCK)]
        met = [block in self.known for block in blocks]
        first = BLOCK * (met.index(False) if False in met else len(met))
        self.shareable += first + (len(request.seeds) - 1) * BLOCK * len(blocks)
        self.known.update(blocks)
        completions = await super().generate(request)
        for completion in completions:
            whole = (*request.prefix, *completion.token_ids[:-1])
            self.known.update(hash(whole[:end]) for end in range(BLOCK, len(whole) + 1, BLOCK))
            self.work.append((tuple(request.prefix), completion.sampled_tokens))
            self.shared += completion.cached_tokens
        return completions

    async def replay(self) -> int:
        """The same token work, all at once, by the engine alone."""
        engine = await self._engine()

        async def one(number: int, prefix: tuple[int, ...], tokens: int) -> int:
            params = vllm_engine.sampling_params(
                self.sampling,
                seed=number,
                max_tokens=tokens,
                stop_ids=frozenset(),
                columns=self._columns,
                streaming=False,
            )
            done = await vllm_engine.run(engine, f"raw-{number}-{time.monotonic_ns()}", prefix, params)
            return len(done.tokens)

        return sum(await asyncio.gather(*(one(i, prefix, tokens) for i, (prefix, tokens) in enumerate(self.work))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED, help="model folder, or 'embedded'")
    parser.add_argument("--strategy", choices=STRATEGIES, default="best_of_n")
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument(
        "--budget", type=int, default=800, help="tokens a question, for what searches until it is stopped"
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=128, help="limit of one thinking part")
    parser.add_argument("--max-num-seqs", type=int, help="completions at once in the engine (default: vLLM's)")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--seed", type=int, default=0, help="of a random head")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = args.model if args.model == EMBEDDED else Path(args.model)
        folder = model_folder(model)
        measure(args, model, head_folder(folder) or random_head(folder, Path(scratch), args.seed))


def measure(args: argparse.Namespace, model: str | Path, head: Path) -> None:
    """Alternate search and replay, and print what they took."""
    strategy = STRATEGIES[args.strategy]
    budget = args.budget if getattr(strategy, "endless", False) else None
    generator = Recording(
        model,
        head=head,
        max_model_len=512,
        enforce_eager=args.eager,
        max_num_seqs=args.max_num_seqs,
        engine_args={"block_size": BLOCK},
    )
    questions = [puzzle.question for puzzle in held_out(args.questions, seed=0)]
    ratios: list[float] = []
    table = Table("pair", "search, s", "raw engine, s", "tokens", "of raw throughput", "from the cache")
    with Searcher(
        generator=generator, max_tokens=args.max_tokens, answer_tokens=32, concurrency=args.questions
    ) as searcher:
        call = searcher._loop.call  # the engine lives in the searcher's loop
        for pair in range(args.pairs + 1):
            generator.forget()
            call(generator.reset_prefix_cache())
            started = time.perf_counter()
            results = list(searcher.search_many(questions, strategy=strategy, budget=budget, seed=pair))
            searched = time.perf_counter() - started
            assert not any(result.error for result in results), [r.error for r in results if r.error][:1]
            tokens = sum(result.usage.sampled_tokens for result in results)
            call(generator.reset_prefix_cache())
            started = time.perf_counter()
            assert call(generator.replay()) == tokens
            raw = time.perf_counter() - started
            if pair:  # the first pair warms the engine up
                ratios.append(raw / searched)
                cached = f"{generator.shared:,} of {generator.shareable:,}"
                table.add_row(str(pair), f"{searched:.2f}", f"{raw:.2f}", str(tokens), f"{ratios[-1]:.3f}", cached)
    console = Console()
    console.print(table)
    console.print(
        f"median {statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f}) of the raw engine's "
        f"throughput; last pair: {generator.shared / max(1, generator.shareable):.1%} of the prompt tokens that can be "
        f"shared came from the cache; {generator.name}, {strategy} over {args.questions} questions, budget "
        f"{budget}, {'eager' if args.eager else 'compiled'}, {args.pairs} pairs"
    )


if __name__ == "__main__":
    main()
