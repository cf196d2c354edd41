"""What the export tests share: a plain search, and a hostile one."""

from dataclasses import replace

import pytest

from tests.export.searches import HOSTILE, Grow, run, spelled
from tts_search import SearchResult, Until
from tts_search.testing import FakeGenerator


@pytest.fixture
def result() -> SearchResult:
    """A tree of some thirty nodes."""
    return run(Grow(rounds=8), seed=3)


@pytest.fixture
def hostile() -> SearchResult:
    """Hostile text in every place that has text."""
    result = run(Grow(rounds=2, until=Until.THOUGHT), FakeGenerator(script=spelled(HOSTILE)), selector="majority")
    assert result.tree is not None
    result.tree.question = HOSTILE
    candidates = tuple(replace(c, answer=HOSTILE, vote=HOSTILE) for c in result.candidates)
    return replace(
        result,
        question=HOSTILE,
        answer=HOSTILE,
        strategy=HOSTILE,
        model=HOSTILE,
        selector=HOSTILE,
        candidates=candidates,
    )
