"""Graders against answers that models wrote: one by one on the open half, on the closed half by their number alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tts_search.grading.choice import multiple_choice
from tts_search.grading.math import MathGrader
from tts_search.selection.votes import merge_votes, resolve_extract

ANSWERS: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "model_answers.jsonl").read_text("utf-8").splitlines()
]
OPEN = [row for row in ANSWERS if not row["closed"]]
CLOSED = [row for row in ANSWERS if row["closed"]]


@pytest.fixture(scope="module")
def math() -> Iterator[MathGrader]:
    with MathGrader(workers=2) as grader:
        yield grader


def agree(row: dict[str, Any], math: MathGrader) -> bool:
    grader = math if row["grader"] == "math" else multiple_choice
    return grader(row["text"], row["reference"]) == row["correct"]


def test_the_labels_are_many_and_every_second_one_is_closed() -> None:
    assert len(ANSWERS) >= 150
    for kind in ("math", "choice"):
        assert [row["closed"] for row in ANSWERS if row["grader"] == kind][:4] == [False, True, False, True]
    assert all(row["correct"] is False for row in ANSWERS if row["says"] is None)
    assert len({row["id"] for row in ANSWERS}) == len(ANSWERS)


def test_graders_agree_with_every_open_label(math: MathGrader) -> None:
    assert [row["id"] for row in OPEN if not agree(row, math)] == []


def test_graders_agree_with_the_closed_labels_as_often_as_the_docs_say(math: MathGrader) -> None:
    assert sum(agree(row, math) for row in CLOSED) >= len(CLOSED) - 1


def test_votes_read_what_a_reader_reads() -> None:
    """But for two that were cut off in the middle of a sum, and one that is nothing but digits."""
    unlike = [
        row["id"]
        for row in OPEN
        if row["grader"] == "math" and len(set(merge_votes([_vote(row["text"]), _says(row)]).keys)) > 1
    ]
    assert unlike == ["math-079", "math-081", "math-091"]


def _vote(text: str) -> str | None:
    return resolve_extract("math")(text)


def _says(row: dict[str, Any]) -> str | None:
    return None if row["says"] is None else _vote(f"\\boxed{{{row['says']}}}")
