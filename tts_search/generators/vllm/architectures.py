"""Llama, Qwen2 and Qwen3 for vLLM with an SPRM head that scores the hidden states the policy computes anyway.

How a score leaves the engine without a second pass:

1. The backbone hands out one auxiliary hidden state, the output of block L-2 (`hidden_states[-2]`).
2. `forward` computes the head's logit for each row in fp32 and appends its bits to the row's final hidden state, so
   that it follows whatever vLLM does with hidden states (graphs, chunking, choosing the rows to sample).
3. `compute_logits` takes it off again and writes it into two columns *behind* the vocabulary. vLLM is told a larger
   vocabulary than the model has, so no real token gives way, and the distribution over tokens stays the model's own.
4. A request with `logprob_token_ids=[A, B]` gets both back with each sampled token: `logit = (lp[A] - lp[B]) / SCALE`.

This module runs inside vLLM's processes. It does not know which tokens are steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from vllm.distributed import get_pp_group
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM
from vllm.utils.torch_utils import set_default_torch_dtype

from tts_search.generators.vllm.plugin import FLOOR, SCALE, SCORE_LIMIT, score_columns, widened
from tts_search.sprm.module import SPRM

Base = LlamaForCausalLM if TYPE_CHECKING else object  # the three backbones have the same shape

CARRIED_BYTES = 16
"""What `forward` appends to a row: 4 are needed, 16 keep the rows aligned."""


class SPRMMixin(Base):
    """What turns a causal language model of vLLM into one that scores; see the module's docstring."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        settings = (vllm_config.additional_config or {}).get("sprm")
        if not settings:
            raise ValueError(
                f'{type(self).__name__} needs additional_config={{"sprm": {{"head": folder, "vocab_size": int}}}}: '
                "build it with tts_search.generators.vllm.plugin.sprm_engine_args"
            )
        if get_pp_group().world_size > 1:
            raise ValueError("an SPRM head in the engine does not work with pipeline parallelism: use tensor parallel")
        if vllm_config.speculative_config is not None:
            raise ValueError("an SPRM head in the engine does not work with speculative decoding: switch it off")
        if vllm_config.lora_config is not None:
            raise ValueError("an SPRM head in the engine does not work with LoRA: merge the adapter into the weights")
        config = vllm_config.model_config.hf_config
        vocab_size: int = settings["vocab_size"]
        # The sampler must see the widened vocabulary; the weights have the model's own.
        config.vocab_size = vocab_size
        try:
            super().__init__(vllm_config=vllm_config, prefix=prefix)
        finally:
            config.vocab_size = widened(vocab_size)
        self._width = widened(vocab_size)
        self._hidden_size: int = config.hidden_size
        self.set_aux_hidden_state_layers((config.num_hidden_layers - 1,))
        # vLLM builds a model under the model's type, on its device. The head stays in fp32: it is a hundredth of the
        # backbone at most, and rounding it to bf16 would cost the logits two digits.
        device = torch.get_default_device()
        with set_default_torch_dtype(torch.float32):
            self.sprm = SPRM.from_pretrained(settings["head"], hidden_size=self._hidden_size).to(device)
        self.sprm.requires_grad_(False)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states `[tokens, hidden]` with the score's bits behind each row."""
        output: Any = super().forward(input_ids, positions, intermediate_tensors, inputs_embeds)
        hidden, (scored,) = output
        return carry(hidden, self.sprm(scored))

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Logits `[rows, widened]` in fp32, on the ranks that sample; None on the others."""
        hidden, score = uncarry(hidden_states, self._hidden_size)
        logits = super().compute_logits(hidden)
        return None if logits is None else append_columns(logits, score, self._width)

    def compute_logits_local(self, hidden_states: Tensor) -> Tensor:  # noqa: ARG002
        raise RuntimeError("an SPRM head in the engine does not work with batch-sharded sampling: leave it off")

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load the backbone's weights; the head's were loaded with the module, and may be updated as `sprm.*`."""
        loaded: set[str] = super().load_weights(weights)
        return loaded | {f"sprm.{name}" for name, _ in self.sprm.named_parameters()}


def carry(hidden: Tensor, score: Tensor) -> Tensor:
    """Append the bits of `score` `[rows]` (fp32) to `hidden` `[rows, hidden]` in its own type."""
    bits = score.float().unsqueeze(-1).expand(-1, CARRIED_BYTES // 4).contiguous().view(hidden.dtype)
    return torch.cat((hidden, bits), dim=-1)


def uncarry(carried: Tensor, hidden_size: int) -> tuple[Tensor, Tensor]:
    """Inverse of `carry`: hidden states and fp32 scores."""
    hidden = carried[:, :hidden_size].contiguous()
    bits = carried[:, hidden_size:].contiguous()
    return hidden, bits.view(torch.float32)[:, 0]


def append_columns(logits: Tensor, score: Tensor, width: int) -> Tensor:
    """Write `score` `[rows]` behind `logits` `[rows, vocabulary]`, as fp32 `[rows, width]`.

    Both columns only ever go down from FLOOR. fp32 because the log-softmax of bf16 columns would round the score, and
    the sampler turns logits into fp32 anyway. A score that is no number becomes -inf in both columns, whose difference
    is no number either: it must not reach the softmax as NaN, where it would spoil the tokens too.
    """
    vocabulary = logits.shape[-1]
    out = logits.new_full((logits.shape[0], width), float("-inf"), dtype=torch.float32)
    out[:, :vocabulary] = logits
    high, low = score_columns(vocabulary)
    finite = torch.isfinite(score)
    score = score.clamp(-SCORE_LIMIT, SCORE_LIMIT)
    out[:, high] = torch.where(finite, FLOOR - SCALE * torch.relu(-score), float("-inf"))
    out[:, low] = torch.where(finite, FLOOR - SCALE * torch.relu(score), float("-inf"))
    return out


class SPRMLlamaForCausalLM(SPRMMixin, LlamaForCausalLM):
    """Llama with an SPRM head."""


class SPRMQwen2ForCausalLM(SPRMMixin, Qwen2ForCausalLM):
    """Qwen2 with an SPRM head."""


class SPRMQwen3ForCausalLM(SPRMMixin, Qwen3ForCausalLM):
    """Qwen3 with an SPRM head."""
