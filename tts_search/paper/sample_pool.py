"""One pool of samples for every k: each question sampled n times, every sample answered, graded and scored once.

From it come pass@k, and what each way of choosing among k samples is worth, for all k up to n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tts_search.errors import InvalidInputError
from tts_search.evaluation.datasets import Problem
from tts_search.evaluation.runs import Evaluation, OnRun, Record, Setting
from tts_search.metrics import (
    Floats,
    Interval,
    auc,
    auc_within,
    best_of_k,
    bootstrap,
    majority_at_k,
    oracle_at_k,
    pass_at_k,
)
from tts_search.strategies.best_of_n import BestOfN
from tts_search.training.trajectories import GradedTrajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Samples `[questions, samples]`: whether right, trajectory score, mean log-probability, vote; and their cost.

    `tokens` is the mean number of sampled tokens a sample, its answer included. A sample that the engine did not give
    (its response was empty) is a wrong one without score, vote or trajectory. `scores` are zeros where nothing scored;
    `trajectories` are there if the evaluation keeps tokens, else the rows are empty.
    """

    correct: Floats
    scores: Floats
    logprobs: Floats
    votes: Sequence[Sequence[str | None]]
    tokens: float
    trajectories: Sequence[Sequence[GradedTrajectory | None]] = ()

    @property
    def size(self) -> int:
        """Samples a question."""
        return self.correct.shape[1]

    def by_question(self, selector: str, k: int) -> Floats:
        """Accuracy of each question with k samples to choose from. `[questions]`.

        `"score"` takes the highest trajectory score (Best-of-k), `"logprob"` the highest mean log-probability,
        `"majority"` the most frequent answer, `"oracle"` a right one if there is any; these cut the pool into the same
        groups. `"pass"` is the unbiased pass@k.
        """
        if selector == "score":
            return best_of_k(self.correct, self.scores, k)
        if selector == "logprob":
            return best_of_k(self.correct, self.logprobs, k)
        if selector == "majority":
            return majority_at_k(self.correct, self.votes, k)
        if selector == "oracle":
            return oracle_at_k(self.correct, k)
        if selector == "pass":
            return pass_at_k(self.correct, k)
        raise InvalidInputError(f"unknown selector {selector!r}: choose score, logprob, majority, oracle or pass")

    def curve(self, selector: str, ks: Sequence[int]) -> Mapping[int, Interval]:
        """Accuracy at each k with its 95 % interval over questions."""
        return {k: bootstrap(self.by_question(selector, k)) for k in ks if k <= self.size}

    def auc(self) -> tuple[float | None, Interval | None]:
        """The AUC of the trajectory score over all samples, and its mean within a question."""
        within = auc_within(zip(self.scores, self.correct, strict=True))
        return auc(self.scores.ravel(), self.correct.ravel()), bootstrap(within) if within else None


def sample_pool(evaluation: Evaluation, n: int, *, seed: int = 0, on_progress: OnRun | None = None) -> Pool:
    """Sample every question of the evaluation's data set `n` times; what its log holds is not sampled again.

    Raises:
        InvalidInputError: n is below 1, or a search failed (its error is the message: a pool with holes is no pool).
    """
    setting = Setting(label=f"pool of {n}", strategy=BestOfN(n=n), selector="majority")
    ((records,),) = evaluation.run([setting], seed=seed, on_progress=on_progress)
    for problem, record in zip(evaluation.dataset.problems, records, strict=True):
        if record["error"] is not None:
            raise InvalidInputError(f"question {problem.id!r} failed, run it again: {record['error']}")

    def column(name: str, missing: float) -> Floats:
        return np.array([_padded(record, name, n, missing) for record in records], dtype=float)

    return Pool(
        correct=column("correct", 0.0),
        scores=column("score", 0.0),
        logprobs=column("mean_logprob", -1e9),
        votes=[_padded(record, "vote", n, None) for record in records],
        tokens=float(np.mean([record["usage"]["sampled_tokens"] for record in records])) / n,
        trajectories=[
            _trajectories(evaluation, *pair, n) for pair in zip(evaluation.dataset.problems, records, strict=True)
        ]
        if evaluation.keep_tokens
        else (),
    )


def _trajectories(evaluation: Evaluation, problem: Problem, record: Record, n: int) -> list[GradedTrajectory | None]:
    prompt = evaluation.searcher.generator.tokenizer.render(problem.question)
    found: list[GradedTrajectory | None] = [
        GradedTrajectory(
            question=problem.question,
            prompt_ids=prompt,
            response_ids=tuple(candidate["response_ids"]),
            step_ends=tuple(candidate["step_ends"]),
            right=bool(candidate["correct"]),
        )
        for candidate in record["candidates"]
    ]
    return found + [None] * (n - len(found))


def _padded(record: Record, name: str, n: int, missing: float | None) -> list:
    values = [missing if c[name] is None else c[name] for c in record["candidates"]]
    return values + [missing] * (n - len(values))
