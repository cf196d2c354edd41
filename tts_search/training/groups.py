"""Questions whose completions are all right or all wrong: dropping them, and putting fresh ones in their place.

Works on the batch that TRL's trainer makes: tensors `[completions, ...]`. It generates nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

Batch = dict[str, Any]


def one_sided(outcomes: Tensor, size: int) -> Tensor:
    """Whether each completion belongs to a group without both a right and a wrong one, `[completions]`.

    `outcomes` are those of all processes, in order, groups of `size` one after another; NaN is neither right nor wrong.
    """
    groups = outcomes.view(-1, size)
    mixed = (groups == 1).any(1) & (groups == 0).any(1)
    return (~mixed).repeat_interleave(size)


def mask_rows(batch: Batch, rows: Tensor) -> Batch:
    """The batch with these rows masked out: neither the policy nor the head learns from them."""
    kept = dict(batch)
    kept["completion_mask"] = batch["completion_mask"].masked_fill(rows[:, None], 0)
    kept["step_mask"] = batch["step_mask"].masked_fill(rows[:, None], value=False)
    kept["outcome"] = batch["outcome"].masked_fill(rows, float("nan"))
    return kept


def replace_rows(old: Mapping[str, Any], new: Mapping[str, Any], rows: Tensor, pad_id: int) -> Batch:
    """`old`, with `rows` taken from `new`. Prompts are padded on the left, what belongs to completions on the right."""
    batch = dict(old)
    for name, before in old.items():
        after = new[name]
        if not isinstance(before, Tensor) or before.ndim == 0:
            continue
        if before.ndim > 1:
            filling = pad_id if name.endswith("_ids") else 0
            width = max(before.shape[1], after.shape[1])
            left = name.startswith("prompt_")
            before, after = (_widened(t, width, filling, left=left) for t in (before, after))
        batch[name] = torch.where(rows.view(-1, *[1] * (before.ndim - 1)), after, before)
    return batch


def _widened(tensor: Tensor, width: int, filling: int, *, left: bool) -> Tensor:
    missing = width - tensor.shape[1]
    return pad(tensor, (missing, 0) if left else (0, missing), value=filling)
