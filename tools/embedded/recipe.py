"""All sizes of a build of the embedded model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All sizes of a build; the defaults make the model that ships."""

    width: int = 128
    blocks: int = 4
    steps: int = 12_000
    traces: int = 32
    head_puzzles: int = 4_000
    head_samples: int = 4
    head_epochs: int = 40
    questions: int = 500
    pool: int = 16


QUICK = Recipe(
    width=32,
    blocks=2,
    steps=4,
    traces=8,
    head_puzzles=4,
    head_samples=2,
    head_epochs=1,
    questions=4,
    pool=2,
)
"""Goes through every stage in seconds and learns nothing: for tests."""
