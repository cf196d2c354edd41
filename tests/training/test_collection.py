"""Sampling graded trajectories: what is written, how a broken-off run goes on, and problems as they are found."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tts_search.api import Searcher
from tts_search.cli import app
from tts_search.core.protocols import Completion, Request
from tts_search.errors import GeneratorError, InvalidInputError, StorageError
from tts_search.grading.named import resolve_grader
from tts_search.segmentation import Segmenter
from tts_search.testing import FakeGenerator
from tts_search.testing.fakes import CLOSE, END, OPEN, STEP
from tts_search.training.collection import collect
from tts_search.training.problems import Problem, read_problems
from tts_search.training.trajectories import read_trajectories


def quiet(_: str) -> None:
    pass


def spoken() -> FakeGenerator:
    """Thinks for two steps; the answer is 4 for an even seed, else 5."""

    def script(prefix: tuple[int, ...], seed: int) -> int:
        said = len(prefix) - 1 - max(i for i, token in enumerate(prefix) if token == OPEN)
        tokens = [*b"Two", STEP, *b"Four", STEP, CLOSE, b"45"[seed % 2], END]
        return tokens[min(said, len(tokens) - 1)]

    return FakeGenerator(script=script)


def problems(*questions: str) -> list[Problem]:
    return [Problem(question, "4", {}) for question in questions]


def rows(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_what_is_sampled_can_be_learned_from(tmp_path: Path) -> None:
    with Searcher(generator=spoken(), scorer=None) as searcher:
        out = collect(
            searcher, problems("2 + 2?", "1 + 3?"), tmp_path / "new" / "t.jsonl", grader=resolve_grader("exact"), n=8
        )
    found = rows(out)
    assert len(found) == 16
    assert {row["question"] for row in found} == {"2 + 2?", "1 + 3?"}
    assert all(row["correct"] == (row["answer"] == "4") for row in found)
    assert {row["answer"] for row in found} == {"4", "5"}
    assert all(str(row["response"]).startswith("Two.\n\nFour.\n\n</think>") for row in found)
    tokenizer = FakeGenerator().tokenizer
    trajectories = read_trajectories(out, tokenizer, Segmenter(tokenizer), report=quiet)
    assert all(t.step_ends == (4, 9) and t.response_ids[9] == CLOSE for t in trajectories)


def test_a_run_that_broke_off_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    with Searcher(generator=spoken(), scorer=None) as searcher:
        collect(searcher, problems("a?", "b?"), out, grader=resolve_grader("exact"), n=2, report=quiet)
        before = rows(out)
        with out.open("a") as file:
            file.write('{"question": "c?", "resp')  # killed while it wrote
        said = list[str]()
        collect(searcher, problems("a?", "b?", "c?"), out, grader=resolve_grader("exact"), n=2, report=said.append)
    after = rows(out)
    assert after[: len(before)] == before
    assert [row["question"] for row in after[len(before) :]] == ["c?", "c?"]
    assert "2 of 3 questions" in said[0]


class Fails(FakeGenerator):
    async def generate(self, request: Request) -> Sequence[Completion]:  # type: ignore[override]
        raise GeneratorError("the engine is gone")


def test_a_full_disk_leaves_no_half_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, write = tmp_path / "t.jsonl", os.write

    def half(file: int, data: memoryview) -> int:
        if bytes(data[:12]) == b'{"question":':
            return write(file, data[:20])
        if bytes(data[:3]) != b"+ 2":  # of the log beside it
            return write(file, data)
        raise OSError(28, "No space left on device")

    with Searcher(generator=spoken(), scorer=None) as searcher:
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(StorageError, match=r"t\.jsonl cannot be written: No space left.*make room"):
            collect(searcher, problems("2 + 2 + 2?"), out, grader=resolve_grader("exact"), n=4)
        monkeypatch.undo()
        assert out.read_bytes() == b""
        collect(searcher, problems("2 + 2 + 2?"), out, grader=resolve_grader("exact"), n=4)
    assert len(rows(out)) == 4


def test_what_fails_and_what_is_refused(tmp_path: Path) -> None:
    with Searcher(generator=Fails(), scorer=None) as searcher, pytest.raises(GeneratorError):
        collect(searcher, problems("a?"), tmp_path / "t.jsonl", grader=resolve_grader("exact"), report=quiet)
    (tmp_path / "other.jsonl").write_text('{"question": "a?", "answer": "4"}\n')
    with Searcher(generator=spoken(), scorer=None) as searcher, pytest.raises(InvalidInputError, match="line 1"):
        collect(searcher, problems("a?"), tmp_path / "other.jsonl", grader=resolve_grader("exact"), report=quiet)
    with pytest.raises(InvalidInputError, match="unknown grader 'regex': choose from math, exact"):
        resolve_grader("regex")


@pytest.mark.parametrize("all_of_them", [False, True])
def test_what_is_cut_off_is_counted_and_left_out(all_of_them: bool, tmp_path: Path) -> None:
    def script(prefix: tuple[int, ...], seed: int) -> int:
        return b"a"[0] if all_of_them or seed % 2 else spoken().script(prefix, seed)  # type: ignore[misc]

    said = list[str]()
    with Searcher(generator=FakeGenerator(script=script), scorer=None, max_tokens=20) as searcher:
        out = collect(
            searcher, problems("2 + 2?"), tmp_path / "t.jsonl", grader=resolve_grader("exact"), report=said.append
        )
    kept = len(rows(out))
    assert kept == 0 if all_of_them else 0 < kept < 8
    assert f"{8 - kept} were cut off" in said[-1]


def test_the_puzzle_grader_reads_the_question_as_reference() -> None:
    grade = resolve_grader("puzzle")
    assert grade("15 + 11 - (7 - 5) = 24", "Using the numbers 7, 5, 15 and 11, make 24.")
    assert not grade("15 + 11 = 26", "Using the numbers 7, 5, 15 and 11, make 24.")


def test_problems_as_they_are_found(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(
        '{"question": "a", "answer": "x #### 3", "level": 2}\n\n{"problem": "b", "solution": "4"}\n'
        '{"prompt": [{"role": "user", "content": "c"}], "final_answer": 5}\n'
    )
    found = read_problems(file)
    assert [(p.text, p.reference) for p in found] == [("a", "3"), ("b", "4"), ("c", "5")]
    assert found[0].line["level"] == 2
    for text, message in (("", "holds no questions"), ('{"question": "a"}', "line 1: answer")):
        file.write_text(text)
        with pytest.raises(InvalidInputError, match=message):
            read_problems(file)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.jsonl").write_text('{"question": "a", "answer": "4"}\n{"question": "b", "answer": "5"}\n')
    generator = "tests.training.test_collection:spoken"
    args = ["sample", "q.jsonl", "--out", "t.jsonl", "--generator", generator, "--grader", "exact", "--n", "2"]
    made = CliRunner().invoke(app, [*args, "--limit", "1"])
    assert made.exit_code == 0, made.output
    assert len(rows(tmp_path / "t.jsonl")) == 2
    refused = CliRunner().invoke(app, [*args, "--limit", "0"])
    assert refused.exit_code == 2
    assert "--limit" in refused.stderr
