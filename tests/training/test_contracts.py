"""What joint training relies on in TRL and transformers though it is private there: names, signatures, call sites."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from transformers import Trainer
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import grpo_trainer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from tts_search import training
from tts_search.training.settings import PRESETS, ReflectiveConfig
from tts_search.training.trainer import ReflectiveGRPOTrainer


@pytest.mark.parametrize("name", training.__all__)
def test_every_public_name_is_where_it_is_looked_for(name: str) -> None:
    assert getattr(training, name).__name__ == name


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (GRPOTrainer, "_compute_loss", ["self", "model", "inputs"]),
        (GRPOTrainer, "_calculate_rewards", ["self", "inputs", "prompts", "completions", "completion_ids_list"]),
        (GRPOTrainer, "_generate_and_score_completions", ["self", "inputs"]),
        (GRPOTrainer, "log", ["self", "logs", "start_time"]),
        (Trainer, "create_optimizer", ["self", "model"]),
        (Trainer, "_save", ["self", "output_dir", "state_dict"]),
        (Trainer, "_load_from_checkpoint", ["self", "resume_from_checkpoint", "model"]),
        (Trainer, "_load_best_model", ["self"]),
        (VLLMGeneration, "_iter_named_params", ["self"]),
    ],
)
def test_what_is_overridden_has_not_changed(owner: Any, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


def test_what_is_overridden_is_still_called_and_what_is_read_is_still_written() -> None:
    source = inspect.getsource(grpo_trainer)
    for used in (
        "self._calculate_rewards(",
        "self._generate_and_score_completions(",
        "return self._compute_loss(",
        "rewards_per_func = gather(rewards_per_func)",
        "self.current_gradient_accumulation_steps",
        "self._metrics[mode]",
        '"num_items_in_batch": num_items_in_batch',
        '"completion_mask": completion_mask',
        "self.reward_func_names",
        "self._buffered_inputs",
    ):
        assert used in source, used


def test_the_tokens_of_the_loss_are_the_prompt_and_then_the_completion() -> None:
    source = inspect.getsource(GRPOTrainer._compute_loss)
    assert "torch.cat([prompt_ids, completion_ids], dim=1)" in source
    assert source.count("self._get_per_token_logps_and_entropies(") == 1, "one forward pass, which the tap reads"


def test_our_arguments_are_trls() -> None:
    theirs = inspect.signature(GRPOTrainer.__init__).parameters
    ours = set(inspect.signature(ReflectiveGRPOTrainer.__init__).parameters) - {"head"}
    assert ours <= set(theirs)
    fields = set(inspect.signature(GRPOConfig).parameters)
    for preset in PRESETS.values():
        assert set(preset) - {"update_questions"} <= set(inspect.signature(ReflectiveConfig).parameters)
    assert {"beta", "epsilon", "loss_type", "entropy_coef", "mask_truncated_completions"} <= fields
