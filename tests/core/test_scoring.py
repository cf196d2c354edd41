"""Scorers of other people, and what a broken one does to the questions beside it: nothing."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tts_search import BestOfN, InvalidInputError, Scorer, ScorerError, Scores, Searcher
from tts_search.core.scoring import Scoring
from tts_search.core.tree import Trajectory
from tts_search.testing import FakeGenerator, FakeScorer, run_search


def trajectory(text: str = "One.", question: str = "Why?", steps: int = 1) -> Trajectory:
    ids = tuple(text.encode())
    ends = tuple(len(ids) * (i + 1) // steps for i in range(steps))
    return Trajectory(question, (1,), ids, ends, None, (), lambda ids: bytes(ids).decode())


def score(scoring: Scoring, *trajectories: Trajectory) -> tuple[Scores, int]:
    async def call() -> tuple[Scores, int]:
        return await scoring.score(trajectories)

    return asyncio.run(call())


class Broken:
    """Right about every question but one."""

    def __init__(self, answer: Callable[[Trajectory], Any]) -> None:
        self.answer = answer

    def score(self, trajectories: Sequence[Trajectory]) -> list[Any]:
        return [self.answer(t) if t.question == "broken?" else [0.5] * len(t.step_ends) for t in trajectories]


def hang(_: Trajectory) -> None:
    threading.Event().wait(60)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda t: [0.5] * (len(t.step_ends) - 1), "scores for"),
        (lambda t: [0.5] * (len(t.step_ends) + 1), "scores for"),
        (lambda t: [math.nan] * len(t.step_ends), "returned nan for step 1"),
        (lambda t: [1.2] * len(t.step_ends), "returned 1.2 for step 1"),
        (lambda t: [-0.2] * len(t.step_ends), "returned -0.2 for step 1"),
        (lambda t: 1 / 0, "Broken raised ZeroDivisionError: division by zero"),
        (lambda t: None, "Broken raised TypeError"),
        (lambda t: ["high"] * len(t.step_ends), "Broken raised ValueError"),
        (lambda t: (_ for _ in ()).throw(SystemExit(3)), "Broken raised SystemExit: 3"),
        (hang, r"Broken did not answer within 0\.5 seconds.*scorer_seconds"),
    ],
    ids=["too few", "too many", "nan", "above 1", "below 0", "raises", "none", "words", "exits", "hangs"],
)
def test_the_question_it_broke_is_named_and_the_others_finish(answer: Callable[[Trajectory], Any], says: str) -> None:
    questions = ["one?", "two?", "broken?", "three?", "four?"]
    with Searcher(generator=FakeGenerator(), scorer=Broken(answer), scorer_seconds=0.5, max_tokens=200) as searcher:
        results = {r.question: r for r in searcher.search_many(questions, strategy=BestOfN(n=3))}
    assert set(results) == set(questions)
    failed = results.pop("broken?")
    assert isinstance(failed.error, ScorerError)
    assert failed.index == 2
    with pytest.raises(ScorerError, match=says):
        raise failed.error
    assert all(r.error is None and len(r.candidates) == 3 for r in results.values())


def test_a_single_call_raises_and_a_program_with_a_hung_scorer_ends() -> None:
    with pytest.raises(ScorerError, match=r"did not answer within 0\.1 seconds"):
        run_search(FakeGenerator(), scorer=Broken(hang), question="broken?", scorer_seconds=0.1)
    assert all(t.daemon for t in threading.enumerate() if t.name == "tts-search-scorer")


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_a_time_limit_is_positive(seconds: float) -> None:
    with pytest.raises(InvalidInputError, match="scorer_seconds must be positive"):
        Searcher(generator=FakeGenerator(), scorer=FakeScorer(), scorer_seconds=seconds)


class Counting:
    """Knows how many of its calls overlap."""

    def __init__(self, **attributes: int) -> None:
        self.running = self.most = 0
        self.lock = threading.Lock()
        vars(self).update(attributes)

    def score(self, trajectories: Sequence[Trajectory]) -> Scores:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.02)
        with self.lock:
            self.running -= 1
        return Scores([[1.0] * len(t.step_ends) for t in trajectories], tokens=7)


@pytest.mark.parametrize(("attributes", "most"), [({}, 1), ({"concurrency": 3}, 3)])
def test_calls_overlap_only_where_the_scorer_allows_it(attributes: dict[str, int], most: int) -> None:
    scorer = Counting(**attributes)

    async def together() -> None:
        scoring = Scoring(scorer, None)
        await asyncio.gather(*(scoring.score([trajectory()]) for _ in range(8)))

    asyncio.run(together())
    assert scorer.most == most


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, None])
def test_a_scorer_that_allows_no_call_is_refused(concurrency: Any) -> None:
    with pytest.raises(InvalidInputError, match="scorer Counting has concurrency="):
        Scoring(Counting(concurrency=concurrency))


class Held:
    """Answers a call when it is let go; says when one began."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)

    def score(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        self.begun.release()
        assert self.let_go.acquire(timeout=60)
        return [[1.0] * len(t.step_ends) for t in trajectories]


@pytest.mark.parametrize(("second_takes", "in_time"), [(9.0, True), (11.0, False)])
def test_waiting_for_a_turn_does_not_count(second_takes: float, in_time: bool) -> None:
    """By a clock of its own: the first call takes 9 of the 10 seconds that each may, and the second waits for it."""
    scorer = Held()

    async def together() -> None:
        now = 0.0
        loop = asyncio.get_running_loop()
        loop.time = lambda: now
        scoring = Scoring(scorer, 10.0)
        first, second = (asyncio.ensure_future(scoring.score([trajectory()])) for _ in range(2))
        await asyncio.to_thread(scorer.begun.acquire)
        await asyncio.sleep(0)  # the second waits now
        now = 9.0
        scorer.let_go.release()
        await first
        await asyncio.to_thread(scorer.begun.acquire)
        now += second_takes
        for _ in range(3):  # what is due has its chance
            await asyncio.sleep(0)
        scorer.let_go.release()
        await second

    if in_time:
        asyncio.run(together())
    else:
        with pytest.raises(ScorerError, match="did not answer within 10 seconds"):
            asyncio.run(together())


def test_a_cancelled_call_keeps_its_turn_until_the_scorer_is_done() -> None:
    scorer = Held()

    async def cancel_one() -> None:
        scoring = Scoring(scorer, None)
        first = asyncio.ensure_future(scoring.score([trajectory()]))
        await asyncio.to_thread(scorer.begun.acquire)
        first.cancel()
        second = asyncio.ensure_future(scoring.score([trajectory()]))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not scorer.begun.acquire(blocking=False), "the first is still at work"
        scorer.let_go.release(2)
        assert await second == ([(1.0,)], 0)

    asyncio.run(cancel_one())


def test_both_ends_of_the_scale_are_scores() -> None:
    for value in (0, 1, 0.0, 1.0):
        values, _ = score(Scoring(FakeScorer(lambda _, value=value: value)), trajectory(steps=2, text="ab"))
        assert values == [(float(value),) * 2]
        assert all(type(v) is float for v in values[0])


@pytest.mark.parametrize("lists", [0, 1, 3])
def test_every_trajectory_has_its_scores(lists: int) -> None:
    class Miscounts:
        def score(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
            return [[0.5]] * lists

    with pytest.raises(ScorerError, match=f"Miscounts returned {lists} lists of scores for 2 trajectories"):
        score(Scoring(Miscounts()), trajectory(), trajectory())


def test_the_step_that_is_wrong_is_counted_from_one() -> None:
    with pytest.raises(ScorerError, match=r"returned 2\.0 for step 2 of 2"):
        score(Scoring(FakeScorer({"O": 0.5, "n": 2.0}.__getitem__)), trajectory("On", steps=2))


@pytest.mark.parametrize("inline", [True, False])
def test_only_what_is_inline_is_called_in_the_loop_itself(inline: bool) -> None:
    class Where:
        def score(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
            names.append(threading.current_thread().name)
            return [[0.5] for _ in trajectories]

    names: list[str] = []
    Where.inline = inline  # pyright: ignore[reportAttributeAccessIssue]
    score(Scoring(Where()), trajectory())
    assert (names != ["tts-search-scorer"]) is inline


def test_an_error_of_ours_is_passed_on_as_it_is() -> None:
    class Ours:
        def score(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
            raise InvalidInputError("the model is not there")

    with pytest.raises(InvalidInputError, match=r"^the model is not there$"):
        score(Scoring(Ours()), trajectory())


def test_tokens_of_the_scorers_own_model_are_charged_apart_from_sampling() -> None:
    values, tokens = score(Scoring(Counting()), trajectory(), trajectory("Two.Four", steps=2))
    assert (values, tokens) == ([(1.0,), (1.0, 1.0)], 7)
    assert score(Scoring(FakeScorer()), trajectory())[1] == 0
    plain = run_search(FakeGenerator(), BestOfN(n=4), scorer=FakeScorer(lambda _: 1.0))
    charged = run_search(FakeGenerator(), BestOfN(n=4), scorer=Counting())
    assert plain.usage.scored_tokens == 0
    assert charged.usage.scored_tokens == 7  # one call for the whole wave
    assert charged.usage.sampled_tokens == plain.usage.sampled_tokens


def test_a_scorer_brings_its_published_aggregation() -> None:
    class Weakest(FakeScorer):
        aggregation = "min"

    def run(scorer: Scorer, **options: Any) -> tuple[float, list[float]]:
        with Searcher(generator=FakeGenerator(step=0.3), scorer=scorer, max_tokens=200, **options) as searcher:
            result = searcher.search("Why?", strategy=BestOfN(n=1))
        assert result.score is not None
        return result.score, [step.score or 0.0 for step in result.steps]

    value, steps = run(Weakest())
    assert len(steps) > 1
    assert value == min(steps)
    value, steps = run(Weakest(), aggregation="last")
    assert value == steps[-1] != min(steps)
    with pytest.raises(InvalidInputError, match="unknown aggregation 'worst'"):
        Searcher(generator=FakeGenerator(), scorer=type("Odd", (FakeScorer,), {"aggregation": "worst"})())


class Short:
    """Reads the first two steps, and says why."""

    aggregation = "min"
    warnings = ("it was trained by a cat",)

    def __init__(self, unread: str | None = "it reads 2 steps; use a longer one", steps: int = 2) -> None:
        self.unread = unread
        self.steps = steps

    def score(self, trajectories: Sequence[Trajectory]) -> Scores:
        return Scores(([0.25, 0.5, 0.1][: min(t.step_count, self.steps)] for t in trajectories), unread=self.unread)


def test_what_a_scorer_cannot_read_has_no_score_and_is_a_warning() -> None:
    generator = FakeGenerator(step=0.3, close=0.05)
    result = run_search(generator, BestOfN(n=12), scorer=Short())
    assert result.tree is not None
    nodes = [result.tree.nodes[candidate.node] for candidate in result.candidates]
    short = [number for number, node in enumerate(nodes) if node.step_count > 2]
    assert 4 < len(short) < 12
    own, warning = result.warnings
    assert own == "it was trained by a cat"
    assert warning == (
        f"{len(short)} of 12 candidates could not be scored to the end: "
        + ", ".join(f"candidate {n} (step 3 of {nodes[n].step_count} is the first without a score)" for n in short[:4])
        + f" and {len(short) - 4} more; it reads 2 steps; use a longer one"
    )
    scored = [c for c, node in zip(result.candidates, nodes, strict=True) if node.step_count]
    means = {1: 0.25, 2: pytest.approx((0.25 * 0.5) ** 0.5)}  # of what was read
    assert all(c.score == means[min(2, result.tree.nodes[c.node].step_count)] for c in scored)
    chosen = nodes[result.chosen or 0]
    read = [0.25, 0.5][: chosen.step_count]
    assert [step.score for step in result.steps] == [*read, *[None] * (chosen.step_count - 2)]
    assert "candidates could not be scored to the end" in result.to_json()


def test_a_path_of_which_nothing_can_be_read_counts_as_unscored() -> None:
    result = run_search(FakeGenerator(step=0.3, close=0.05), BestOfN(n=3), scorer=Short(steps=0))
    assert result.tree is not None
    steps = [result.tree.nodes[candidate.node].step_count for candidate in result.candidates]
    assert max(steps) > 0
    assert [candidate.score for candidate, n in zip(result.candidates, steps, strict=True) if n] == [None] * sum(
        n > 0 for n in steps
    )
    assert result.answer


def test_without_a_reason_a_short_row_is_an_error() -> None:
    with pytest.raises(ScorerError, match="Short returned 2 scores for 3 steps"):
        score(Scoring(Short(unread=None)), trajectory("One", steps=3))
    with pytest.raises(ScorerError, match="Long returned 3 scores for 2 steps"):
        score(Scoring(Long()), trajectory("On", steps=2))


class Long(Short):
    def score(self, trajectories: Sequence[Trajectory]) -> Scores:
        return Scores([[0.5, 0.5, 0.5]], unread="?")


def test_a_scorer_of_async_code_is_told_what_is_due() -> None:
    class Judge:
        async def score(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
            return [[0.5] * t.step_count for t in trajectories]

    for inline in (False, True):
        judge: Any = Judge()
        judge.inline = inline
        with pytest.raises(ScorerError, match=r"Judge has an async score\(\), and a plain one is due"):
            score(Scoring(judge, None), trajectory())
