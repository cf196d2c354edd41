"""Scores that fall out of generation: reads the SPRM logits that came with the tokens. Runs no model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tts_search.core.tree import Trajectory
from tts_search.errors import ScorerError


class EngineSPRM:
    """The `Scorer` of a generator that carries an SPRM head: sigmoid of the head's logit at every step token.

    Raises:
        ScorerError: the trajectory came from a generator without a head, or the head gave NaN or infinity.
    """

    inline = True  # a look-up: not worth a thread
    at_step_tokens = True  # there, and nowhere else, it was trained to mean something

    def score(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        """One value in [0, 1] per finished step."""
        return [[*t.known_scores, *new] for t, new in zip(trajectories, self.score_new(trajectories), strict=True)]

    def score_new(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        """One value in [0, 1] per step behind the known ones."""
        return [self._read(trajectory) for trajectory in trajectories]

    def _read(self, trajectory: Trajectory) -> list[float]:
        logits = trajectory.new_step_logits
        if logits is None:
            raise ScorerError(
                "the generator returned no SPRM scores: give it a model folder with a head (sprm/ or score_module.pt), "
                "pass another scorer, or choose selector='majority'"
            )
        values = [probability(logit) for logit in logits]
        for place in range(len(values)):
            if not math.isfinite(logits[place]):
                known = trajectory.step_count - len(values)
                raise ScorerError(
                    f"the SPRM head gave {logits[place]} for step {known + place + 1} (token "
                    f"{trajectory.new_step_ends[place]}): its weights or the policy's hidden states broke: "
                    "check the checkpoint, or run in a wider dtype"
                )
        return values


def probability(logit: float) -> float:
    """`sigmoid(logit)`, stable at both ends; NaN stays NaN."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1.0 + odds)
