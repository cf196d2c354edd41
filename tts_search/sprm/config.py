"""What a head must know about itself to be read correctly. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tts_search.errors import InvalidInputError
from tts_search.segmentation import DEFAULT_STEP_RULE, StepRule

Readout = Literal["previous", "step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SPRMConfig:
    """What a head must know about itself to be read correctly.

    `layer` indexes Hugging Face `hidden_states` (length L + 1): -2 is the output of the second-to-last block (paper,
    section 3.1). `readout` says at which token a step is read: `"step"` at the step token itself (the paper's text),
    `"previous"` at the token before it, the position that predicts the step token (the released checkpoints).
    """

    hidden_size: int
    layer: int = -2
    readout: Readout = "previous"
    step_rule: StepRule = field(default=DEFAULT_STEP_RULE)
    aggregation: str = "geometric_mean"

    def __post_init__(self) -> None:
        if self.hidden_size < 1:
            raise InvalidInputError(f"SPRM hidden_size must be at least 1, got {self.hidden_size}")
        if self.layer != -2:
            raise InvalidInputError(f"SPRM reads the second-to-last layer (layer=-2), got layer={self.layer}")
        if self.readout not in ("previous", "step"):
            raise InvalidInputError(f'SPRM readout must be "previous" or "step", got {self.readout!r}')
