"""Joint training in two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.training.joint import WIDTH, write_policy
from tts_search.sprm.module import SPRM

ROOT = Path(__file__).parents[2]


def torchrun(*arguments: object) -> str:
    """What two processes on the CPU print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m"]
    run = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return run.stdout


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    policy, out = write_policy(tmp_path / "policy"), tmp_path / "out"
    out.mkdir()
    torchrun("tests.training.ddp_run", policy, out)
    first, second = (json.loads((out / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["processes"] == 2
    assert first["sums"] == second["sums"], "both hold the same weights"
    log = [row for row in first["log"] if "sprm/loss" in row]
    assert len(log) == 3
    assert all(row["sprm/loss"] > 0 and row["sprm/single"] is not None for row in log[1:])
    head = SPRM.from_pretrained(out / "checkpoint-3", hidden_size=WIDTH)
    saved = {f"sprm.{name}": float(value.double().sum()) for name, value in head.state_dict().items()}
    assert saved == {name: value for name, value in first["sums"].items() if name.startswith("sprm.")}


def test_the_command_in_two_processes_speaks_once_and_ends_well(tmp_path: Path) -> None:
    policy, out, data = write_policy(tmp_path / "policy"), tmp_path / "out", tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"question": f"{i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(8)))
    wanted = {"max_steps": 2, "num_generations": 4, "per_device_train_batch_size": 2, "max_completion_length": 16}
    flags = [flag for name, value in wanted.items() for flag in ("--set", f"{name}={value}")]
    paths = ("--model", policy, "--data", data, "--out", out)
    said = torchrun("tts_search", "train", *paths, "--set", "use_cpu=true", *flags)
    assert said.splitlines() == [str(out / "final")]
    assert len((out / "log.jsonl").read_text().splitlines()) >= 2
