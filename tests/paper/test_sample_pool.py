"""Curves of one pool, the scaling law's line, and the first wrong step, each against a slow or known result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.evaluation.test_comparison import QUESTIONS, holds, make_searcher
from tts_search import BestOfN
from tts_search.errors import InvalidInputError, ScorerError
from tts_search.evaluation.process_bench import (
    Solution,
    best_threshold,
    judge_scores,
    read_solutions,
    score_solutions,
)
from tts_search.evaluation.runs import Evaluation
from tts_search.metrics import bootstrap
from tts_search.paper.sample_pool import Pool, sample_pool
from tts_search.paper.scaling import fit_scaling_law, plot_scaling_law
from tts_search.store import RunLog
from tts_search.testing import FakeGenerator, FakeScorer


def test_a_pool_is_what_the_searches_found(tmp_path: Path) -> None:
    generator = FakeGenerator()
    with make_searcher(generator) as searcher, RunLog(tmp_path / "log.jsonl") as log:
        evaluation = Evaluation(dataset=QUESTIONS, searcher=searcher, log=log, grader=holds)
        pool = sample_pool(evaluation, 4)
        asked = len(generator.requests)
        assert sample_pool(evaluation, 4).correct.tolist() == pool.correct.tolist()
        assert len(generator.requests) == asked
        result = searcher.search(QUESTIONS.problems[2].question, strategy=BestOfN(n=4), selector="majority")
    assert pool.size == 4
    assert 0 < pool.correct.mean() < 1
    assert pool.scores[2].tolist() == [c.score for c in result.candidates]
    assert pool.votes[2] == [c.vote for c in result.candidates]
    assert pool.correct[2].tolist() == [holds(c.answer or "", "c") for c in result.candidates]
    assert pool.curve("pass", (1, 2, 4, 8)).keys() == {1, 2, 4}
    assert pool.curve("score", (1,))[1] == bootstrap(pool.correct.mean(1))


def test_a_pool_keeps_its_tokens_if_told_to(tmp_path: Path) -> None:
    with make_searcher(FakeGenerator()) as searcher, RunLog(tmp_path / "log.jsonl") as log:
        evaluation = Evaluation(dataset=QUESTIONS, searcher=searcher, log=log, grader=holds)
        without = sample_pool(evaluation, 4)
        keeping = replace(evaluation, keep_tokens=True)
        pool = sample_pool(keeping, 4)
        assert len(log) == len(QUESTIONS), "the same searches, made again for their tokens"
        written = (tmp_path / "log.jsonl").read_bytes()
        assert sample_pool(keeping, 4).trajectories == pool.trajectories
        assert sample_pool(evaluation, 4).trajectories == ()
        assert (tmp_path / "log.jsonl").read_bytes() == written
        tokenizer = searcher.generator.tokenizer
        result = searcher.search(QUESTIONS.problems[0].question, strategy=BestOfN(n=4), selector="majority")
    assert pool.correct.tolist() == without.correct.tolist()
    assert without.trajectories == ()
    for candidate, kept in zip(result.candidates, pool.trajectories[0], strict=True):
        assert kept is not None
        assert kept.prompt_ids == tokenizer.render(QUESTIONS.problems[0].question)
        assert tokenizer.decode(kept.response_ids).endswith(candidate.answer or "")
        assert result.tree is not None
        assert kept.step_ends == tuple(result.tree.nodes[candidate.node].step_ends)


def test_samples_that_were_not_given_are_wrong_and_never_preferred() -> None:
    def path(right: bool | None, score: float | None, logprob: float | None) -> dict[str, Any]:
        return {"correct": right, "score": score, "mean_logprob": logprob, "vote": "a"}

    usage = {"sampled_tokens": 30}
    records = [
        {"error": None, "usage": usage, "candidates": [path(True, 0.5, -50.0)]},
        {"error": None, "usage": {"sampled_tokens": 60}, "candidates": [path(None, None, None)] * 3},
    ]

    class Recorded:
        dataset = replace(QUESTIONS, problems=QUESTIONS.problems[:2])
        keep_tokens = False

        def run(self, settings: Any, **options: Any) -> Any:
            return [[records]]

    pool = sample_pool(cast(Evaluation, Recorded()), 3)
    assert pool.correct.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert pool.scores.tolist() == [[0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert pool.votes == [["a", None, None], ["a", "a", "a"]]
    assert pool.by_question("logprob", 3).tolist() == [1.0, 0.0]
    assert pool.tokens == 15.0, "a sample"
    assert pool.curve("score", (1, 3, 4)).keys() == {1, 3}


def test_selectors_of_a_pool() -> None:
    pool = Pool(
        correct=np.array([[0.0, 1.0]]), scores=np.array([[0.1, 0.2]]), logprobs=np.array([[-1.0, -2.0]]),
        votes=[["a", None]], tokens=1.0,
    )  # fmt: skip
    assert {name: pool.by_question(name, 2)[0] for name in ("score", "logprob", "majority", "oracle", "pass")} == {
        "score": 1.0, "logprob": 0.0, "majority": 0.0, "oracle": 1.0, "pass": 1.0,
    }  # fmt: skip
    assert pool.auc() == (1.0, (1.0, 1.0, 1.0))
    with pytest.raises(InvalidInputError, match="unknown selector"):
        pool.by_question("best", 1)


def test_a_failed_search_leaves_no_pool() -> None:
    class Dead(FakeGenerator):
        async def generate(self, request: object) -> list:
            raise RuntimeError("gone")

    with make_searcher(Dead()) as searcher, pytest.raises(InvalidInputError, match=r"failed, run it again.*gone"):
        sample_pool(Evaluation(dataset=QUESTIONS, searcher=searcher, log=RunLog(None), grader=holds), 2)


def test_the_scaling_law_is_the_least_squares_line() -> None:
    rng = np.random.default_rng(0)
    compute = np.array([1e6, 2e6, 4e6, 1.6e7])
    rows = rng.random((30, 4)) * 0.1 + 0.05 * np.log2(compute)
    law = fit_scaling_law(compute, rows)
    slope, intercept = np.polyfit(np.log2(compute), rows.mean(0), 1)
    assert law.slope.mean == pytest.approx(slope)
    assert law.intercept.mean == pytest.approx(intercept)
    assert law.slope.low < slope < law.slope.high
    assert law.r2 == pytest.approx(np.corrcoef(np.log2(compute), rows.mean(0))[0, 1] ** 2)
    assert law.predict(8e6).mean == pytest.approx(intercept + slope * np.log2(8e6))
    assert law.predict(8e6).low < law.predict(8e6).mean < law.predict(8e6).high
    (axes,) = plot_scaling_law([("model", law)]).axes
    drawn = [line.get_ydata() for line in axes.lines if len(np.asarray(line.get_xdata())) == 40]
    assert np.asarray(drawn[0])[0] == pytest.approx(law.predict(1e6).mean)


def test_a_perfect_line_has_no_doubt() -> None:
    law = fit_scaling_law([1, 2, 4], [[0.1, 0.2, 0.3]] * 5)
    assert law.slope == pytest.approx((0.1, 0.1, 0.1))
    assert law.r2 == pytest.approx(1.0)
    assert fit_scaling_law([1, 2], [[0.5, 0.5]]).r2 is None


@pytest.mark.parametrize(
    ("compute", "rows", "says"),
    [
        ([1.0], [[0.1]], "two different positive"),
        ([2.0, 2.0], [[0.1, 0.2]], "two different positive"),
        ([0.0, 1.0], [[0, 0]], "two different positive"),
        ([-1.0, 1.0], [[0, 0]], "two different positive"),
        ([1.0, 2.0], [[0.1]], r"got \(2,\) and \(1, 1\)"),
        ([1.0, 2.0], [0.1, 0.2], r"got \(2,\) and \(2,\)"),
        ([1.0, 2.0], np.zeros((0, 2)), r"got \(2,\) and \(0, 2\)"),
    ],
)
def test_what_has_no_line(compute: list[float], rows: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        fit_scaling_law(compute, rows)


SOLUTIONS = [
    Solution(question="1+1?", steps=("one", "two bad", "three"), label=1),
    Solution(question="1+2?", steps=("fine", "good"), label=-1),
    Solution(question="1+3?", steps=("bad", "good"), label=0),
    Solution(question="1+4?", steps=("fine", "unsure"), label=-1),
]


def test_the_first_step_below_the_threshold_is_the_first_error() -> None:
    value = {"bad": 0.1, "unsure": 0.4}
    scorer = FakeScorer(value=lambda step: value.get(step.split()[-1], 0.9))
    scores = score_solutions(scorer, SOLUTIONS, batch=3)
    assert scores == [[0.9, 0.1, 0.9], [0.9, 0.9], [0.1, 0.9], [0.9, 0.4]]
    strict = judge_scores(scores, SOLUTIONS)
    assert strict.result == (1.0, 0.5, pytest.approx(2 / 3))
    assert strict.f1.low <= strict.f1.mean <= strict.f1.high
    assert judge_scores(scores, SOLUTIONS, threshold=best_threshold(scores, SOLUTIONS)).result.f1 == 1.0


def test_a_score_at_the_threshold_is_no_error() -> None:
    scores = [[0.9, 0.5, 0.4], [0.5, 0.5], [0.4, 0.9], [0.9, 0.5]]
    solutions = [replace(SOLUTIONS[0], label=2), *SOLUTIONS[1:]]
    assert judge_scores(scores, solutions, threshold=0.5).result == (1.0, 1.0, 1.0)
    assert best_threshold(scores, solutions) > 0.4


def test_the_interval_draws_right_and_wrong_solutions_by_themselves() -> None:
    wrong = [Solution(question="?", steps=("a", "b"), label=1)] * 3
    right = [Solution(question="?", steps=("a", "b"), label=-1)] * 40
    scores = [[0.9, 0.1]] * 3 + [[0.9, 0.9]] * 20 + [[0.9, 0.1]] * 20
    found = judge_scores(scores, wrong + right)
    assert found.result == (1.0, 0.5, pytest.approx(2 / 3))
    assert 0.4 < found.f1.low < found.f1.mean < found.f1.high < 0.85, "all wrong ones are found in every draw"


def test_a_scorer_that_skips_a_step_is_named() -> None:
    class Short:
        def score(self, trajectories: object) -> list[list[float]]:
            return [[0.5]]

    with pytest.raises(ScorerError, match="1 scores for 3 steps"):
        score_solutions(Short(), SOLUTIONS[:1])


def test_solutions_are_read_in_processbench_schema(tmp_path: Path) -> None:
    path = tmp_path / "gsm8k.jsonl"
    row = {"id": "gsm8k-0", "generator": "Qwen2", "problem": "?", "steps": ["a", "b"], "final_answer_correct": False}
    path.write_text(json.dumps(row | {"label": 1}) + "\n" + json.dumps(row | {"label": -1}))
    assert [solution.label for solution in read_solutions(path)] == [1, -1]
    path.write_text(json.dumps(row | {"label": 2}))
    with pytest.raises(InvalidInputError, match="line 1: label must be -1 or the index of one of 2 steps, got 2"):
        read_solutions(path)
    path.write_text(json.dumps(row | {"steps": "a", "label": 0}))
    with pytest.raises(InvalidInputError, match="line 1: expected problem"):
        read_solutions(path)
    path.write_text("")
    with pytest.raises(InvalidInputError, match="holds no solutions"):
        read_solutions(path)
