"""What does one more step of a long path cost the transformers generator, and what do paths with one beginning hold?

    python benchmarks/prefix_memory.py [--depths 2000 8000 16000 24000 32000] [--old FOLDER] [--rounds 5]

The model has the embedded model's architecture, random weights and a long context. At every depth a path is read once
(the first step); then it goes on in steps, as a search goes on with it, and the table shows the median step, of one
path and of four that go on from one prefix. A step's own work is a forward pass for each token, so it is shown beside
the same tokens sampled in one request. Times are CPU times of the process, whose model runs on one thread. The memory
is that of what is kept at `--beam-tokens`: four paths with one beginning, against four whole copies.

`--old` is a checkout of another commit: both take turns, round by round, each in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tts_search.core.protocols import Completion, Request, Sampling
from tts_search.embedded import MODEL_FOLDER
from tts_search.generators.transformers import TransformersGenerator

CONTEXT = 40_000
STEP = 20
MIB = 2**20
COLUMNS = ("first", "one", "alone", "four")
SEEDS = itertools.count()

Ids = tuple[int, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[2_000, 8_000, 16_000, 24_000, 32_000])
    parser.add_argument("--beam-tokens", type=int, default=16_000)
    parser.add_argument("--steps", type=int, default=5, help="steps at every depth, of which the median counts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--old", type=Path, help="a checkout to compare with")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # the model: measure once, and print it as JSON
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(asyncio.run(measure(options))))
        return
    here = Path(__file__).resolve().parent.parent
    checkouts = {"this": here} if options.old is None else {"old": options.old.resolve(), "this": here}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as scratch:
        write_model(Path(scratch))
        for _ in range(options.rounds):
            for name, folder in checkouts.items():
                rounds[name].append(run(folder, Path(scratch), options))
    report(rounds, options)


def write_model(folder: Path) -> None:
    """A random checkpoint that never ends a sequence by itself."""
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(MODEL_FOLDER, max_position_embeddings=CONTEXT)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL_FOLDER).save_pretrained(folder)


def run(checkout: Path, model: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One process that measures one checkout."""
    command = [sys.executable, __file__, "--measure", str(model), "--steps", str(options.steps)]
    command += ["--beam-tokens", str(options.beam_tokens), "--depths", *map(str, options.depths)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(checkout)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds and bytes of the package that this process imports."""
    memory = await beam_memory(options)
    generator = TransformersGenerator(options.measure)
    found = {str(depth): await step_seconds(generator, depth, options.steps) for depth in options.depths}
    await generator.aclose()
    return {"memory": memory, "depths": found}


async def step_seconds(generator: TransformersGenerator, depth: int, steps: int) -> dict[str, float]:
    """At one depth: the first step, which reads the path; the median step behind it; the median of its tokens alone."""
    path = prompt(depth, seed=depth)
    first, path, _ = await go_on(generator, path)
    one, four = [], []
    for _ in range(steps):
        seconds, path, _ = await go_on(generator, path)
        one.append(seconds)
    for _ in range(steps):
        seconds, path, _ = await go_on(generator, path, rows=4)
        four.append(seconds)
    # Tokens in the middle of a request are nothing but forward passes.
    marks: list[float] = []
    await sample(generator, path, (0,), 5 * STEP, lambda _: marks.append(time.process_time()))
    gaps = [after - before for before, after in itertools.pairwise(marks)]
    alone = STEP * statistics.median(gaps)
    return {"first": first, "one": statistics.median(one), "four": statistics.median(four), "alone": alone}


async def go_on(generator: TransformersGenerator, path: Ids, rows: int = 1) -> tuple[float, Ids, Sequence[Completion]]:
    """One step of some rows: its seconds, and the path of the last row. A step that the model ended is drawn again."""
    while True:
        seeds = tuple(next(SEEDS) for _ in range(rows))
        started = time.process_time()
        completions = await sample(generator, path, seeds, STEP)
        seconds = time.process_time() - started
        path = (*path, *completions[-1].token_ids)
        if all(len(one.token_ids) == STEP for one in completions):
            return seconds, path, completions


async def sample(
    generator: TransformersGenerator, path: Ids, seeds: Ids, tokens: int, hear: Callable[[int], None] | None = None
) -> Sequence[Completion]:
    request = Request(
        prefix=path, seeds=seeds, max_tokens=tokens, stop_ids=frozenset(), sampling=Sampling(1.0, 1.0), on_tokens=hear
    )
    return await generator.generate(request)


async def beam_memory(options: argparse.Namespace) -> dict[str, float]:
    """Bytes of what is kept of a beam of four after five steps, with room for all of it, and of the slots."""
    generator = TransformersGenerator(options.measure, prefix_cache_tokens=8 * CONTEXT)
    decoder: Any = generator._worker._decoder
    slots = 0

    def look(_: int) -> None:
        nonlocal slots
        layers = decoder._slots.cache.layers
        slots = max(slots, sum(layer.keys.nbytes + layer.values.nbytes for layer in layers if layer.keys is not None))

    path = prompt(options.beam_tokens, seed=0)
    beam = [(*path, *one.token_ids) for one in await sample(generator, path, (0, 1, 2, 3), STEP)]
    for step in range(4):
        grown = await asyncio.gather(*(sample(generator, path, (step,), STEP, look) for path in beam))
        beam = [(*path, *one.token_ids) for path, (one,) in zip(beam, grown, strict=True)]
    await sample(generator, (1, 2), (0,), 1)  # behind which everything is kept
    kept = decoder._prefixes
    states = [] if hasattr(kept, "bytes") else [s for layers in kept._sequences.values() for s in layers]
    held = sum(keys.nbytes + values.nbytes for keys, values in states) if states else kept.bytes
    config = decoder._model.config
    width = config.hidden_size // config.num_attention_heads
    token = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * width
    await generator.aclose()
    return {"kept": held, "slots": slots, "whole": token * sum(map(len, beam))}


def prompt(tokens: int, seed: int) -> Ids:
    return tuple(random.Random(seed).choices(range(10, 400), k=tokens))


def report(rounds: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    console = Console(width=120)
    table = Table(title=f"CPU milliseconds a step of {STEP} tokens (median of {options.rounds} rounds)")
    for column in ("tokens", "checkout", "first step", "a step", "its tokens alone", "a step of four"):
        table.add_column(column, justify="left" if column == "checkout" else "right")
    for depth in map(str, options.depths):
        for name, found in rounds.items():
            columns = [statistics.median(r["depths"][depth][c] for r in found) for c in COLUMNS]
            table.add_row(f"{int(depth):,}", name, *(f"{1000 * seconds:,.0f}" for seconds in columns))
        if "old" in rounds:
            pairs = list(zip(rounds["old"], rounds["this"], strict=True))
            ratios = [
                statistics.median(old["depths"][depth][c] / new["depths"][depth][c] for old, new in pairs)
                for c in COLUMNS
            ]
            table.add_row("", "old / this", *(f"{ratio:.2f}" for ratio in ratios), end_section=True)
    console.print(table)
    table = Table(title=f"MiB of a beam of 4 at {options.beam_tokens:,} tokens, with room for all of it")
    for column in ("checkout", "kept", "four whole copies", "share", "slots at work"):
        table.add_column(column, justify="left" if column == "checkout" else "right")
    for name, found in rounds.items():
        memory = found[-1]["memory"]
        sizes = [f"{memory[c] / MIB:.1f}" for c in ("kept", "whole")]
        table.add_row(name, *sizes, f"{memory['kept'] / memory['whole']:.2f}", f"{memory['slots'] / MIB:.1f}")
    console.print(table)
    console.print("python " + " ".join(sys.argv), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
