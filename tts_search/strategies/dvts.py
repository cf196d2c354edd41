"""Diverse verifier tree search: independent beams, so that one early favourite cannot take all places.

After Beeching et al., "Scaling test-time compute with open models" (2024). Knows no engine and no scorer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tts_search.core.protocols import Plan, Until
from tts_search.core.tree import Tree
from tts_search.strategies.beam import StepBeamSearch
from tts_search.strategies.typed import Typed


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DVTS(Typed):
    """`subtrees` beams of `width` that never compete, grown side by side. One subtree is a beam."""

    needs_scores: ClassVar[bool] = True

    subtrees: int = 4
    branching: int = 4
    width: int = 1
    until: Until = Until.STEP
    chunk_tokens: int | None = None

    def __post_init__(self) -> None:
        self.check()

    def _beam(self) -> StepBeamSearch:
        return StepBeamSearch(
            width=self.width, branching=self.branching, until=self.until, chunk_tokens=self.chunk_tokens
        )

    def __call__(self, tree: Tree) -> Plan:
        plans = [self._beam()(tree) for _ in range(self.subtrees)]
        asked = {plan: next(plan) for plan in plans}
        while asked:
            grown = iter((yield [expand for expands in asked.values() for expand in expands]))
            answers = {plan: [next(grown) for _ in expands] for plan, expands in asked.items()}
            asked = {}
            for plan, answer in answers.items():
                try:
                    asked[plan] = plan.send(answer)
                except StopIteration:
                    continue
