"""Build the embedded reflective model from a seed: tokenizer, policy, SPRM head, measurement, model card.

Everything is made in a temporary folder and moved into place at the end, so an interrupted build changes nothing. What
is trained on what stands in `traces`, how in `policy` and `head_fit`; this module only puts them in order.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tools.embedded.card import card
from tools.embedded.graded_samples import sample
from tools.embedded.head_fit import fit_head
from tools.embedded.policy import TEMPERATURE, new_policy, train_policy
from tools.embedded.puzzle_tokenizer import train_tokenizer
from tools.embedded.quality import markdown, quality, trajectory_scores
from tools.embedded.recipe import QUICK, Recipe
from tools.embedded.traces import corpus
from tts_search.embedded import MODEL_FOLDER
from tts_search.embedded.puzzles import LARGEST_RESULT, draw, held_out
from tts_search.sprm.loading import FOLDER

QUALITY_FILE = "quality.json"


def build(out: Path, *, seed: int, recipe: Recipe, command: str = "") -> dict[str, Any]:
    """Build the model into `out`, replacing what is there, and return its quality report.

    Training seeds are `seed` itself; the held-out questions and their samples are always those of seed 0.
    """
    started = time.process_time()
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(corpus(), largest_number=LARGEST_RESULT)
    policy = new_policy(tokenizer, width=recipe.width, blocks=recipe.blocks)
    print(f"tokenizer: {len(tokenizer)} tokens   policy: {policy.num_parameters():,} parameters", flush=True)
    train_policy(tokenizer, policy, seed=seed, steps=recipe.steps, traces=recipe.traces, report=_say)

    rng = random.Random(seed + 1)
    puzzles = [draw(rng) for _ in range(recipe.head_puzzles)]
    graded = sample(policy, tokenizer, puzzles, n=recipe.head_samples, seed=seed + 1, report=_say)
    flat = [sample for group in graded for sample in group]
    head = fit_head(flat, hidden_size=recipe.width, epochs=recipe.head_epochs, seed=seed, report=_say)

    groups = sample(policy, tokenizer, held_out(recipe.questions), n=recipe.pool, seed=0, report=_say)
    report = quality(groups, trajectory_scores(head, groups)) | {
        "seed": seed,
        "temperature": TEMPERATURE,
        "cpu_minutes": round((time.process_time() - started) / 60, 1),
        "command": command,
    }
    with tempfile.TemporaryDirectory(dir=_parent(out)) as folder:
        place = Path(folder) / out.name
        policy.save_pretrained(place)
        tokenizer.save_pretrained(place)
        head.save_pretrained(place / FOLDER)
        (place / QUALITY_FILE).write_text(json.dumps(report, indent=1) + "\n")
        (place / "README.md").write_text(card(report, recipe, policy.num_parameters()))
        for file in place.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)
        if out.exists():
            out.rename((Path(folder) if _replaceable(out) else _beside(out)) / "replaced")
        place.rename(out)
    return report


def _replaceable(out: Path) -> bool:
    return (out / QUALITY_FILE).is_file() or (out.is_dir() and not any(out.iterdir()))


def _beside(out: Path) -> Path:
    """A new folder for what is there and is no model of this recipe, so that nothing of it is lost."""
    kept = Path(tempfile.mkdtemp(dir=out.parent, prefix=f"{out.name}."))
    _say(f"{out} is no embedded model: what was there is now in {kept}")
    return kept


def _parent(out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.parent


def _say(line: str) -> None:
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.embedded.build",
        description="Build the embedded reflective model: train the tokenizer, the policy and its SPRM head from a "
        "seed, measure them on held-out puzzles, and write the model folder with its card.",
        epilog="The model that ships is made by `--seed 0` with all other settings left alone: about 75 minutes on "
        "one CPU core. The same seed gives the same model on the same kind of machine. Nothing is written before the "
        "end, so Ctrl-C is harmless. Try the whole way in seconds: --quick --out tiny",
    )
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER, help="folder to write (default: the package's own)")
    parser.add_argument("--seed", type=int, default=0, help="decides all weights and samples (default: 0)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; the bits depend on it (default: 1)")
    parser.add_argument("--quick", action="store_true", help="a toy size that learns nothing, to try the pipeline")
    options = parser.parse_args(arguments)
    if options.quick and options.out.resolve() == MODEL_FOLDER.resolve():
        parser.error("--quick makes a useless model: name another folder with --out, so that the shipped one stays")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(options.threads)
    command = f"python -m tools.embedded.build --seed {options.seed}{' --quick' * options.quick}"
    try:
        report = build(options.out, seed=options.seed, recipe=QUICK if options.quick else Recipe(), command=command)
    except KeyboardInterrupt:
        print(f"\ninterrupted; {options.out} is as it was", file=sys.stderr)
        return 130
    print(f"\n{markdown(report)}\n\nwritten to {options.out} in {report['cpu_minutes']} CPU minutes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
