"""A log without its engine: the same search again, another choice among its paths, and what is missing by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tts_search import BestOfN, Candidate, Searcher, SearchResult, StepBeamSearch, Trajectory
from tts_search.errors import GeneratorError, InvalidInputError, TTSError
from tts_search.selection.selectors import SELECTORS
from tts_search.testing import FakeGenerator, FakeScorer


def never(prefix: tuple[int, ...], seed: int) -> int:
    raise AssertionError("a replay asked the engine")


def searcher(scorer: Any = None) -> Searcher:
    """One that must not be asked for a token, whose engine is another than the log's."""
    return Searcher(generator=FakeGenerator(script=never), scorer=scorer)


def record(path: Path, **options: Any) -> SearchResult:
    with Searcher(generator=FakeGenerator(), scorer=FakeScorer()) as live:
        return live.search("Why?", log=path, **options)


@pytest.mark.parametrize("recorded", ["majority", "weighted", "logprob"])
@pytest.mark.parametrize("chosen", list(SELECTORS))
@pytest.mark.parametrize("budget", [None, 900])
def test_another_selector_replays_everything(recorded: str, chosen: str, budget: int | None, tmp_path: Path) -> None:
    options: dict[str, Any] = {"strategy": BestOfN(n=8), "budget": budget}
    before = record(tmp_path / "a.log", selector=recorded, **options)
    with searcher() as offline:
        after = offline.search("Why?", selector=chosen, log=tmp_path / "a.log", replay=True, **options)
    assert [c.node for c in after.candidates] == [c.node for c in before.candidates]
    assert [c.score for c in after.candidates] == [c.score for c in before.candidates]
    assert after.usage.sampled_tokens == before.usage.sampled_tokens
    assert after.chosen == SELECTORS[chosen].choose(before.candidates)
    assert after.chosen is not None
    assert after.answer == before.candidates[after.chosen].answer
    assert after.selector == chosen
    assert bool(after.warnings) is (chosen != recorded)


@pytest.mark.parametrize("strategy", [BestOfN(n=8), StepBeamSearch()], ids=repr)
def test_another_aggregation_chooses_again_and_says_so(strategy: Any, tmp_path: Path) -> None:
    before = record(tmp_path / "a.log", strategy=strategy, selector="weighted")
    with searcher() as offline:
        after = offline.search(
            "Why?", strategy=strategy, selector="best", aggregation="min", log=tmp_path / "a.log", replay=True
        )
    assert before.tree is not None
    worth = [min(before.tree.nodes[c.node].step_scores, default=None) for c in before.candidates]
    assert [c.score for c in after.candidates] == worth
    assert after.chosen == max(range(len(worth)), key=lambda i: (worth[i] or 0.0, -i))
    assert after.chosen is not None
    assert after.score == worth[after.chosen]
    assert "aggregation min instead of geometric_mean" in after.warnings[0]


class ByLength:
    """A scorer that the log does not know."""

    def score(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        return [[1 / (1 + len(t.text))] * t.step_count for t in trajectories]


def test_another_scorer_chooses_again_and_says_so(tmp_path: Path) -> None:
    before = record(tmp_path / "a.log", strategy=BestOfN(n=8), selector="weighted")
    with searcher(ByLength()) as offline:
        after = offline.search("Why?", strategy=BestOfN(n=8), selector="best", log=tmp_path / "a.log", replay=True)
    assert before.tree is not None
    lengths = [len(before.tree.trajectory(before.tree.nodes[c.node]).text) for c in before.candidates]
    worth = [pytest.approx(1 / (1 + n)) if before.tree.nodes[c.node].step_count else 0.0
             for n, c in zip(lengths, before.candidates, strict=True)]  # fmt: skip
    assert [c.score for c in after.candidates] == worth
    assert "scorer" in after.warnings[0]
    assert "ByLength" in after.warnings[0]


def test_a_path_that_was_never_answered_is_named(tmp_path: Path) -> None:
    before = record(tmp_path / "a.log", strategy=BestOfN(n=8))  # "best" has the chosen path alone answered
    with searcher() as offline:
        worst = offline.search(
            "Why?",
            strategy=BestOfN(n=8),
            selector=lambda candidates: min(range(len(candidates)), key=lambda i: candidates[i].score or 0),
            log=tmp_path / "a.log",
            replay=True,
        )
    assert worst.chosen != before.chosen
    assert worst.answer == ""
    assert worst.thinking
    assert any("7 of 8 paths were never answered" in said for said in worst.warnings)
    assert any("the chosen path was never answered" in said for said in worst.warnings)


DIFFERENT: list[tuple[dict[str, Any], str]] = [
    ({"strategy": BestOfN(n=9)}, "strategy='BestOfN(n=8)', not 'BestOfN(n=9)'"),
    ({"seed": 4}, "seed=0, not 4"),
    ({"budget": 10_000}, "budget=None, not 10000"),
    ({"sampling": {"min_p": 0.5}}, "sampling="),
]


@pytest.mark.parametrize(("other", "said"), DIFFERENT, ids=[next(iter(other)) for other, _ in DIFFERENT])
def test_what_differs_is_named(other: dict[str, Any], said: str, tmp_path: Path) -> None:
    record(tmp_path / "a.log", strategy=BestOfN(n=8))
    options: dict[str, Any] = {"strategy": BestOfN(n=8), **other}
    with searcher() as offline, pytest.raises(GeneratorError) as caught:
        offline.search("Why?", log=tmp_path / "a.log", replay=True, **options)
    assert said in str(caught.value)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with searcher() as offline:
        with pytest.raises(InvalidInputError, match="cannot be read"):
            offline.search("Why?", log=path, replay=True)
        assert not path.exists(), "a replay makes no log"
        with pytest.raises(InvalidInputError, match="give log="):
            offline.search("Why?", replay=True)
        record(path)
        with pytest.raises(GeneratorError, match="does not hold the question 'Who"):
            offline.search("Who?", log=path, replay=True)


def test_a_search_that_was_cut_off_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    record(path, strategy=BestOfN(n=8))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with searcher() as offline, pytest.raises(TTSError, match="not in the log to its end"):
        offline.search("Why?", strategy=BestOfN(n=8), log=path, replay=True)


def shortest(candidates: Sequence[Candidate]) -> int:
    return min(range(len(candidates)), key=lambda i: len(candidates[i].answer or ""))


def test_what_the_log_was_recorded_with_must_be_at_hand(tmp_path: Path) -> None:
    before = record(tmp_path / "a.log", selector=shortest)
    with searcher() as offline:
        with pytest.raises(InvalidInputError, match="recorded with selector=shortest"):
            offline.search("Why?", log=tmp_path / "a.log", replay=True)
        after = offline.search("Why?", log=tmp_path / "a.log", replay=True, selector=shortest)
    assert after.answer == before.answer
    assert not after.warnings
