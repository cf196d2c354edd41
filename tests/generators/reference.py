"""The reference that every in-engine score is compared with: transformers, one forward pass over the whole sequence."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tts_search.core.protocols import Completion
from tts_search.sprm.module import SPRM


class Reference(NamedTuple):
    previous: list[float]  # the head's logit at the position before each token
    step: list[float]  # ... at the token itself
    logprobs: list[float]


@cache
def policy(folder: Path, dtype: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


@torch.no_grad()
def reference(folder: Path, dtype: str, prefix: Sequence[int], tokens: Sequence[int]) -> Reference:
    """Scores and log-probabilities of `tokens` behind `prefix`: `hidden_states[-2]` through the head in fp32."""
    out = policy(folder, dtype)(torch.tensor([[*prefix, *tokens]]), output_hidden_states=True)
    scores = SPRM.from_pretrained(folder)(out.hidden_states[-2][0].float())
    rows = out.logits[0, len(prefix) - 1 : -1].float().log_softmax(-1)
    return Reference(
        previous=scores[len(prefix) - 1 : -1].tolist(),
        step=scores[len(prefix) :].tolist(),
        logprobs=rows.gather(-1, torch.tensor(tokens).unsqueeze(-1)).squeeze(-1).tolist(),
    )


def largest_difference(a: Sequence[float], b: Sequence[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def differences(
    folder: Path, dtype: str, prefix: Sequence[int], completions: Sequence[Completion]
) -> tuple[float, float]:
    """The largest difference in scores (readout "previous") and in log-probabilities, over every generated token."""
    scores, logprobs = 0.0, 0.0
    for completion in completions:
        expected = reference(folder, dtype, prefix, completion.token_ids)
        assert completion.scores is not None
        assert completion.logprobs is not None
        scores = max(scores, largest_difference(completion.scores, expected.previous))
        logprobs = max(logprobs, largest_difference(completion.logprobs, expected.logprobs))
    return scores, logprobs
