"""What a head costs in memory: the engine's processes with an SPRM head, against the same policy alone.

    python benchmarks/memory.py --model FOLDER

Two engines with the same settings run one after the other, each decodes a little, and then the pages of all its
processes are added up (PSS: a page that two processes share counts once). A model folder without a head gets a random
one, which is as large as a trained one.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from tts_search.core.protocols import Request
from tts_search.generators.vllm import VLLMGenerator
from tts_search.sprm.loading import head_folder
from tts_search.sprm.module import SPRM

from score_overhead import random_head  # isort: skip  (its neighbour: scripts are run from their folder)

MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model folder (Llama, Qwen2 or Qwen3)")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--repeats", type=int, default=2, help="engines of each kind; the table shows the smallest")
    parser.add_argument("--compile", action="store_true", help="compile the model, as the generator does by default")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        head = head_folder(options.model) or random_head(options.model, Path(scratch), options.seed)
        bytes_of_head = 4 * sum(parameter.numel() for parameter in SPRM.from_pretrained(head).parameters())
        alone, scoring = [], []
        for _ in range(options.repeats):
            alone.append(asyncio.run(resident(options, None)))
            scoring.append(asyncio.run(resident(options, head)))
    report(options, min(alone), min(scoring), bytes_of_head)


async def resident(options: argparse.Namespace, head: Path | None) -> int:
    """Bytes that the engine's processes hold after some decoding."""
    before = set(psutil.Process().children(recursive=True))
    generator = VLLMGenerator(
        options.model,
        head=head,
        dtype=options.dtype,
        max_model_len=256,
        kv_cache_gib=0.25,
        max_num_seqs=16,
        enforce_eager=not options.compile,
        seed=options.seed,
    )
    try:
        prefix = tuple(range(100, 164))
        await generator.generate(Request(prefix=prefix, seeds=tuple(range(16)), max_tokens=32, stop_ids=frozenset()))
        processes = set(psutil.Process().children(recursive=True)) - before
        return sum(process.memory_full_info().pss for process in processes)
    finally:
        await generator.aclose()


def report(options: argparse.Namespace, alone: int, scoring: int, bytes_of_head: int) -> None:
    table = Table(title=f"{options.model.name}, {options.dtype}: memory of the engine's processes")
    for column in ("engine", "MiB", "over the policy alone"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    table.add_row("policy alone", f"{alone / MIB:.0f}", "")
    table.add_row(
        "with the head", f"{scoring / MIB:.0f}", f"{(scoring - alone) / MIB:+.1f} MiB ({scoring / alone:.3f})"
    )
    table.add_row("the head's own parameters (fp32)", f"{bytes_of_head / MIB:.1f}", "")
    console = Console(width=110)
    console.print(table)
    console.print("python " + " ".join(sys.argv), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
