"""One of two processes of a joint run: python -m torch.distributed.run --nproc_per_node 2 ddp_run.py POLICY OUT."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from tests.training.joint import correctness, trainer


def stepless_on_one(*, completion_ids: Any, **columns: Any) -> list[float | None]:
    """The second process has no outcome at all in its first batch: nothing for its head to learn from."""
    first = columns["trainer_state"].global_step == 0 and torch.distributed.get_rank() == 1
    return [None if first else reward for reward in correctness(completion_ids=completion_ids)]


def main(policy: str, out: str) -> None:
    torch.set_num_threads(1)
    run = trainer(
        policy,
        Path(out),
        rewards=stepless_on_one,
        per_device_train_batch_size=2,  # a group of 4 lies across both processes
        max_steps=3,
        ddp_backend="gloo",
        save_strategy="steps",
        save_steps=3,
        groups="resample",
        resample_rounds=1,
    )
    run.train()
    sums = {name: float(value.double().sum()) for name, value in run.model.named_parameters()}
    report = {"sums": sums, "log": run.state.log_history, "processes": run.accelerator.num_processes}
    (Path(out) / f"rank{run.accelerator.process_index}.json").write_text(json.dumps(report))
    # Threads of the group still hold tensors as it ends, and get the interpreter's lock when it is given, not sooner.
    sys.setswitchinterval(5)
    for _ in range(20):
        torch.distributed.all_gather([torch.zeros(1) for _ in range(2)], torch.ones(1))
    run.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
