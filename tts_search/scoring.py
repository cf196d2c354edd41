"""One call of a scorer, and its answer held to the contract. Knows no search."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from tts_search.errors import ScorerError, TTSError
from tts_search.protocols import Scorer
from tts_search.tree import Trajectory


async def score_steps(scorer: Scorer, trajectories: Sequence[Trajectory]) -> list[tuple[float, ...]]:
    """Step scores of each trajectory; in a thread of its own unless the scorer says that it is a look-up (`inline`).

    Raises:
        ScorerError: the scorer raised, or returned too few or too many scores, NaN, or values outside [0, 1].
    """
    name = type(scorer).__name__
    try:
        if getattr(scorer, "inline", False):
            scores = scorer.score(trajectories)
        else:
            scores = await asyncio.to_thread(scorer.score, trajectories)
        checked = [tuple(float(score) for score in steps) for steps in scores]
    except TTSError:
        raise
    except Exception as error:
        raise ScorerError(f"scorer {name} raised {type(error).__name__}: {error}") from error
    if len(checked) != len(trajectories):
        raise ScorerError(f"scorer {name} returned {len(checked)} lists of scores for {len(trajectories)} trajectories")
    for steps, trajectory in zip(checked, trajectories, strict=True):
        if len(steps) != len(trajectory.step_ends):
            raise ScorerError(f"scorer {name} returned {len(steps)} scores for {len(trajectory.step_ends)} steps")
        for number, score in enumerate(steps, start=1):
            if not (math.isfinite(score) and 0.0 <= score <= 1.0):
                raise ScorerError(
                    f"scorer {name} returned {score} for step {number} of {len(steps)}: scores are numbers in [0, 1]"
                )
    return checked
