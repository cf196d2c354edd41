"""A joint run from the embedded model's policy with a new head: does the reward rise, do the score curves part, and is
the gap of the self-supervised loss (Eq. 6) larger than plain BCE's (paper, Fig. 3 and 4)?

    python benchmarks/joint_training.py --seeds 3 --steps 150

Every seed trains one arm per loss from the same policy, the same new head and the same data; the heads of `spr` and
`balanced` begin with `--warmup` steps of BCE. The gap is measured on held-out puzzles with each arm's own policy.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from tts_search.embedded.puzzles import Puzzle, draw, held_out
from tts_search.grading.named import resolve_grader
from tts_search.head import SPRM, SPRMConfig
from tts_search.metrics import bootstrap
from tts_search.training.curves import aha_step, history, plot
from tts_search.training.rewards import Correctness
from tts_search.training.settings import ReflectiveConfig
from tts_search.training.trainer import ReflectiveGRPOTrainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("joint-training"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--warmup", type=int, default=40)
    parser.add_argument("--losses", nargs="+", default=["bce", "spr"])
    parser.add_argument("--completions", type=int, default=64, help="in one step, groups of 8")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--head-learning-rate", type=float, default=1e-3)
    parser.add_argument("--puzzles", type=int, default=200, help="held out, 8 samples each")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = list[dict[str, Any]]()
    for seed in range(options.seeds):
        for loss in options.losses:
            rows.append(arm(options, loss, seed))
            print(json.dumps(rows[-1]), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    for name in ("reward_first", "reward_last", "gap", "auc", "best_of_8", "single"):
        for loss in options.losses:
            values = [row[name] for row in rows if row["loss"] == loss]
            print(f"{name:13} {loss:9} {bootstrap(values)} over {len(values)} seeds")


def arm(options: argparse.Namespace, loss: str, seed: int) -> dict[str, Any]:
    """One run, and what its head says on held-out puzzles."""
    started = time.perf_counter()
    out = options.out / f"{loss}-{seed}"
    rng = random.Random(seed)
    args = ReflectiveConfig(
        output_dir=str(out),
        per_device_train_batch_size=options.completions,
        per_device_eval_batch_size=options.completions,
        num_generations=8,
        max_completion_length=96,
        max_steps=options.steps,
        learning_rate=options.learning_rate,
        head_learning_rate=options.head_learning_rate,
        head_loss=loss,
        head_warmup_steps=options.warmup,
        lr_scheduler_type="constant",
        temperature=0.6,
        top_p=1.0,
        mask_truncated_completions=True,
        loss_type="bnpo",
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=seed,
    )
    torch.manual_seed(seed)
    head = SPRM(SPRMConfig(hidden_size=128))
    data = dataset([draw(rng) for _ in range(options.steps * options.completions // 8)])
    reward = Correctness(resolve_grader("puzzle"), threads=1)
    trainer = ReflectiveGRPOTrainer("embedded", reward, args, data, dataset(held_out(options.puzzles)), head=head)
    trainer.train()
    log = trainer.state.log_history
    plot(log, out / "curves.png")
    rewards = history(log, "reward")[1]
    tenth = max(1, len(rewards) // 10)
    held = trainer.evaluate()
    return {
        "loss": loss,
        "seed": seed,
        "reward_first": sum(rewards[:tenth]) / tenth,
        "reward_last": sum(rewards[-tenth:]) / tenth,
        "aha_step": aha_step(*history(log, "sprm/gap")),
        "gap": held["eval_sprm/gap"],
        "auc": held["eval_sprm/auc"],
        "best_of_8": held["eval_sprm/best_of_group"],
        "single": held["eval_sprm/single"],
        "minutes": round((time.perf_counter() - started) / 60, 2),
    }


def dataset(puzzles: list[Puzzle]) -> Dataset:
    chats = ([{"role": "user", "content": puzzle.question}] for puzzle in puzzles)
    return Dataset.from_list(
        [{"prompt": chat, "answer": puzzle.question} for chat, puzzle in zip(chats, puzzles, strict=True)]
    )


if __name__ == "__main__":
    main()
