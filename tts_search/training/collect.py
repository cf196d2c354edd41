"""Sampling graded trajectories from a policy: what `fit_head` learns from.

Any searcher will do, whatever its engine; each sample is a whole response with its answer, graded against a reference.
The file is written question by question, and a run that was interrupted goes on behind the last one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tts_search.api import Searcher
from tts_search.errors import InvalidInputError
from tts_search.grading import Grader
from tts_search.result import SearchResult, Selector
from tts_search.strategies.best_of_n import BestOfN
from tts_search.training.problems import Problem
from tts_search.training.trajectories import question_key, read_lines

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
    report: Callable[[str], None] = print,
) -> Path:
    """Sample `n` graded trajectories for each problem into the JSON lines file `out`, and return its path.

    A question that is in the file already is passed over. What the engine failed on is reported and left out.

    Raises:
        InvalidInputError: `n` is below 1, or `out` holds something else than trajectories.
        TTSError: every question failed; the last error is raised.
    """
    out = Path(out)
    done = _done(out)
    todo = [problem for problem in problems if problem.key not in done]
    if len(todo) < len(problems):
        report(f"samples: {len(problems) - len(todo)} of {len(problems)} questions are in {out} already")
    asked = right = finished = cut = 0
    told = time.monotonic()
    failure: Exception | None = None
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        questions = [problem.question for problem in todo]
        for result in searcher.search_many(questions, strategy=BestOfN(n=n), selector=ALL_ANSWERED, seed=seed):
            finished += 1
            if result.error is not None:
                failure = result.error
                report(f"samples: {str(result.question)[:60]!r} failed: {result.error}")
                continue
            records = list(_records(result, todo[result.index], grader))
            file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
            file.flush()
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


def _done(out: Path) -> set[str]:
    """Keys of the questions in the file; a last line that was cut off is taken away."""
    if not out.is_file():
        return set()
    data = out.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with out.open("r+b") as file:
            file.truncate(whole)
    found = set[str]()
    for number, line in read_lines(out):
        if "question" not in line or "response" not in line:
            raise InvalidInputError(f"{out}, line {number}: no sampled trajectory; name another file to write")
        found.add(question_key(line["question"]))
    return found
