"""Sampling graded trajectories from a policy: what `fit_head` learns from.

Any searcher will do, whatever its engine; each sample is a whole response with its answer, graded against a reference.
The file is written question by question, and a run that was interrupted goes on behind the last whole one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tts_search.api import Searcher
from tts_search.core.protocols import Selector
from tts_search.core.result import SearchResult
from tts_search.errors import InvalidInputError
from tts_search.grading import Grader
from tts_search.log import beside
from tts_search.shards import Shard
from tts_search.store import append, claim
from tts_search.strategies.best_of_n import BestOfN
from tts_search.training.problems import Problem
from tts_search.training.sampled import go_on, lines_of

ALL_ANSWERED = Selector("all answered", lambda _: 0, needs_answers=True)
REPORT_SECONDS = 20


def collect(
    searcher: Searcher,
    problems: Sequence[Problem],
    out: str | Path,
    *,
    grader: Grader,
    n: int = 8,
    seed: int = 0,
    shard: Shard | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Sample `n` graded trajectories for each problem (of a shard) into the JSON lines file `out`, and return its path.

    A question that is in the file already is passed over; one that a killed run was at is gone on with, from the log of
    finished samples beside the file (`out` with `.log` behind it). What the engine failed on is reported and left out.

    Raises:
        InvalidInputError: `n` is below 1, `out` holds something else than what this function writes, or another process
            writes it; it is as it was. The searcher asks a chat service, which shows no token ids to train on.
        TTSError: every question failed; the last error is raised.
    """
    out, strategy = Path(out), BestOfN(n=n)
    if not getattr(searcher.generator, "starts_anywhere", True):
        raise InvalidInputError(
            f"{searcher.generator.name!r} is a chat service, which shows no token ids to train on: sample from the "
            "model itself, or from a server with /v1/completions"
        )
    with claim(out) as file:
        done = go_on(file, out, problems)
        mine = [problem for problem in problems if shard is None or shard.holds(problem.question)]
        todo = [problem for problem in mine if problem.key not in done]
        if len(todo) < len(mine):
            report(f"samples: {len(mine) - len(todo)} of {len(mine)} questions are in {out} already")
        asked = right = finished = cut = 0
        told = time.monotonic()
        failure: Exception | None = None
        questions = [problem.question for problem in todo]
        for result in searcher.search_many(
            questions, strategy=strategy, selector=ALL_ANSWERED, seed=seed, log=beside(out)
        ):
            finished += 1
            if result.error is not None:
                failure = result.error
                report(f"samples: {str(result.question)[:60]!r} failed: {result.error}")
                continue
            records = list(_records(result, todo[result.index], grader))
            append(file, out, lines_of(records))
            asked += len(records)
            cut += n - len(records)
            right += sum(record["correct"] for record in records)
            if (now := time.monotonic()) - told >= REPORT_SECONDS or finished == len(todo):
                told = now
                report(f"samples: {finished}/{len(todo)} questions  right {right / max(1, asked):.3f}")
    if cut:
        report(f"samples: {cut} were cut off before their end and are left out: allow more tokens to keep them")
    if failure is not None and not asked and not done:
        raise failure
    return out


def _records(result: SearchResult, problem: Problem, grader: Grader) -> Iterator[dict[str, Any]]:
    tree = result.tree
    assert tree is not None
    for candidate in result.candidates:
        node = tree.nodes[candidate.node]
        if not node.ended:  # where nothing ended, the candidates are what was cut off
            continue
        ids = tree.token_ids(tree.answered(node))
        answer = candidate.answer or ""
        yield {
            "question": problem.question,
            "response": tree.decode(ids),
            "response_ids": list(ids),
            "correct": bool(answer.strip()) and grader(answer, problem.reference),
            "answer": candidate.vote,
            "mean_logprob": candidate.mean_logprob,
        }
