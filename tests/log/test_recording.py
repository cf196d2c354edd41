"""Over a log nothing is sampled twice, nothing is lost, and what is found is as good as new."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tts_search import (
    MCTS,
    BestFirst,
    BestOfN,
    Completion,
    Request,
    Sampling,
    Searcher,
    SearchResult,
    StepBeamSearch,
    Trajectory,
)
from tts_search.core.events import Sampled, Started
from tts_search.core.result import StopReason
from tts_search.embedded import MODEL_FOLDER
from tts_search.errors import GeneratorError, InvalidInputError, TTSError
from tts_search.export import to_json
from tts_search.generators.transformers import TransformersGenerator
from tts_search.log import SearchLog
from tts_search.options import Options
from tts_search.testing import FakeGenerator, FakeScorer

FINGERPRINT = "fake"
RULE = ".\n\n"  # said, so that the model is not asked for it
QUESTIONS = [f"What is {i}?" for i in range(5)]


def plain(result: SearchResult) -> dict[str, Any]:
    """All that does not depend on the clock."""
    assert result.error is None, result.error
    values = result.to_dict()
    values["usage"].pop("seconds")
    return values


def in_order(results: Iterator[SearchResult]) -> list[dict[str, Any]]:
    return [plain(result) for result in sorted(results, key=lambda result: result.index)]


class Dying(FakeGenerator):
    """Dies with its `last + 1`-th completion, as a process does that is killed: nothing after it is told."""

    def __init__(self, last: int, **more: Any) -> None:
        super().__init__(**more)
        object.__setattr__(self, "left", [last])

    left: list[int]
    fingerprint = FINGERPRINT  # to a log it is the engine that lives on

    def _complete(self, request: Request, seed: int) -> Completion:
        if self.left[0] == 0:
            raise GeneratorError("killed")
        self.left[0] -= 1
        return super()._complete(request, seed)


class Living(FakeGenerator):
    fingerprint = FINGERPRINT


def sampled(generator: FakeGenerator) -> int:
    return sum(len(request.seeds) for request in generator.requests)


@pytest.mark.parametrize(
    ("strategy", "budget"),
    [(BestOfN(n=6), None), (BestOfN(n=6), 700), (StepBeamSearch(), None), (StepBeamSearch(), 700), (MCTS(), 700),
     (BestFirst(), 700)],
    ids=repr,
)  # fmt: skip
def test_a_log_changes_nothing_and_a_second_run_samples_nothing(
    strategy: Any, budget: int | None, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"strategy": strategy, "budget": budget}
    with Searcher(generator=FakeGenerator(), scorer=FakeScorer()) as searcher:
        expected = in_order(searcher.search_many(QUESTIONS, **options))
    for expect_sampled in (True, False):
        with Searcher(generator=(fake := FakeGenerator()), scorer=FakeScorer()) as searcher:
            assert in_order(searcher.search_many(QUESTIONS, **options, log=tmp_path / "a.log")) == expected
        assert bool(fake.requests) is expect_sampled


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(last=st.integers(0, 60))
def test_killed_anywhere_it_goes_on_and_samples_the_rest(tmp_path: Path, last: int) -> None:
    path = tmp_path / "a.log"
    path.unlink(missing_ok=True)
    with Searcher(generator=(whole := FakeGenerator()), scorer=FakeScorer()) as searcher:
        expected = in_order(searcher.search_many(QUESTIONS, strategy=BestOfN(n=8), step_rule=RULE))
    with Searcher(generator=Dying(last), scorer=FakeScorer()) as searcher:
        list(searcher.search_many(QUESTIONS, strategy=BestOfN(n=8), step_rule=RULE, log=path))
    with Searcher(generator=(rest := Living()), scorer=FakeScorer()) as searcher:
        assert in_order(searcher.search_many(QUESTIONS, strategy=BestOfN(n=8), step_rule=RULE, log=path)) == expected
    assert sampled(rest) == max(0, sampled(whole) - last)


def test_a_best_of_32_killed_at_its_31st_sample_samples_one_more(tmp_path: Path) -> None:
    options: dict[str, Any] = {"strategy": BestOfN(n=32), "step_rule": RULE, "log": tmp_path / "a.log"}
    with Searcher(generator=Dying(31), scorer=FakeScorer()) as searcher, pytest.raises(GeneratorError):
        searcher.search("Why?", **options)
    with Searcher(generator=(rest := Living()), scorer=FakeScorer()) as searcher:
        searcher.search("Why?", **options)
    thoughts = [request for request in rest.requests if len(request.prefix) == len("Why?") + 1]
    assert sum(len(request.seeds) for request in thoughts) == 1
    assert len(rest.requests) == 2, "one sample more, and the answer"


class Reporting(FakeGenerator):
    """Says when each completion is done, and fails before it returns them."""

    reports_completions = True
    fingerprint = FINGERPRINT

    async def generate(self, request: Request) -> list[Completion]:
        completions = await super().generate(request)
        assert request.on_completion is not None
        for place, completion in enumerate(completions[:-1]):
            request.on_completion(place, completion)
        raise GeneratorError("killed")


def test_an_engine_that_reports_gets_one_request_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with Searcher(generator=(dying := Reporting()), scorer=FakeScorer()) as searcher, pytest.raises(GeneratorError):
        searcher.search("Why?", strategy=BestOfN(n=8), step_rule=RULE, log=path)
    assert [len(request.seeds) for request in dying.requests] == [8]
    with Searcher(generator=(rest := Living()), scorer=FakeScorer()) as searcher:
        searcher.search("Why?", strategy=BestOfN(n=8), step_rule=RULE, log=path)
    assert sampled(rest) == 2


def test_what_breaks_the_contract_is_not_kept(tmp_path: Path) -> None:
    class Wrong(FakeGenerator):
        def _complete(self, request: Request, seed: int) -> Completion:
            found = super()._complete(request, seed)
            return replace(found, logprobs=(float("nan"),) * len(found.logprobs or ()))

    path = tmp_path / "a.log"
    with Searcher(generator=Wrong(), scorer=FakeScorer()) as searcher, pytest.raises(GeneratorError, match="NaN"):
        searcher.search("Why?", strategy=BestOfN(n=2), log=path)
    with SearchLog(path, write=False) as log:
        assert not [record for record in log if record.kind == b"g"]


OTHERS: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("seed", lambda o: o.update(seed=1)),
    ("temperature", lambda o: o.update(sampling={"temperature": 0.1})),
    ("min_p", lambda o: o.update(sampling={"min_p": 0.1})),
    ("repetition_penalty", lambda o: o.update(sampling={"repetition_penalty": 1.5})),
    ("max_tokens", lambda o: o.update(max_tokens=17)),
    ("system", lambda o: o.update(system="Be brief.")),
    ("step_rule", lambda o: o.update(step_rule="a", strategy=StepBeamSearch(width=1, branching=2))),
    ("engine", lambda o: o.update(generator=FakeGenerator(step=0.3))),
    ("model", lambda o: o.update(generator=FakeGenerator(name="other"))),
]


@pytest.mark.parametrize(("name", "change"), OTHERS, ids=[name for name, _ in OTHERS])
def test_whatever_decides_what_an_engine_returns_is_in_the_key(
    name: str, change: Callable[[dict[str, Any]], Any], tmp_path: Path
) -> None:
    first: dict[str, Any] = {"strategy": BestOfN(n=3), "generator": FakeGenerator()}
    if name == "step_rule":
        first["strategy"] = StepBeamSearch(width=1, branching=2)
    other = dict(first, generator=FakeGenerator())
    change(other)

    def search(generator: FakeGenerator, **options: Any) -> dict[str, Any]:
        generator.requests.clear()
        with Searcher(generator=generator, scorer=FakeScorer()) as searcher:
            return plain(searcher.search("Why?", **options))

    search(**first, log=tmp_path / "a.log")
    fresh = replace(other["generator"], requests=[])
    expected = search(**dict(other, generator=fresh))
    assert search(**other, log=tmp_path / "a.log") == expected
    assert sampled(other["generator"]) == sampled(fresh), "nothing of the other search was taken for this one's"


class Counting(FakeScorer):
    inline = False  # pyright: ignore[reportAssignmentType, reportIncompatibleUnannotatedOverride]
    asked: list[int] = []  # noqa: RUF012 - shared on purpose

    def score(self, trajectories: Sequence[Trajectory]) -> Sequence[Sequence[float]]:
        self.asked.append(len(trajectories))
        return super().score(trajectories)


def test_a_scorer_is_asked_once(tmp_path: Path) -> None:
    options: dict[str, Any] = {"strategy": StepBeamSearch(), "log": tmp_path / "a.log"}
    results = []
    for _ in range(2):
        Counting.asked.clear()
        with Searcher(generator=FakeGenerator(), scorer=Counting()) as searcher:
            results.append(plain(searcher.search("Why?", **options)))
    assert not Counting.asked
    assert results[0] == results[1]


def test_a_search_by_the_clock_is_kept_whole(tmp_path: Path) -> None:
    path, calls = tmp_path / "a.log", list[int]()

    def enough(tree: Any) -> bool:
        calls.append(len(tree))
        return len(tree) > 9

    options: dict[str, Any] = {
        "strategy": BestOfN(n=2),
        "repeat": True,
        "budget": 9000,
        "stop_when": enough,
        "log": path,
    }
    with Searcher(generator=FakeGenerator(), scorer=FakeScorer()) as searcher:
        first = searcher.search("Why?", **options)
    with Searcher(generator=(fake := FakeGenerator()), scorer=FakeScorer()) as searcher:
        calls.clear()
        second = searcher.search("Why?", **options)
        assert first.stop_reason is StopReason.EARLY
        assert second == first, "to the second"
        assert not fake.requests
        assert not calls
        assert second.tree is not None
        assert first.tree is not None
        assert second.tree.split(second.tree.nodes[5]) == first.tree.split(first.tree.nodes[5])
        with pytest.raises(InvalidInputError, match="as the clock ended it"):
            searcher.search("Why?", **options, selector="majority", replay=True)


def test_a_halted_search_is_gone_on_with(tmp_path: Path) -> None:
    halt = threading.Event()
    options: dict[str, Any] = {"strategy": StepBeamSearch(), "log": tmp_path / "a.log"}
    with Searcher(generator=FakeGenerator(delay_seconds=0.01), scorer=FakeScorer()) as searcher:
        expected = plain(searcher.search("Why?", strategy=StepBeamSearch()))

        def stop(event: object) -> None:
            if isinstance(event, Sampled) and event.sampled_tokens > 40:
                halt.set()

        halted = searcher.search("Why?", **options, halt=halt, on_event=stop)
        assert halted.stop_reason is StopReason.HALTED
        assert plain(searcher.search("Why?", **options)) == expected


def test_seconds_are_those_of_all_runs(tmp_path: Path) -> None:
    options: dict[str, Any] = {"strategy": BestOfN(n=4), "log": tmp_path / "a.log"}
    with Searcher(generator=FakeGenerator(delay_seconds=0.2), scorer=FakeScorer()) as searcher:
        first = searcher.search("Why?", **options)
        assert searcher.search("Why?", **options).usage.seconds >= 0.9 * first.usage.seconds - 0.05


def test_progress_and_streams_hear_what_is_found(tmp_path: Path) -> None:
    heard: list[list[str]] = []
    for _ in range(2):
        events = list[str]()

        def hear(event: Any, events: list[str] = events) -> None:
            events.append(f"{type(event).__name__} {getattr(event, 'text', '')}")

        with Searcher(generator=FakeGenerator(), scorer=FakeScorer()) as searcher:
            searcher.search("Why?", strategy=BestOfN(n=4), log=tmp_path / "a.log", on_event=hear)
        heard.append([event for event in events if not event.startswith("Sampled")])
    assert heard[0] == heard[1]


def test_calls_of_one_process_share_a_log(tmp_path: Path) -> None:
    path = tmp_path / "a.log"

    async def both(searcher: Searcher) -> list[SearchResult]:
        return await asyncio.gather(*[searcher.asearch(question) for question in QUESTIONS])

    with Searcher(generator=(fake := FakeGenerator()), scorer=FakeScorer(), log=path) as searcher:
        first = asyncio.run(both(searcher))
        count = len(fake.requests)
        assert [plain(r) for r in asyncio.run(both(searcher))] == [plain(r) for r in first]
        assert len(fake.requests) == count
    elsewhere = SearchLog(path)  # as another process has it
    with elsewhere, Searcher(generator=FakeGenerator(), log=path) as other, pytest.raises(InvalidInputError) as caught:
        other.search("Why?")
    assert "in use" in str(caught.value)


class Meeting(FakeGenerator):
    """Answers once so many searches have begun, and fails the first times."""

    def __init__(self, fails: int = 0) -> None:
        super().__init__()
        object.__setattr__(self, "begun", asyncio.Event())
        object.__setattr__(self, "left", [fails])

    begun: asyncio.Event
    left: list[int]

    async def generate(self, request: Request) -> list[Completion]:
        await self.begun.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        if self.left[0]:
            self.left[0] -= 1
            raise GeneratorError("broken")
        return await super().generate(request)


def equal_questions_at_once(engine: Meeting, path: Path) -> list[SearchResult]:
    started = list[Any]()

    def hear(event: Any) -> None:
        started.extend([event] if isinstance(event, Started) else [])
        if len(started) == 3:
            engine.begun.set()

    options: dict[str, Any] = {"strategy": BestOfN(n=4), "step_rule": RULE, "log": path, "on_event": hear}
    with Searcher(generator=engine, scorer=FakeScorer()) as searcher:
        return list(searcher.search_many(["Why?"] * 3, **options))


def test_equal_questions_at_once_are_sampled_once(tmp_path: Path) -> None:
    with Searcher(generator=(alone := FakeGenerator()), scorer=FakeScorer()) as searcher:
        expected = searcher.search("Why?", strategy=BestOfN(n=4), step_rule=RULE)
    results = equal_questions_at_once(engine := Meeting(), tmp_path / "a.log")
    assert [plain(replace(result, index=0)) for result in results] == [plain(expected)] * 3
    assert sampled(engine) == sampled(alone)


def test_what_fails_for_one_of_them_is_asked_for_by_the_next(tmp_path: Path) -> None:
    results = equal_questions_at_once(Meeting(fails=1), tmp_path / "a.log")
    assert [result.error is None for result in sorted(results, key=lambda r: r.error is None)] == [False, True, True]


def test_a_log_that_can_be_none_is_said(tmp_path: Path) -> None:
    closed = SearchLog(tmp_path / "a.log")
    closed.close()
    logs: list[tuple[Any, str]] = [("a\0b", "is no path"), ("/dev/null", "no file"), (closed, "open it again")]
    with Searcher(generator=FakeGenerator(), scorer=FakeScorer()) as searcher:
        for log, said in logs:
            with pytest.raises(TTSError, match=said):
                searcher.search("Why?", log=log)


def test_questions_are_read_as_they_are_needed(tmp_path: Path) -> None:
    read = list[int]()

    def endless() -> Iterator[str]:
        for i in range(10**9):
            read.append(i)
            yield f"What is {i}?"

    with Searcher(generator=FakeGenerator(), scorer=FakeScorer(), concurrency=2) as searcher:
        results = searcher.search_many(endless(), strategy="single", log=tmp_path / "a.log")
        for _ in range(5):
            next(results)
        results.close()  # type: ignore[attr-defined]
        assert len(read) < 12
        searcher.search("Why?", log=tmp_path / "a.log")  # it was let go


def test_with_the_embedded_model(tmp_path: Path) -> None:
    question, path = "Using the numbers 7, 5, 15 and 11, make 24.", tmp_path / "a.log"
    options: dict[str, Any] = {"strategy": BestOfN(n=16), "selector": "majority"}
    with Searcher() as searcher:
        expected = searcher.search(question, **options)
        before = searcher.search(question, **options, log=path)
        assert plain(before)["answer"] == plain(expected)["answer"]
        size = path.stat().st_size
        after = searcher.search(question, **options, log=path)
        assert plain(after) == plain(before)
        assert to_json(replace(after, usage=before.usage)) == to_json(before), "with its whole tree"
        assert path.stat().st_size == size
    assert size <= 12 * before.usage.sampled_tokens
    with Searcher(generator="none") as searcher:
        assert plain(searcher.search(question, **options, log=path, replay=True)) == plain(before)
        with pytest.raises(GeneratorError, match="samples nothing"):
            searcher.search(question, **options)


def test_a_wide_logged_sampling_is_its_own(tmp_path: Path) -> None:
    sampling = Sampling(temperature=0.0)
    with Searcher(generator=(fake := FakeGenerator()), scorer=FakeScorer()) as searcher:
        searcher.search("Why?", strategy="single", sampling=sampling, log=tmp_path / "a.log")
        count = len(fake.requests)
        searcher.search("Why?", strategy="single", sampling={"temperature": 0}, log=tmp_path / "a.log")
        assert len(fake.requests) == count, "equal settings are equal however they are said"


def test_what_else_an_engine_says_is_heard_over_a_log(tmp_path: Path) -> None:
    class Doubtful(FakeGenerator):
        def remark(self, question: Any) -> str:
            return f"this model was made for longer questions than {question!r}"

    with Searcher(generator=Doubtful(), scorer=FakeScorer()) as searcher:
        for log in (None, tmp_path / "a.log"):
            options = Options(strategy="single") if log is None else Options(strategy="single", log=log)
            assert "longer questions" in searcher.search("Why?", **options).warnings[0]


def test_a_model_that_was_trained_on_is_another_engine(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    from tts_search.models import contents_of

    for name in ("config.json", "model.safetensors"):
        shutil.copy(MODEL_FOLDER / name, tmp_path / name)
    before = contents_of(tmp_path)
    assert before == contents_of(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for name in list(weights)[::7]:
        changed = {**weights, name: weights[name] + 0.01}
        save_file(changed, tmp_path / "model.safetensors", {"format": "pt"})
        assert contents_of(tmp_path) != before, name


def test_engines_of_ours_tell_of_each_completion() -> None:
    async def ask() -> tuple[list[Completion], dict[int, Completion]]:
        generator, told = TransformersGenerator("embedded"), dict[int, Completion]()
        prefix = generator.tokenizer.render(QUESTIONS[0])
        stops = generator.tokenizer.eos_ids
        request = Request(prefix=prefix, seeds=(1, 2, 3), max_tokens=20, stop_ids=stops, on_completion=told.__setitem__)
        found = list(await generator.generate(request))
        await generator.aclose()
        return found, told

    found, told = asyncio.run(ask())
    assert [told[place] for place in range(3)] == found
