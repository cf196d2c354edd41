"""vLLM's entry point: tells every vLLM process which model classes carry an SPRM head.

It registers names only, so that a process that serves another model imports nothing of this package. The classes are in
`architectures`; who asks for them is `VLLMGenerator`, or a user of `vllm serve` with what `sprm_engine_args` says.
"""

from __future__ import annotations

import math
from typing import Any

from tts_search.generators.vllm.parent import end_with_parent

ARCHITECTURES = {
    "LlamaForCausalLM": "SPRMLlamaForCausalLM",
    "Qwen2ForCausalLM": "SPRMQwen2ForCausalLM",
    "Qwen3ForCausalLM": "SPRMQwen3ForCausalLM",
}
"""Backbones that can carry a head in the engine, and the class that does it."""

ALIGNMENT = 64  # columns: rows of logits stay aligned for vectorised kernels

FLOOR = -1024.0
"""Logit of a score column at most. Beside any real logit its probability is exactly 0 up to a temperature of 9."""

SCALE = 128.0
"""Score logits are stretched by this, so that fp32 at the depth of FLOOR still resolves 1e-6 of them."""

SCORE_LIMIT = 64.0
"""Score logits are clamped to this, where a sigmoid is 0 or 1 to 27 digits, so that both columns stay above CLAMPED."""

CLAMPED = -9999.0
"""What vLLM's HTTP server writes for every log-probability below it: a column that deep says nothing."""


def register() -> None:
    """Make the model classes known to vLLM; called by vLLM in each of its processes (`vllm.general_plugins`)."""
    from vllm import ModelRegistry

    for name in ARCHITECTURES.values():
        ModelRegistry.register_model(name, f"tts_search.generators.vllm.architectures:{name}")
    end_with_parent()


def score_columns(vocab_size: int) -> tuple[int, int]:
    """The two ids behind the model's vocabulary whose log-probabilities carry the score."""
    return vocab_size, vocab_size + 1


def widened(vocab_size: int) -> int:
    """The vocabulary size that vLLM is told: the model's own, the score columns, and padding."""
    return -(-(score_columns(vocab_size)[-1] + 1) // ALIGNMENT) * ALIGNMENT


def read_score(high: float, low: float) -> float:
    """The head's logit from the log-probabilities of the two columns; NaN if the head gave no number."""
    return math.nan if min(high, low) <= CLAMPED else (high - low) / SCALE


def sprm_engine_args(architecture: str, vocab_size: int, head: str) -> dict[str, Any]:
    """What vLLM's engine arguments must hold for a model to score while it generates.

    Args:
        architecture: the backbone's, one of `ARCHITECTURES`.
        vocab_size: the backbone's own, from its config.
        head: the folder of the SPRM head, readable on every node.
    """
    return {
        "hf_overrides": {"architectures": [ARCHITECTURES[architecture]], "vocab_size": widened(vocab_size)},
        "additional_config": {"sprm": {"head": head, "vocab_size": vocab_size}},
    }
