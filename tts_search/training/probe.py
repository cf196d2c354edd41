"""The core of head fitting: a binary probe on hidden states, whitened, by BCE.

Whoever has hidden states `[steps, hidden]` and labels gets a head from here; where they came from, and how the result
is judged, is others' matter.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from tts_search.errors import InvalidInputError
from tts_search.sprm.config import SPRMConfig
from tts_search.sprm.module import SPRM

STEPS_PER_DIRECTION = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """How a probe is fitted: AdamW with a linear decay to zero, dropout in the head. `batch` counts steps."""

    epochs: int = 40
    batch: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.learning_rate > 0 or self.weight_decay < 0:
            raise InvalidInputError(f"learning_rate must be above 0 and weight_decay not below, got {self}")


def fit_probe(
    hidden: Tensor,
    labels: Tensor,
    config: SPRMConfig,
    settings: ProbeSettings,
    *,
    validation: tuple[Tensor, Tensor] | None = None,
    report: Callable[[str], None] = print,
) -> SPRM:
    """A head fitted to hidden states `[steps, hidden]` and labels `[steps]` (1 or 0), in fp32 and eval mode.

    It is fitted on whitened hidden states, and the whitening is then folded into its first layer: a residual stream
    has a few loud directions, and what a step is worth may stand in the quiet ones. With `validation` (hidden states
    and labels of other questions) the epoch of the lowest loss there is kept; a large head soon knows few steps by
    heart. Equal arguments give equal heads, bit for bit, on the same kind of machine with the same number of threads.
    """
    hidden, labels = hidden.float(), labels.float()
    if hidden.ndim != 2 or hidden.shape != (len(labels), config.hidden_size) or not len(labels):
        raise InvalidInputError(
            f"a head of hidden size {config.hidden_size} is fitted on states [steps, {config.hidden_size}] and as many "
            f"labels, at least one; got {tuple(hidden.shape)} and {len(labels)} labels"
        )
    if not bool(torch.isfinite(hidden).all()):
        raise InvalidInputError("the hidden states hold NaN or infinite values: run the policy in a wider dtype")
    mean = hidden.mean(0)
    whiten = whitening(hidden - mean)
    hidden = (hidden - mean) @ whiten
    best = _Best(None if validation is None else ((validation[0].float() - mean) @ whiten, validation[1].float()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        head = SPRM(config).train()
        optimizer = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        for epoch in range(settings.epochs):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * (1 - epoch / settings.epochs)
            total = 0.0
            for rows in torch.randperm(len(labels)).split(settings.batch):
                loss = binary_cross_entropy_with_logits(head(hidden[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(rows)
            watched = best.update(head)
            if (epoch + 1) % 5 == 0 or epoch + 1 == settings.epochs:
                report(f"head: epoch {epoch + 1}/{settings.epochs}  loss {total / len(labels):.3f}{watched}")
    best.restore(head)
    with torch.no_grad():  # read hidden states as they are
        first = cast(nn.Linear, head.layers[0])
        first.weight.copy_(first.weight @ whiten)
        first.bias.sub_(first.weight @ mean)
    return head.eval()


def whitening(hidden: Tensor) -> Tensor:
    """The symmetric matrix `[hidden, hidden]` that gives centred states `[steps, hidden]` unit variance all around.

    Few steps say little of many directions: of those with the least variance so many are left out that 32 steps
    stand behind each that stays. Blown up to unit variance, they would be noise on any other question.
    """
    variances, directions = torch.linalg.eigh(hidden.T @ hidden / len(hidden))
    scales = (variances.clamp(min=0) + 1e-4).rsqrt()
    scales[: max(0, len(scales) - max(1, len(hidden) // STEPS_PER_DIRECTION))] = 0
    return directions @ torch.diag(scales) @ directions.T


class _Best:
    """The weights of the epoch with the lowest validation loss; without validation, the last."""

    def __init__(self, validation: tuple[Tensor, Tensor] | None) -> None:
        self._validation = validation if validation is not None and len(validation[1]) else None
        self._loss = float("inf")
        self._weights: dict[str, Any] | None = None

    @torch.no_grad()
    def update(self, head: SPRM) -> str:
        if self._validation is None:
            return ""
        hidden, labels = self._validation
        loss = binary_cross_entropy_with_logits(head.eval()(hidden), labels).item()
        head.train()
        if loss < self._loss:
            self._loss, self._weights = loss, deepcopy(head.state_dict())
        return f"  validation {loss:.3f}"

    def restore(self, head: SPRM) -> None:
        if self._weights is not None:
            head.load_state_dict(self._weights)
