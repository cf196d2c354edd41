"""A joint run from the embedded model's policy with a new head, over several seeds: does the reward rise, do the score
curves part, and is the gap of the self-supervised loss (Eq. 6) larger than plain BCE's (paper, Fig. 3 and 4)?

    python benchmarks/joint_training.py --seeds 3 --steps 150      # some three minutes an arm on one core

Every seed trains one arm per loss, as `tts-search reproduce` does for one seed: from the same policy, the same new head
and the same data; all but `bce` begin with `--warmup` steps of BCE. Each arm is measured on held-out puzzles with its
own policy. All of it is trained anew; searches that are in `--out` already are not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from tts_search import Searcher
from tts_search.embedded import MODEL_FOLDER
from tts_search.evaluation.datasets import load_dataset
from tts_search.evaluation.runs import Evaluation
from tts_search.metrics import bootstrap
from tts_search.paper.joint import SAMPLES, Arm, JointSchedule, train_arm
from tts_search.paper.sample_pool import sample_pool
from tts_search.store import RunLog
from tts_search.training.curves import aha_step, plot


def main() -> None:
    usual = JointSchedule()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("joint-training"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=usual.steps)
    parser.add_argument("--warmup", type=int, default=usual.warmup)
    parser.add_argument("--losses", nargs="+", default=["bce", "spr"])
    parser.add_argument("--completions", type=int, default=usual.completions, help="in one step, groups of 8")
    parser.add_argument("--learning-rate", type=float, default=usual.learning_rate)
    parser.add_argument("--head-learning-rate", type=float, default=usual.head_learning_rate)
    parser.add_argument("--puzzles", type=int, default=200, help="held out, 8 samples each")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = list[dict[str, Any]]()
    with RunLog(options.out / "runs.jsonl") as log:
        for seed in range(options.seeds):
            schedule = JointSchedule(
                steps=options.steps,
                warmup=options.warmup,
                completions=options.completions,
                learning_rate=options.learning_rate,
                head_learning_rate=options.head_learning_rate,
                seed=seed,
            )
            for loss in options.losses:
                started = time.perf_counter()
                arm = train_arm(MODEL_FOLDER, loss, schedule, options.out / f"{loss}-{seed}")
                plot(arm.history, options.out / f"{loss}-{seed}.png")
                minutes = (time.perf_counter() - started) / 60
                rows.append(
                    {"loss": loss, "seed": seed, "minutes": round(minutes, 2)} | measured(arm, log, options.puzzles)
                )
                print(json.dumps(rows[-1]), flush=True)
    (options.out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    for name in ("reward_first", "reward_last", "gap", "auc", "best_of_8", "single"):
        for loss in options.losses:
            values = [row[name] for row in rows if row["loss"] == loss]
            print(f"{name:13} {loss:9} {bootstrap(values)} over {len(values)} seeds")


def measured(arm: Arm, log: RunLog, puzzles: int) -> dict[str, Any]:
    """What one run's curves say, and its head and policy on held-out puzzles."""
    with Searcher(arm.folder, generator="transformers") as searcher:
        evaluation = Evaluation(dataset=load_dataset("puzzles", limit=puzzles), searcher=searcher, log=log)
        pool = sample_pool(evaluation, SAMPLES)
    rewards = arm.curve("reward")[1]
    tenth = max(1, len(rewards) // 10)
    right = pool.correct > 0.5
    return {
        "reward_first": sum(rewards[:tenth]) / tenth,
        "reward_last": sum(rewards[-tenth:]) / tenth,
        "aha_step": aha_step(*arm.curve("sprm/gap")),
        "gap": float(pool.scores[right].mean() - pool.scores[~right].mean()),
        "auc": pool.auc()[0],
        "best_of_8": float(pool.by_question("score", SAMPLES).mean()),
        "single": float(pool.correct.mean()),
    }


if __name__ == "__main__":
    main()
