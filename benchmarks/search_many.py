"""How much of the raw engine's throughput does `search_many` keep?

    python benchmarks/search_many.py [--model FOLDER] [--questions 32] [--n 16] [--pairs 5]

Best-of-n over many questions through one vLLM engine, against the same engine given the same token work at once: every
prefix that the search sent, with exactly as many tokens as it sampled there, no strategy, no scoring, no waiting for
a best thinking part before its answer. The two alternate on one warm engine, with the prefix cache emptied before
each, so that a noisy machine bears on both.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tts_search import BestOfN, Completion, Request, Searcher
from tts_search.embedded.puzzles import held_out
from tts_search.generators import vllm_engine
from tts_search.generators.vllm import VLLMGenerator
from tts_search.models import EMBEDDED

Work = list[tuple[tuple[int, ...], int]]  # prefix, tokens sampled behind it


class Recording(VLLMGenerator):
    """Keeps what was asked of the engine."""

    work: Work

    async def generate(self, request: Request) -> Sequence[Completion]:
        completions = await super().generate(request)
        self.work += [(request.prefix, completion.sampled_tokens) for completion in completions]
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
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=128, help="limit of one thinking part")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    args = parser.parse_args()
    model = args.model if args.model == EMBEDDED else Path(args.model)
    generator = Recording(model, max_model_len=512, enforce_eager=args.eager, max_num_seqs=256)
    questions = [puzzle.question for puzzle in held_out(args.questions, seed=0)]
    ratios: list[float] = []
    table = Table("pair", "search_many, s", "raw engine, s", "tokens", "of raw throughput")
    with Searcher(
        generator=generator, max_tokens=args.max_tokens, answer_tokens=32, concurrency=args.questions
    ) as searcher:
        call = searcher._loop.call  # the engine lives in the searcher's loop
        for pair in range(args.pairs + 1):
            generator.work = []
            call(generator.reset_prefix_cache())
            started = time.perf_counter()
            results = list(searcher.search_many(questions, strategy=BestOfN(n=args.n), seed=pair, selector="best"))
            searched = time.perf_counter() - started
            assert not any(result.error for result in results), [r.error for r in results if r.error][:1]
            tokens = sum(result.usage.sampled_tokens for result in results)
            call(generator.reset_prefix_cache())
            started = time.perf_counter()
            assert call(generator.replay()) == tokens
            raw = time.perf_counter() - started
            if pair:  # the first pair warms the engine up
                ratios.append(raw / searched)
                table.add_row(str(pair), f"{searched:.2f}", f"{raw:.2f}", str(tokens), f"{ratios[-1]:.3f}")
    console = Console()
    console.print(table)
    console.print(
        f"median {statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f}) of the raw engine's "
        f"throughput; {generator.name}, Best-of-{args.n} over {args.questions} questions, "
        f"{'eager' if args.eager else 'compiled'}, {args.pairs} pairs"
    )


if __name__ == "__main__":
    main()
