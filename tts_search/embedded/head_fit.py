"""Fitting the embedded model's SPRM head: BCE on graded samples of the frozen policy.

Every step of a trajectory carries the trajectory's outcome as its label. It does not touch the policy; the
self-supervised loss of the paper belongs to joint training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from tts_search.embedded.sampling import Sample
from tts_search.head import SPRM, SPRMConfig


def fit_head(
    samples: Sequence[Sample],
    *,
    hidden_size: int,
    epochs: int,
    seed: int,
    batch: int = 512,
    learning_rate: float = 2e-3,
    report: Callable[[str], None] = print,
) -> SPRM:
    """A head fitted to `samples`: AdamW with a linear decay, dropout in the head. `batch` counts steps.

    It is fitted on whitened hidden states, and the whitening is then folded into its first layer: a residual stream
    has a few loud directions, and what a step is worth may stand in the quiet ones.
    """
    kept = [sample for sample in samples if len(sample.steps)]
    hidden = torch.cat([sample.steps for sample in kept]) if kept else torch.zeros(1, hidden_size)
    labels = torch.tensor([float(sample.correct) for sample in kept for _ in sample.steps] or [0.0])
    mean = hidden.mean(0)
    whiten = _whitening(hidden - mean)
    hidden = (hidden - mean) @ whiten
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = SPRM(SPRMConfig(hidden_size=hidden_size, readout="previous")).train()
        optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=0.01)
        for epoch in range(epochs):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * (1 - epoch / epochs)
            total = 0.0
            for rows in torch.randperm(len(labels)).split(batch):
                loss = binary_cross_entropy_with_logits(head(hidden[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(rows)
            if (epoch + 1) % 5 == 0 or epoch + 1 == epochs:
                report(f"head: epoch {epoch + 1}/{epochs}  loss {total / len(labels):.3f}")
    with torch.no_grad():  # read hidden states as they are
        first = cast(nn.Linear, head.layers[0])
        first.weight.copy_(first.weight @ whiten)
        first.bias.sub_(first.weight @ mean)
    return head.eval()


def _whitening(hidden: Tensor) -> Tensor:
    """The symmetric matrix `[hidden, hidden]` that gives centred states `[steps, hidden]` unit variance all around."""
    variances, directions = torch.linalg.eigh(hidden.T @ hidden / len(hidden))
    return directions @ torch.diag((variances.clamp(min=0) + 1e-4).rsqrt()) @ directions.T
