"""What tells one search of an evaluation from another: all that its record depends on, and nothing else."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.test_comparison import QUESTIONS, holds
from tts_search import MCTS, BestOfN, Searcher
from tts_search.core.protocols import Completion, Request
from tts_search.core.result import Candidate
from tts_search.errors import InvalidInputError
from tts_search.evaluation.datasets import Dataset, Problem
from tts_search.evaluation.runs import Evaluation, Record, RunProgress, Setting, Ticker, weights
from tts_search.scorers.engine_sprm import EngineSPRM
from tts_search.store import RunLog
from tts_search.testing import FakeGenerator, FakeScorer

FEW = replace(QUESTIONS, problems=QUESTIONS.problems[:3])
TWICE = BestOfN(n=2)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that one evaluation is made from."""

    dataset: Dataset = FEW
    strategy: Any = TWICE
    budget: int | None = 150
    selector: Any = "majority"
    seed: int = 0
    repeats: int = 1
    grader: Any = holds
    label: str = "mine"
    searcher: dict[str, Any] = field(default_factory=dict)
    name: str = "fake"
    keep_tokens: bool = False

    def run(self, log: RunLog) -> tuple[RunProgress, list[Record]]:
        """The last that was told of its progress, and the records."""
        told = list[RunProgress]()
        options = {"scorer": EngineSPRM(), "max_tokens": 100, "answer_tokens": 20, **self.searcher}
        setting = Setting(label=self.label, strategy=self.strategy, budget=self.budget, selector=self.selector)
        with Searcher(generator=FakeGenerator(name=self.name), **options) as searcher:
            evaluation = Evaluation(
                dataset=self.dataset, searcher=searcher, log=log, grader=self.grader, keep_tokens=self.keep_tokens
            )
            ((*_, records),) = evaluation.run([setting], seed=self.seed, repeats=self.repeats, on_progress=told.append)
        return told[-1], records


@pytest.fixture
def log() -> Iterator[RunLog]:
    with RunLog(None) as log:
        yield log


def edited(change: Callable[[Problem], Problem]) -> Plan:
    return Plan(dataset=replace(FEW, problems=tuple(map(change, FEW.problems))))


def always(answer: str, reference: str) -> bool:
    return True


def first(candidates: list[Candidate]) -> int:
    return 0


OTHERS = {
    "another data set": Plan(dataset=replace(FEW, name="others")),
    "other ids": edited(lambda problem: replace(problem, id=f"other {problem.id}")),
    "other questions": edited(lambda problem: replace(problem, question=f"{problem.question} Say!")),
    "other references": edited(lambda problem: replace(problem, reference="z")),
    "a border that moved": edited(lambda p: replace(p, question=p.question[:-1], reference=f"?{p.reference}")),
    "another strategy": Plan(strategy=MCTS(children=2)),
    "another size": Plan(strategy=BestOfN(n=3)),
    "another budget": Plan(budget=151),
    "no budget": Plan(budget=None),
    "another selector": Plan(selector="weighted"),
    "the usual selector": Plan(selector=None),
    "a selector of ones own": Plan(selector=first),
    "another seed": Plan(seed=1),
    "another grader": Plan(grader=always),
    "the data set's grader": Plan(grader=None),
    "another model": Plan(name="other"),
    "another scorer": Plan(searcher={"scorer": FakeScorer()}),
    "another limit": Plan(searcher={"max_tokens": 101}),
    "another limit of answers": Plan(searcher={"answer_tokens": 21}),
    "another aggregation": Plan(searcher={"aggregation": "min"}),
    "another step rule": Plan(searcher={"step_rule": "a"}),
}
SAME = {
    "the same": Plan(),
    "another label": Plan(label="yours"),
    "other questions beside them": Plan(dataset=replace(QUESTIONS, problems=QUESTIONS.problems[:5])),
    "another order": Plan(dataset=replace(QUESTIONS, problems=FEW.problems[::-1])),
    "more at once": Plan(searcher={"concurrency": 2}),
    "another repeat beside it": Plan(repeats=2),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_what_could_change_a_record_is_another_search(other: Plan, log: RunLog) -> None:
    Plan().run(log)
    progress, records = other.run(log)
    assert progress.resumed == 0
    assert records == other.run(log)[1], "each finds its own"
    assert Plan().run(log)[0].resumed == 3, "and loses nothing of the other's"


@pytest.mark.parametrize("same", SAME.values(), ids=SAME)
def test_what_changes_no_record_is_taken_from_the_log(same: Plan, log: RunLog) -> None:
    _, before = Plan().run(log)
    progress, _ = same.run(log)
    assert progress.resumed == 3
    assert progress.done == progress.total == len(same.dataset) * same.repeats
    assert all(record in replace(same, repeats=1).run(log)[1] for record in before)


def test_a_repeat_is_a_search_with_the_next_seed(log: RunLog) -> None:
    _, second = Plan(repeats=2, seed=4).run(log)
    progress, alone = Plan(seed=5).run(log)
    assert (progress.resumed, alone) == (3, second)


def test_a_record_says_what_the_search_found(log: RunLog) -> None:
    _, records = Plan(selector="best", strategy=BestOfN(n=3), keep_tokens=True).run(log)
    options: dict[str, Any] = {"strategy": BestOfN(n=3), "budget": 150, "selector": "best"}
    with Searcher(generator=FakeGenerator(), scorer=EngineSPRM(), max_tokens=100, answer_tokens=20) as searcher:
        results = [searcher.search(problem.question, **options) for problem in FEW.problems]
    for record, result, problem in zip(records, results, FEW.problems, strict=True):
        assert record["answer"] == result.answer
        assert record["correct"] is holds(result.answer, problem.reference)
        assert record["score"] == result.score
        assert record["stop_reason"] == str(result.stop_reason)
        assert record["error"] is None
        assert record["usage"]["sampled_tokens"] == result.usage.sampled_tokens
        assert len(record["candidates"]) == len(result.candidates)
        for kept, candidate in zip(record["candidates"], result.candidates, strict=True):
            assert (kept["score"], kept["vote"]) == (candidate.score, candidate.vote)
            assert kept["mean_logprob"] == candidate.mean_logprob
            answered = candidate.answer is not None
            assert kept["correct"] == (holds(candidate.answer or "", problem.reference) if answered else None)
            assert result.tree is not None
            end = result.tree.answered(result.tree.nodes[candidate.node])
            assert kept["response_ids"] == list(result.tree.token_ids(end))
            assert kept["step_ends"] == list(result.tree.nodes[candidate.node].step_ends)
    assert any(kept["correct"] is None for record in records for kept in record["candidates"]), "some were not answered"


def test_a_search_that_failed_is_wrong_whatever_the_grader_says() -> None:
    class Dead(FakeGenerator):
        async def generate(self, request: object) -> list[Completion]:
            raise RuntimeError("gone")

    with Searcher(generator=Dead()) as searcher, RunLog(None) as log:
        evaluation = Evaluation(dataset=FEW, searcher=searcher, log=log, grader=always)
        (((record, *_),),) = evaluation.run([Setting(label="mine", strategy=TWICE)])
    assert record["correct"] is False
    assert record["error"] == "GeneratorError: generator 'fake' raised RuntimeError: gone"


def test_what_is_no_number_is_none(log: RunLog) -> None:
    class Impossible(FakeGenerator):
        async def generate(self, request: Request) -> list[Completion]:
            answers = await super().generate(request)
            return [replace(one, logprobs=(-math.inf,) * len(one.token_ids)) for one in answers]

    options: dict[str, Any] = {"scorer": EngineSPRM(), "max_tokens": 50}
    with Searcher(generator=Impossible(), **options) as searcher:
        evaluation = Evaluation(dataset=FEW, searcher=searcher, log=log, grader=holds)
        ((records,),) = evaluation.run([Setting(label="mine", strategy=TWICE, selector="majority")])
    paths = [path for record in records for path in record["candidates"]]
    assert {path["mean_logprob"] for path in paths} == {None}
    json.dumps(records, allow_nan=False)


def test_a_grader_that_cannot_go_on_ends_the_searches_at_once() -> None:
    stuck = threading.Event()

    def refusing(answer: str, reference: str) -> bool:
        stuck.set()
        raise InvalidInputError("no")

    class Patient(FakeGenerator):
        async def generate(self, request: Request) -> list[Completion]:
            if self.requests and request.tree != self.requests[0].tree:  # until the first question was graded
                await asyncio.to_thread(stuck.wait, 60)
            return await super().generate(request)

    generator = Patient()
    many = replace(FEW, problems=tuple(Problem(id=str(i), question=f"{i}?", reference="a") for i in range(200)))
    with Searcher(generator=generator, max_tokens=20, concurrency=1) as searcher, RunLog(None) as log:
        evaluation = Evaluation(dataset=many, searcher=searcher, log=log, grader=refusing)
        with pytest.raises(InvalidInputError, match="question '0': no"):
            evaluation.run([Setting(label="mine", strategy=BestOfN(n=1))])
    assert len({request.tree for request in generator.requests}) < 200


def test_progress_is_counted_from_what_was_made_here() -> None:
    def left(done: int, resumed: int) -> float | None:
        return RunProgress(done=done, total=10, resumed=resumed, seconds=8.0, label="").seconds_left

    assert left(6, 2) == 8.0, "4 in 8 seconds, 4 to go"
    assert left(4, 0) == 12.0
    assert left(10, 6) == 0.0
    assert left(2, 2) is None
    told = list[RunProgress]()
    ticker = Ticker(5, told.append, "runs")
    ticker.resumed(2, "a")
    ticker.one("b")
    assert [(p.done, p.total, p.resumed, p.label, p.unit) for p in told] == [
        (2, 5, 2, "a", "runs"),
        (3, 5, 2, "b", "runs"),
    ]


@pytest.mark.parametrize("place", [0, 10, (1 << 20) + 5, 3 << 20], ids=["begin", "near it", "near the end", "end"])
def test_weights_are_known_by_their_size_and_both_ends(tmp_path: Path, place: int) -> None:
    file = tmp_path / "model.safetensors"
    data = bytearray((3 << 20) + 1) if place != (1 << 20) + 5 else bytearray((1 << 20) + 10)
    file.write_bytes(data)
    before = weights(str(tmp_path))
    data[place] = 1
    file.write_bytes(data)
    changed = weights(str(tmp_path))
    file.write_bytes(data + b"\0")
    assert len({before, changed, weights(str(tmp_path))}) == 3


def test_the_middle_of_a_large_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(3 << 20))
    before = weights(str(tmp_path))
    file.write_bytes(bytes(3 << 19) + b"1" + bytes((3 << 19) - 1))
    assert weights(str(tmp_path)) == before


def test_every_weight_file_counts_and_nothing_else(tmp_path: Path) -> None:
    known = {weights(str(tmp_path))}
    for name in ("a.safetensors", "b.safetensors", "pytorch_model.bin", "sprm/score_module.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"weights")
        known.add(weights(str(tmp_path)))
    assert len(known) == 5
    (tmp_path / "a.safetensors").rename(tmp_path / "c.safetensors")
    assert weights(str(tmp_path)) not in known
    found = weights(str(tmp_path))
    (tmp_path / "README.md").write_text("Read me.")
    assert weights(str(tmp_path)) == found
