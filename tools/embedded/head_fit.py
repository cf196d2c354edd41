"""Fitting the embedded model's SPRM head: BCE on graded samples of the frozen policy.

Every step of a trajectory carries the trajectory's outcome as its label. It does not touch the policy; the
self-supervised loss of the paper belongs to joint training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from tools.embedded.graded_samples import Sample
from tts_search.sprm.config import SPRMConfig
from tts_search.sprm.module import SPRM
from tts_search.training.probe import ProbeSettings, fit_probe


def fit_head(
    samples: Sequence[Sample],
    *,
    hidden_size: int,
    epochs: int,
    seed: int,
    report: Callable[[str], None] = print,
) -> SPRM:
    """A head fitted to `samples`, as `tts_search.training` fits every head."""
    kept = [sample for sample in samples if len(sample.steps)]
    hidden = torch.cat([sample.steps for sample in kept]) if kept else torch.zeros(1, hidden_size)
    labels = torch.tensor([float(sample.correct) for sample in kept for _ in sample.steps] or [0.0])
    config = SPRMConfig(hidden_size=hidden_size, readout="previous")
    return fit_probe(hidden, labels, config, ProbeSettings(epochs=epochs, seed=seed), report=report)
