"""Reward models on transformers: a backbone that reads, and a head on its last hidden states.

Builds the two architectures that `transformers` has no class for (Qwen2.5-Math-PRM and -RM, Skywork-o1-Open-PRM)
instead of running code that comes with a checkpoint. Knows token ids and positions; it knows no text and no step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Qwen2Config,
    Qwen2Model,
    Qwen2PreTrainedModel,
)
from transformers.cache_utils import DynamicCache
from transformers.utils import logging

from tts_search.errors import InvalidInputError, ModelNotFoundError, ScorerError
from tts_search.generators.transformers.placement import placement
from tts_search.generators.transformers.prefix_cache import PrefixCache, token_array
from tts_search.generators.transformers.state_pool import cut

_SEQUENCES = 16  # a beam or two: the trajectories that a search goes on with


class Qwen2ForProcessRewardModel(Qwen2PreTrainedModel):
    """Qwen2 with a two-layer classifier: two labels in Qwen2.5-Math-PRM, one number in Qwen2.5-Math-RM."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        width = config.hidden_size
        self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.num_labels or 1))
        self.post_init()


class Qwen2ForPrmModel(Qwen2PreTrainedModel):
    """Qwen2 with a value head: one linear layer to one number."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        self.v_head = nn.ModuleDict({"summary": nn.Linear(config.hidden_size, 1)})
        self.post_init()


class RewardModel:
    """Reads token ids, and gives what its head says at some positions.

    Args:
        backbone: a decoder of `transformers`, whose call returns `last_hidden_state`.
        head: from hidden states `[positions, hidden]` to outputs `[positions, columns]`.
        batch_tokens: how many tokens, padding included, go through the model at once.
        prefix_tokens: how many tokens of earlier sequences are kept, so that a longer one goes on from where it was;
            None goes by the memory at hand (see `PrefixCache`).
    """

    def __init__(self, backbone: Any, head: nn.Module, *, batch_tokens: int, prefix_tokens: int | None) -> None:
        self.backbone = backbone
        self.head = head
        self.batch_tokens = batch_tokens
        self.max_tokens: int = getattr(backbone.config, "max_position_embeddings", None) or 1 << 30
        self._prefixes = PrefixCache(prefix_tokens, context_tokens=self.max_tokens, sequences=_SEQUENCES)

    @torch.inference_mode()
    def read(
        self, sequences: Sequence[tuple[int, ...]], positions: Sequence[Sequence[int]]
    ) -> tuple[list[Tensor], int]:
        """Outputs `[len(positions[i]), columns]`, in fp32, of every sequence, and how many tokens that took.

        Raises:
            ScorerError: a sequence is longer than the model's context.
        """
        outputs: list[Tensor | None] = [None] * len(sequences)
        fresh: list[int] = []
        tokens = 0
        for i, (sequence, places) in enumerate(zip(sequences, positions, strict=True)):
            if len(sequence) > self.max_tokens:
                raise ScorerError(
                    f"a solution is {len(sequence)} tokens long to the reward model, whose context holds "
                    f"{self.max_tokens}: limit max_tokens, or use a model with a longer context"
                )
            kept = self._prefixes.find(token_array(sequence[: places[0] + 1]))  # never beyond the first place to read
            known = len(kept)
            if known == 0:
                fresh.append(i)
                continue
            cache = DynamicCache()
            for layer, (keys, values) in enumerate(self._prefixes.read(kept)):
                cache.update(keys, values, layer)
            outputs[i] = self._run([sequence], [[p - known for p in places]], cache, known)[0]
            tokens += len(sequence) - known
        for batch in self._batches(fresh, sequences):
            found = self._run([sequences[i] for i in batch], [positions[i] for i in batch], DynamicCache(), 0)
            tokens += sum(len(sequences[i]) for i in batch)
            for i, output in zip(batch, found, strict=True):
                outputs[i] = output
        return [output for output in outputs if output is not None], tokens

    def _run(
        self, sequences: Sequence[tuple[int, ...]], positions: Sequence[Sequence[int]], cache: DynamicCache, known: int
    ) -> list[Tensor]:
        """One pass over what is not `known` of some sequences, padded on the right, where causal attention is blind."""
        width = max(map(len, sequences)) - known
        device = self.backbone.device
        rows = [[*ids[known:], *[0] * (width - len(ids) + known)] for ids in sequences]
        found = self.backbone(
            input_ids=torch.tensor(rows, device=device), past_key_values=cache, use_cache=True
        ).last_hidden_state
        layers: list[Any] = list(cache.layers)
        states = [(layer.keys, layer.values) for layer in layers]
        for row, ids in enumerate(sequences):
            self._prefixes.add(token_array(ids), partial(cut, states, end=len(ids), row=row))
        return [self.head(found[row, list(places)]).float().cpu() for row, places in enumerate(positions)]

    def _batches(self, rows: Sequence[int], sequences: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """Rows of similar lengths together, up to `batch_tokens` with their padding."""
        batches: list[list[int]] = []
        for row in sorted(rows, key=lambda i: len(sequences[i])):
            if batches and (len(batches[-1]) + 1) * len(sequences[row]) <= self.batch_tokens:
                batches[-1].append(row)
            else:
                batches.append([row])
        return batches


def load_classifier(folder: Path, *, labels: int, device: str, dtype: str) -> tuple[Any, nn.Module]:
    """Backbone and head of Qwen2.5-Math-PRM (two labels) or Qwen2.5-Math-RM (one)."""
    config = Qwen2Config.from_pretrained(str(folder), num_labels=labels)
    model = load_model(Qwen2ForProcessRewardModel, folder, device=device, dtype=dtype, config=config)
    return model.model, model.score


def load_sequence_classifier(folder: Path, *, device: str, dtype: str) -> tuple[Any, nn.Module]:
    """Backbone and head of a decoder with a sequence classifier on it.

    Raises:
        ModelNotFoundError: it is no such model (an encoder, or one whose head is not a `score` layer).
    """
    model = load_model(AutoModelForSequenceClassification, folder, device=device, dtype=dtype)
    if not isinstance(getattr(model, "score", None), nn.Module):
        raise ModelNotFoundError(
            f"{str(folder)!r} holds a {type(model).__name__}, which is no decoder with a score head"
        )
    return model.base_model, model.score


def load_value_head(folder: Path, *, device: str, dtype: str) -> tuple[Any, nn.Module]:
    """Backbone and head of Skywork-o1-Open-PRM."""
    model = load_model(Qwen2ForPrmModel, folder, device=device, dtype=dtype, names={r"^pretrained_model\.": ""})
    return model.model, model.v_head["summary"]


def load_language_model(folder: Path, columns: Sequence[int], *, device: str, dtype: str) -> tuple[Any, nn.Module]:
    """Backbone of a language model, and the rows of its output layer for some token ids as the head."""
    model = load_model(AutoModelForCausalLM, folder, device=device, dtype=dtype)
    output = model.get_output_embeddings()
    head = nn.Linear(output.in_features, len(columns), bias=output.bias is not None)
    head.to(output.weight)
    with torch.no_grad():
        head.weight.copy_(output.weight[list(columns)])
        if output.bias is not None:
            head.bias.copy_(output.bias[list(columns)])
    return model.get_decoder(), head


def load_model(
    kind: Any,
    folder: Path,
    *,
    device: str,
    dtype: str,
    config: Qwen2Config | None = None,
    names: dict[str, str] | None = None,
) -> Any:
    """A model of transformers, frozen, on its device; without a weight it is refused, and never made up.

    `names` are patterns of weights' names and what to put in their place.

    Raises:
        ModelNotFoundError: it cannot be loaded, or weights are missing.
        InvalidInputError: no such device or dtype.
    """
    device, dtype = placement(folder, device, dtype)
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # weights that are not needed (a language model's head) are no news
    try:
        model, report = kind.from_pretrained(
            str(folder),
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            key_mapping=names,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelNotFoundError(f"no reward model can be loaded from {str(folder)!r}: {error}") from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
    if missing := sorted(report["missing_keys"]):
        raise ModelNotFoundError(
            f"the weights in {str(folder)!r} lack {', '.join(missing[:4])}, without which its scores would be chance: "
            "it is a model of another kind"
        )
    try:
        return model.eval().requires_grad_(False).to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise InvalidInputError(f"the model cannot be put on device {device!r}: {error}") from error
