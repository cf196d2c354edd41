"""What scores cost: decode time on vLLM with an SPRM head in the engine, against the same policy without.

    python benchmarks/score_overhead.py --model FOLDER

Three arms take turns in every round, so that a busy machine slows them alike: `plain` is the policy's own model class
and no log-probabilities, `log-probabilities` asks the same engine for each token's, `scores` is what the generator does
with a head. A ratio is an arm's time over the same round's `plain`. A model folder without a head gets a random one,
which costs the same as a trained one.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tts_search.core.protocols import Request, Sampling
from tts_search.generators.vllm import VLLMGenerator
from tts_search.generators.vllm import engine as vllm_engine
from tts_search.sprm.config import SPRMConfig
from tts_search.sprm.loading import head_folder
from tts_search.sprm.module import SPRM

SAMPLING = Sampling(temperature=1.0, top_p=1.0)
NUMBERS = count()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model folder (Llama, Qwen2 or Qwen3)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--concurrency", type=int, default=16, help="completions at once")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each completion")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--eager", action="store_true", help="do not compile the model")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        head = head_folder(options.model) or random_head(options.model, Path(scratch), options.seed)
        rounds = asyncio.run(measure(options, head))
    report(options, rounds)


def random_head(model: Path, folder: Path, seed: int) -> Path:
    import json

    import torch

    torch.manual_seed(seed)
    size = json.loads((model / "config.json").read_text())["hidden_size"]
    SPRM(SPRMConfig(hidden_size=size)).save_pretrained(folder)
    return folder


async def measure(options: argparse.Namespace, head: Path) -> list[dict[str, float]]:
    """Seconds of every arm in every round, the warm-up left out."""

    async def engine(stack: AsyncExitStack, head: Path | None) -> VLLMGenerator:
        generator = VLLMGenerator(
            options.model,
            head=head,
            dtype=options.dtype,
            max_model_len=options.prompt_tokens + options.tokens,
            kv_cache_gib=0.5,
            max_num_seqs=options.concurrency,
            enforce_eager=options.eager,
            seed=options.seed,
        )
        stack.push_async_callback(generator.aclose)
        await generator.start()
        return generator

    async with AsyncExitStack() as stack:
        bare = await engine(stack, None)
        scoring = await engine(stack, head)
        draw = random.Random(options.seed)
        prompt = tuple(draw.randrange(100, 10_000) for _ in range(options.prompt_tokens))
        seeds = tuple(range(options.concurrency))
        request = Request(
            prefix=prompt, seeds=seeds, max_tokens=options.tokens, stop_ids=frozenset(), sampling=SAMPLING
        )
        arms: dict[str, Callable[[], Awaitable[object]]] = {
            "plain": lambda: plain(bare, request),
            "log-probabilities": lambda: bare.generate(request),
            "scores": lambda: scoring.generate(request),
        }
        rounds: list[dict[str, float]] = []
        for number in range(options.rounds + 1):
            order = list(arms)[number % 3 :] + list(arms)[: number % 3]
            seconds: dict[str, float] = {}
            for arm in order:
                start = time.perf_counter()
                await arms[arm]()
                seconds[arm] = time.perf_counter() - start
            print(
                f"round {number}:",
                {arm: round(value, 2) for arm, value in seconds.items()},
                file=sys.stderr,
                flush=True,
            )
            rounds.append(seconds)
        return rounds[1:]


async def plain(generator: VLLMGenerator, request: Request) -> None:
    """The same work on vLLM itself, without log-probabilities."""
    engine = await generator._engine()

    async def one(seed: int) -> None:
        params = vllm_engine.sampling_params(
            request.sampling,
            seed=seed,
            max_tokens=request.max_tokens,
            stop_ids=request.stop_ids,
            columns=None,
            streaming=False,
        )
        params.logprobs = None
        prompt = {"prompt_token_ids": list(request.prefix)}
        async for output in engine.generate(prompt, params, f"plain-{next(NUMBERS)}"):
            assert len(output.outputs[0].token_ids) == request.max_tokens

    await asyncio.gather(*(one(seed) for seed in request.seeds))


def report(options: argparse.Namespace, rounds: Sequence[dict[str, float]]) -> None:
    tokens = options.concurrency * options.tokens
    table = Table(title=f"{options.model.name}, {options.dtype}, {'eager' if options.eager else 'compiled'}")
    for column in ("arm", "tokens/s (median)", "time over plain (median)", "smallest", "largest"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for arm in ("plain", "log-probabilities", "scores"):
        ratios = [seconds[arm] / seconds["plain"] for seconds in rounds]
        speed = tokens / statistics.median(seconds[arm] for seconds in rounds)
        figures = (statistics.median(ratios), min(ratios), max(ratios))
        table.add_row(arm, f"{speed:.1f}", *(f"{figure:.3f}" for figure in figures))
    console = Console(width=110)
    console.print(table)
    console.print(
        f"{len(rounds)} rounds of {options.concurrency} completions of {options.tokens} tokens behind "
        f"{options.prompt_tokens}, seed {options.seed}"
    )
    console.print("python " + " ".join([sys.argv[0], *sys.argv[1:]]), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
