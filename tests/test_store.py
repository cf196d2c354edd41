"""A log loses at most the line that was being written, whenever it was cut off."""

from __future__ import annotations

import fcntl
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tts_search.errors import InvalidInputError, StorageError
from tts_search.store import FORMAT, RunLog


def write(path: Path, count: int) -> None:
    with RunLog(path) as log:
        for i in range(count):
            log.add({"question": i, "text": "é\n"}, {"value": i * i})


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "log.jsonl"
    write(path, 3)
    with RunLog(path) as log:
        assert len(log) == 3
        record = log.get({"text": "é\n", "question": 2})
        assert record is not None
        assert record["value"] == 4
        assert log.get({"question": 2}) is None
        log.add({"text": "é\n", "question": 2}, {"value": 5})
    with RunLog(path) as log:
        again = log.get({"question": 2, "text": "é\n"})
        assert again is not None
        assert again["value"] == 5, "the last record under a key counts"
        assert len(log) == 3


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400))
def test_cut_off_anywhere_it_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "log.jsonl"
    path.unlink(missing_ok=True)
    write(path, 5)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    with RunLog(path) as log:
        kept = len(log)
        assert kept == max(0, whole[:cut].count(b"\n") - 1)
        for i in range(5):
            if log.get({"question": i, "text": "é\n"}) is None:
                log.add({"question": i, "text": "é\n"}, {"value": i * i})
    assert path.read_bytes() == whole


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    with RunLog(tmp_path / "log.jsonl") as log, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: log.add({"i": i}, {"text": "x" * 5_000}), range(100)))
    with RunLog(tmp_path / "log.jsonl") as log:
        assert len(log) == 100


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with RunLog(tmp_path / "log.jsonl"), pytest.raises(InvalidInputError, match="in use by another process"):
        RunLog(tmp_path / "log.jsonl")
    RunLog(tmp_path / "log.jsonl").close()


@pytest.mark.parametrize("text", ["hello\n", '{"key": 1}\n', '{"format": "other"}\n', "[1]\n"])
def test_another_file_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match="line 1, is no line of a run log"):
        RunLog(path)
    assert path.read_text() == text


HEADER = json.dumps(FORMAT).encode()
OTHERS = st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | st.sampled_from([b"{}", b"{", HEADER, b"[1]"])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ours=st.integers(0, 4), other=OTHERS, end=st.sampled_from([b"", b"\n"]))
@example(ours=0, other=b'{"question": "2 + 2?", "answer": "4"}', end=b"")
@example(ours=4, other=b"remember to ask Ann", end=b"")
def test_what_is_not_ours_is_refused_and_stays(tmp_path: Path, ours: int, other: bytes, end: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.unlink(missing_ok=True)
    write(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    before = b"".join(lines[:ours]) + other + end
    path.write_bytes(before)
    try:
        RunLog(path).close()
    except InvalidInputError:
        assert path.read_bytes() == before
    else:
        torn = before[before.rfind(b"\n") + 1 :]
        assert before[: len(before) - len(torn)] == b"".join(lines[:ours]) or (ours, before) == (0, HEADER + b"\n")
        assert (lines[1] if ours else HEADER).startswith(torn)
        assert path.read_bytes() == b"".join(lines[: max(1, ours)])


def test_a_damaged_log_is_not_mended_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    before = b"".join([*lines[:2], b"?\n", lines[3][:9]])
    path.write_bytes(before)
    with pytest.raises(InvalidInputError, match="line 3"):
        RunLog(path)
    assert path.read_bytes() == before


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write(path, 3)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2][:9], lines[3]]) + "\n")
    with pytest.raises(InvalidInputError, match="line 3"):
        RunLog(path)


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with RunLog(None) as log:
        log.add({"a": 1}, {})
        assert len(log) == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidInputError, match="cannot be written"):
        RunLog(tmp_path)


def test_a_full_disk_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    write(path, 2)
    before, write_bytes = path.read_bytes(), os.write

    def half(file: int, data: memoryview) -> int:
        if len(data) > 20:
            return write_bytes(file, data[:20])
        raise OSError(28, "No space left on device")

    with RunLog(path) as log:
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(StorageError, match=r"log\.jsonl cannot be written: No space left.*make room"):
            log.add({"question": 7}, {"value": 49})
        monkeypatch.undo()
        assert log.get({"question": 7}) is None
    assert path.read_bytes() == before


def test_a_file_that_another_took_the_place_of_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    write(path, 2)
    lock = fcntl.flock

    def replaced(file: Any, how: int) -> None:
        path.rename(tmp_path / "before")  # as one does who had it first
        path.write_bytes(b"new")
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", replaced)
    with pytest.raises(InvalidInputError, match="in use by another process"):
        RunLog(path)
    assert path.read_bytes() == b"new"
