"""A reward model on transformers: a backbone that reads, and a head on its last hidden states.

Knows token ids and positions; it knows no text and no step. How a checkpoint becomes the two is `reward_heads`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from tts_search.errors import ScorerError
from tts_search.generators.transformers.prefix_cache import PrefixCache, token_array
from tts_search.generators.transformers.state_pool import cut

_SEQUENCES = 16  # a beam or two: the trajectories that a search goes on with


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
