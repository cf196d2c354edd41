"""A joint run in seconds: a tiny random policy with the embedded model's tokenizer, and a reward without meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from tools.embedded.policy import new_policy
from tts_search.embedded import MODEL_FOLDER
from tts_search.training.settings import ReflectiveConfig
from tts_search.training.trainer import ReflectiveGRPOTrainer

WIDTH = 32


def write_policy(folder: Path, *, seed: int = 0) -> Path:
    """A random Qwen2 of two blocks that writes steps, closes its thinking and ends."""
    torch.set_num_threads(1)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(MODEL_FOLDER)
    torch.manual_seed(seed)
    policy: Any = new_policy(tokenizer, width=WIDTH, blocks=2)
    loud = [tokenizer(text)["input_ids"][0] for text in (".\n\n", "</think>", "<|im_end|>")]
    with torch.no_grad():  # so that trajectories have steps, and some of them end
        policy.lm_head.weight[loud] *= torch.tensor([[24.0], [8.0], [8.0]])
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def questions(n: int = 8) -> Dataset:
    return Dataset.from_list(
        [{"prompt": [{"role": "user", "content": f"Using {i}, make 3."}], "answer": str(i % 2)} for i in range(n)]
    )


def correctness(*, completion_ids: list[list[int]], **_: Any) -> list[float | None]:
    """Half of the completions are right, by their tokens."""
    return [float(sum(ids) % 2) for ids in completion_ids]


def settings(out: Path, **changes: Any) -> ReflectiveConfig:
    usual: dict[str, Any] = {
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 24,
        "max_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "learning_rate": 1e-3,
        "head_learning_rate": 1e-2,
        "temperature": 1.0,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "bf16": False,
        "disable_tqdm": True,
        "seed": 3,
    }
    return ReflectiveConfig(output_dir=str(out), **usual | changes)


def trainer(
    model: Any,
    out: Path,
    *,
    rewards: Any = correctness,
    data: Any = None,
    extra: dict[str, Any] | None = None,
    **changes: Any,
) -> ReflectiveGRPOTrainer:
    return ReflectiveGRPOTrainer(model, rewards, settings(out, **changes), data or questions(), **extra or {})
