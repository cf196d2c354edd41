"""An answer file: whose a line is, who writes it, and what becomes of it on a full disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tts_search import Searcher
from tts_search.cli.answer_file import AnswerFile, answer_line, is_torn, key_of
from tts_search.cli.question_file import Asked, Format
from tts_search.core.result import SearchResult
from tts_search.errors import InvalidInputError, TTSError
from tts_search.testing import FakeGenerator, FakeScorer

SETTINGS = key_of("settings")


@pytest.fixture(scope="module")
def result() -> SearchResult:
    with Searcher(generator=FakeGenerator(), scorer=FakeScorer()) as searcher:
        return searcher.search("Why?", strategy="single")


def asked(line: int, name: str = "é") -> Asked:
    return Asked(line, name, f"What is {line}?")


def write(path: Path, result: SearchResult, *lines: int) -> None:
    with AnswerFile(path, SETTINGS) as answers:
        for line in lines:
            answers.add(asked(line), answer_line(asked(line), result, Format.PLAIN, SETTINGS))


@pytest.mark.parametrize("form", list(Format))
@pytest.mark.parametrize("error", [None, "broken"])
def test_a_line_of_ours_that_is_torn_anywhere_is_told(form: Format, error: str | None, result: SearchResult) -> None:
    question = Asked(12, {"name": ["é", 1.5]}, None if error else "What is é?", error)
    line = answer_line(question, None if error else result, form, SETTINGS)
    assert [size for size in range(1, len(line)) if not is_torn(line[:size])] == []


FOREIGN = [
    '{"line": 3, "text": "my only copy"}',
    '{"line": 3, "text": "my only',
    '{"line": 3, "id": 1, "question": "my only copy"}',
    '{"line": 3, "id": 1, "question": "my only copy", "answer": 4}',
    '{"line": 3, "id": 1, "question": "my only copy", "text": "',
    '{"id": "batch_req_1", "custom_id": "a", "text": "',
    '{"id": "one", "custom_id": "a',
    '{"line": ours, "text": 1',
    "notes",
    "[1]",
]


@pytest.mark.parametrize("text", FOREIGN)
@pytest.mark.parametrize("ours", [0, 2])
def test_what_is_not_ours_is_left(text: str, ours: int, tmp_path: Path, result: SearchResult) -> None:
    path = tmp_path / "a.jsonl"
    write(path, result, *range(1, ours + 1))
    before = path.read_bytes() + text.encode()
    path.write_bytes(before)
    with pytest.raises(InvalidInputError, match=f"line {ours + 1}, is no answer"):
        AnswerFile(path, SETTINGS)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mends", [False, True])
def test_one_process_writes_it(mends: bool, tmp_path: Path, result: SearchResult) -> None:
    path = tmp_path / "a.jsonl"
    write(path, result, 1, 2)
    if mends:  # another file takes its place
        path.write_bytes(path.read_bytes()[:-5])
    with AnswerFile(path, SETTINGS) as answers:
        assert len(answers) == 2 - mends
        with pytest.raises(InvalidInputError, match="in use by another process"):
            AnswerFile(path, SETTINGS)
        answers.add(asked(3), answer_line(asked(3), result, Format.PLAIN, SETTINGS))
    with AnswerFile(path, SETTINGS) as answers:
        assert len(answers) == 3 - mends


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: SearchResult) -> None:
    path = tmp_path / "a.jsonl"
    write(path, result, 1)
    before, write_bytes = path.read_bytes(), os.write

    def half(file: int, data: memoryview) -> int:
        if len(data) > 300:
            return write_bytes(file, data[:20])
        raise OSError(28, "No space left on device")

    with AnswerFile(path, SETTINGS) as answers:
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(TTSError, match=r"a\.jsonl cannot be written: No space left.*make room"):
            answers.add(asked(2), answer_line(asked(2), result, Format.PLAIN, SETTINGS))
        monkeypatch.undo()
        assert path.read_bytes() == before
        assert not answers.holds(asked(2))
    write(path, result, 2)
    assert [json.loads(line)["line"] for line in path.read_text().splitlines()] == [1, 2]


def test_questions_that_have_changed_are_refused(tmp_path: Path, result: SearchResult) -> None:
    path = tmp_path / "a.jsonl"
    write(path, result, 1, 2, 3)
    with AnswerFile(path, SETTINGS) as answers:
        answers.check([asked(1), asked(2), asked(3), asked(4)])
        with pytest.raises(InvalidInputError, match="another question than the one in line 2"):
            answers.check([asked(1), Asked(2, "é", "Why?")])
        with pytest.raises(InvalidInputError, match="another id than the one in line 2"):
            answers.check([asked(1), asked(2, "new"), asked(3)])
        with pytest.raises(InvalidInputError, match="answers 2 questions that are not there any more, line 2"):
            answers.check([asked(1)])
