"""`merge`: what shards wrote, joined whole or not at all. See test_solve_file.py for shards of real runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tts_search.cli import app
from tts_search.log import SearchLog
from tts_search.log.frames import KEY_BYTES
from tts_search.store import RunLog


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")


def merge(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["merge", *map(str, arguments)])


def answers(path: str, *lines: int, log: bool = True, **more: Any) -> None:
    """A shard of answers, and its log."""
    told = [{"line": line, "id": None, "error": None, "key": f"settings_{line}", **more} for line in lines]
    Path(path).write_text("".join(json.dumps(one) + "\n" for one in told))
    if log:
        with SearchLog(f"{path}.log") as searches:
            for line in lines:
                searches.add(b"g", bytes((line,)) * KEY_BYTES, b"x" * 50)


def runs(path: str, *records: tuple[str, str | None]) -> None:
    """A folder of `compare`, with records of questions that failed or did not."""
    with RunLog(Path(path, "runs.jsonl")) as log:
        for question, error in records:
            log.add({"question": question, "text": "t", "seed": 0}, {"error": error})
    SearchLog(Path(path, "runs.jsonl.log")).close()


def files() -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(Path.cwd().rglob("*"))}


def refused(*arguments: object) -> str:
    """What is said of a merge that writes nothing and takes nothing away."""
    before = files()
    done = merge(*arguments)
    assert done.exit_code == 2, done.output
    assert files() == before
    return done.stderr


def test_a_failed_search_does_not_win_over_its_repetition() -> None:
    runs("p0", ("one", "the server was away"), ("two", "broken"), ("one", None))
    runs("p1", ("three", None), ("two", None), ("four", "broken"))
    runs("p2", ("three", "broken"), ("four", "broken again"))
    assert merge("all", "p0", "p1", "p2").exit_code == 0
    with RunLog("all/runs.jsonl") as log:
        errors = {q: log.get({"question": q, "text": "t", "seed": 0}) for q in ("one", "two", "three", "four")}
    assert {question: record and record["error"] for question, record in errors.items()} == {
        "one": None,
        "two": None,
        "three": None,
        "four": "broken again",
    }
    assert len(Path("all/runs.jsonl").read_text().splitlines()) == 5, "and each search is there once"


@pytest.mark.parametrize("log", ["a log of somebody's\n", ""])
def test_a_file_where_the_log_belongs_is_left(log: str) -> None:
    answers("p0", 1)
    answers("p1", 2)
    Path("all.log").write_text(log)
    assert "all.log is there already" in refused("all", "p0", "p1")
    Path("other.log").symlink_to("nowhere")
    assert "other.log is there already" in refused("other", "p0", "p1")


def spoil(path: str) -> None:
    content = bytearray(Path(path).read_bytes())
    content[60] ^= 1
    Path(path).write_bytes(content)


def test_a_damaged_log_of_a_part_leaves_nothing_behind() -> None:
    answers("p0", 1, 2)
    answers("p1", 3, 4)
    spoil("p1.log")
    assert "p1.log is damaged" in refused("all", "p0", "p1")
    spoil("p1.log")
    done = merge("all", "p0", "p1")
    assert done.exit_code == 0
    assert done.stdout.split() == ["all", "all.log"]
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["all", "all.log", "p0", "p0.log", "p1", "p1.log"]


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_a_damaged_file_of_a_folder_leaves_nothing_behind(there: bool) -> None:
    runs("p0", ("one", None))
    runs("p1", ("two", None))
    if there:
        Path("all").mkdir()
    with Path("p1/runs.jsonl.log").open("ab") as log:
        log.write(b"notes")
    assert "is damaged" in refused("all", "p0", "p1")
    os.truncate("p1/runs.jsonl.log", Path("p0/runs.jsonl.log").stat().st_size)
    assert merge("all", "p0", "p1").exit_code == 0
    assert sorted(path.name for path in Path("all").iterdir()) == ["runs.jsonl", "runs.jsonl.log"]


def test_a_part_without_what_the_others_have_is_named() -> None:
    answers("p0", 1)
    answers("p1", 2, log=False)
    assert "p1.log is not there, and p0.log is" in refused("all", "p0", "p1")
    runs("f0", ("one", None))
    runs("f1", ("two", None))
    Path("f0/runs.jsonl.log").unlink()
    assert f"{Path('f0/runs.jsonl.log')} is not there" in refused("folder", "f0", "f1")
    Path("p0.log").unlink()
    assert merge("all", "p0", "p1").exit_code == 0


@pytest.mark.parametrize("out", ["/dev/null", "folder", "p0", "p0/x"])
def test_where_nothing_can_be_written_is_said(out: str) -> None:
    answers("p0", 1)
    answers("p1", 2)
    Path("folder").mkdir()
    before = files()
    done = merge(out, "p0", "p1")
    assert done.exit_code in (1, 2)
    assert done.stderr.startswith(f"error: {out.partition('/x')[0]}"), done.stderr
    assert files() == before


def test_parts_without_a_question_are_merged() -> None:
    answers("p0")
    answers("p1")
    assert merge("all", "p0", "p1").exit_code == 0
    assert Path("all").read_bytes() == b""
    Path("notes").write_text("")
    Path("p2").write_text("notes of somebody's")
    assert "p2 is nothing that tts-search wrote" in refused("more", "notes", "p2")


def test_one_custom_id_is_answered_once() -> None:
    for part, line in (("p0", 1), ("p1", 2)):
        name = f"batch_req_{line}_{'a' * 24}_{line:024}"
        told = {"id": name, "custom_id": "same", "response": {}, "error": None}
        Path(part).write_text(json.dumps(told) + "\n")
    assert "custom_id 'same' is answered in line 1 and in line 2" in refused("all", "p0", "p1")
