"""Drawing tokens for a batch of rows, each with settings and a stream of its own: temperature, top-k, top-p and more.

A draw inverts the distribution function at one uniform number, so it depends on the row's logits and stream, and on
nothing else in the batch. This module knows no model and no request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tts_search.core.protocols import Sampling

_LIKELY = 1024  # nearly always, so many of the likeliest tokens hold the nucleus, and sorting the rest can be saved


@dataclass(frozen=True, slots=True)
class Draws:
    """How the rows of a batch are drawn. Tensors are shaped `[rows, 1]`."""

    temperature: Tensor  # 1 for greedy rows
    greedy: Tensor
    top_p: Tensor
    top_k: Tensor  # the vocabulary size where there is no limit
    min_p: Tensor
    any_sampled: bool
    any_nucleus: bool
    any_min_p: bool
    largest_k: int  # of the rows that have a limit; 0 if none has

    @classmethod
    def of(cls, rows: Sequence[Sampling], vocabulary: int, device: torch.device) -> Draws:
        """Collect the settings of `rows`."""
        limits = [r.top_k if 0 < r.top_k < vocabulary else 0 for r in rows]

        def column(values: Sequence[float | int | bool]) -> Tensor:
            return torch.tensor(values, device=device).unsqueeze(1)

        return cls(
            temperature=column([r.temperature if r.temperature > 0 else 1.0 for r in rows]),
            greedy=column([r.temperature <= 0 for r in rows]),
            top_p=column([float(r.top_p) for r in rows]),
            top_k=column([k or vocabulary for k in limits]),
            min_p=column([float(r.min_p) for r in rows]),
            any_sampled=any(r.temperature > 0 for r in rows),
            any_nucleus=any(r.top_p < 1 for r in rows),
            any_min_p=any(r.min_p > 0 for r in rows),
            largest_k=max(limits, default=0),
        )


def penalized(logits: Tensor, seen: Sequence[tuple[Sequence[int], float]]) -> Tensor:
    """Logits with those of tokens that occurred already divided by their row's penalty (multiplied below 0).

    Args:
        logits: fp32, `[rows, vocabulary]`.
        seen: for each row the ids that occurred, and the penalty; 1 for none.
    """
    if all(penalty == 1 for _, penalty in seen):
        return logits
    logits = logits.clone()
    for row, (ids, penalty) in enumerate(seen):
        if penalty != 1 and len(ids):
            places = torch.tensor(sorted({i for i in ids if i < logits.shape[-1]}), device=logits.device)
            values = logits[row, places]
            logits[row, places] = torch.where(values > 0, values / penalty, values * penalty)
    return logits


def draw(logits: Tensor, draws: Draws, uniforms: Tensor, raw: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One token per row, and its log-probability at temperature 1.

    Args:
        logits: fp32, `[rows, vocabulary]`.
        draws: the settings of the rows.
        uniforms: in [0, 1), `[rows, 1]`; not used by greedy rows.
        raw: the model's own logits, where `logits` were changed to draw from; log-probabilities are those of these.

    Returns:
        Token ids and log-probabilities, `[rows]` each. A log-probability that is not finite marks broken logits.
    """
    tokens = logits.argmax(-1, keepdim=True)
    if draws.any_sampled:
        probs = torch.softmax(logits / draws.temperature, -1)
        if draws.any_nucleus or draws.largest_k:
            probs = torch.where(probs >= _floor(probs, draws), probs, 0.0)
        if draws.any_min_p:
            probs = torch.where(probs >= draws.min_p * probs.amax(-1, keepdim=True), probs, 0.0)
        cdf = probs.cumsum(-1)
        total = cdf[:, -1:]
        # Rounding must not reach the total: the token behind it would be one that was filtered out.
        target = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
        sampled = torch.searchsorted(cdf, target, right=True).clamp_(max=logits.shape[-1] - 1)
        tokens = torch.where(draws.greedy, tokens, sampled)
    raw = logits if raw is None else raw
    logprobs = raw.gather(-1, tokens) - raw.logsumexp(-1, keepdim=True)
    return tokens.squeeze(1), logprobs.squeeze(1)


def _floor(probs: Tensor, draws: Draws) -> Tensor:
    """The smallest probability that top-k, and then top-p within it, let through, `[rows, 1]`; ties all pass."""
    vocabulary = probs.shape[-1]
    width = min(vocabulary, max(_LIKELY, draws.largest_k))
    top = probs.topk(width).values
    mass = top.cumsum(-1)
    if width < vocabulary:
        unlimited = draws.top_k >= vocabulary
        if bool((unlimited & (draws.top_p < 1) & (mass[:, -1:] < draws.top_p)).any()):
            top = probs.sort(-1, descending=True).values
            mass = top.cumsum(-1)
            width = vocabulary
    kept = draws.top_k.clamp(max=width)
    allowed = draws.top_p * torch.where(draws.top_k < vocabulary, mass.gather(-1, kept - 1), 1.0)
    nucleus = (mass - top < allowed).sum(-1, keepdim=True).clamp(min=1)
    floor = top.gather(-1, torch.minimum(kept, nucleus) - 1)
    return torch.where((draws.top_p >= 1) & (draws.top_k >= vocabulary), 0.0, floor)
