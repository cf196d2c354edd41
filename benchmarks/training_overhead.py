"""What the SPRM head adds to a GRPO step: rollout, loss, backward and optimizer, with the head and without.

    python benchmarks/training_overhead.py --model FOLDER

Both arms are one trainer on the same model, data and seed, in turns, so that a busy machine slows them alike; `plain`
calls TRL's own methods. The learning rate is 0: every round meets the same policy, and both arms sample alike. Without
a GPU the CPU time tells more than the clock, which other programs share.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from trl.trainer.grpo_trainer import GRPOTrainer

from tts_search.metrics import Interval, bootstrap
from tts_search.training.settings import ReflectiveConfig
from tts_search.training.trainer import ReflectiveGRPOTrainer


class Cost(NamedTuple):
    """Seconds of one step, by the clock and of all cores together."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--rounds", type=int, default=51, help="pairs of steps; 2 are the least")
    parser.add_argument("--completions", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128, help="limit of a completion")
    parser.add_argument("--step-text", default=".\n\n", help="what ends a step, for a model without a head")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make(options, folder)
        rows = [row for row in trainer.train_dataset for _ in range(8)][: options.completions]
        step(trainer, rows, 0, head=True)  # the first is slower
        pairs = list[tuple[Cost, Cost]]()
        for number in range(options.rounds):
            order = (True, False) if number % 2 else (False, True)
            costs = {head: step(trainer, rows, number, head=head) for head in order}
            pairs.append((costs[True], costs[False]))
    print(f"steps a trajectory: {steps_of(trainer):.1f}; {len(pairs)} pairs")
    for name in Cost._fields:
        logs = [math.log(getattr(with_head, name) / getattr(plain, name)) for with_head, plain in pairs]
        low, median, high = (math.exp(value) for value in statistics.quantiles(logs, n=4))
        print(
            f"{name}: {statistics.median(getattr(plain, name) for _, plain in pairs):.3f} s a step without the head; "
            f"with it {Interval(*map(math.exp, bootstrap(logs)))} of that (geometric mean and its 95 % interval), "
            f"median {median:.3f}, middle half {low:.3f} to {high:.3f}"
        )


def make(options: argparse.Namespace, folder: str) -> ReflectiveGRPOTrainer:
    args = ReflectiveConfig(
        output_dir=folder,
        per_device_train_batch_size=options.completions,
        num_generations=8,
        max_completion_length=options.tokens,
        learning_rate=0.0,
        head_learning_rate=0.0,
        step_text=options.step_text,
        gradient_checkpointing=False,
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        max_steps=1,
    )
    questions = ["Using the numbers 7, 5, 15 and 11, make 24.", "Using the numbers 4, 6, 9 and 13, make 87."]
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": question}]} for question in questions * 32])
    trainer = ReflectiveGRPOTrainer(options.model, correctness, args, data)
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


def correctness(*, completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(sum(ids) % 2) for ids in completion_ids]


def step(trainer: ReflectiveGRPOTrainer, rows: list[Any], seed: int, *, head: bool) -> Cost:
    """What one step costs."""
    torch.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started, busy = time.perf_counter(), time.process_time()
    if head:
        loss = trainer._compute_loss(trainer.model, trainer._generate_and_score_completions(rows))
    else:
        batch = GRPOTrainer._generate_and_score_completions(trainer, rows)
        loss = GRPOTrainer._compute_loss(trainer, trainer.model, batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
    optimizer: Any = trainer.optimizer
    optimizer.step()
    optimizer.zero_grad()
    if head:  # what a log after every step costs
        trainer._watch.metrics("train", trainer.head.config.aggregation)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Cost(time.perf_counter() - started, time.process_time() - busy)


def steps_of(trainer: ReflectiveGRPOTrainer) -> float:
    rows = [row for row in trainer.train_dataset for _ in range(8)][:8]
    return float(trainer._generate_and_score_completions(rows)["step_mask"].sum()) / 8


if __name__ == "__main__":
    main()
