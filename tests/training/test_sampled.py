"""The file that sampling goes on with: cut off anywhere it ends as it would have, and nobody else's file is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from tests.training.test_collection import problems, quiet, rows, spoken
from tts_search.api import Searcher
from tts_search.cli import app
from tts_search.errors import InvalidInputError
from tts_search.grading.named import resolve_grader
from tts_search.store import claim
from tts_search.training.collection import collect
from tts_search.training.sampled import go_on

ASKED = problems("What is 2 + 2?", "Größe?", "ß")


def sampled(out: Path) -> bytes:
    """The file behind a run over `out`, as it then is."""
    with Searcher(generator=spoken(), scorer=None) as searcher:
        return collect(searcher, ASKED, out, grader=resolve_grader("exact"), n=3, report=quiet).read_bytes()


def questions(content: bytes) -> list[list[bytes]]:
    """The lines of each question, the questions sorted: they are written in the order in which they end."""
    lines = content.splitlines(keepends=True)
    assert len(lines) % 3 == 0
    return sorted(lines[i : i + 3] for i in range(0, len(lines), 3))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return sampled(tmp_path_factory.mktemp("whole") / "t.jsonl")


def test_lines_are_numbered_within_their_question(whole: bytes) -> None:
    found = [json.loads(line) for line in whole.splitlines()]
    assert [(row["sample"], row["samples"]) for row in found] == [(1, 3), (2, 3), (3, 3)] * 3


def test_any_cut_leaves_a_file_of_ours(whole: bytes, tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    ends = [0, *(i + 1 for i, byte in enumerate(whole) if byte == ord("\n"))][::3]  # of whole questions
    for cut in range(len(whole) + 1):
        out.write_bytes(whole[:cut])
        with claim(out) as file:
            done = go_on(file, out, ASKED)
        left = max(end for end in ends if end <= cut)
        assert out.read_bytes() == whole[:left]
        assert len(done) == ends.index(left)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_cut_off_anywhere_it_ends_as_it_would_have(whole: bytes, tmp_path: Path, share: float) -> None:
    out = tmp_path / "t.jsonl"
    out.write_bytes(whole[: round(share * len(whole))])
    assert questions(sampled(out)) == questions(whole)


@pytest.mark.parametrize("lines", range(10))
def test_a_question_that_is_torn_between_its_lines_is_done_again(whole: bytes, tmp_path: Path, lines: int) -> None:
    out = tmp_path / "t.jsonl"
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[:lines]))
    said = list[str]()
    with Searcher(generator=spoken(), scorer=None) as searcher:
        collect(searcher, ASKED, out, grader=resolve_grader("exact"), n=3, report=said.append)
    assert questions(out.read_bytes()) == questions(whole)
    assert (f"{lines // 3} of 3 questions are in" in said[0]) == (lines >= 3)


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
QUESTIONS = st.sampled_from([problem.question for problem in ASKED]) | st.text(max_size=9)
OTHER_LINES = st.fixed_dictionaries(
    {"question": QUESTIONS}, optional={"answer": JSON, "response": JSON, "correct": st.booleans(), "notes": JSON}
)
FOREIGN = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60).map(str.encode),
    st.lists(JSON.map(json.dumps), min_size=1, max_size=3).map(lambda lines: "\n".join(lines).encode()),
    st.lists(OTHER_LINES.map(json.dumps), min_size=1, max_size=3).map(lambda lines: "\n".join(lines).encode()),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ours=st.integers(0, 9), other=FOREIGN, end=st.sampled_from([b"", b"\n"]))
@example(ours=0, other=b'{"question": "What is 2 + 2?", "answer": "4"}', end=b"")
@example(ours=0, other=b'{"question": "What is 2 + 2?", "response": "mine", "correct": true}', end=b"")
@example(ours=6, other=b"remember to ask Ann", end=b"")
def test_what_is_not_ours_is_refused_and_stays(
    whole: bytes, tmp_path: Path, ours: int, other: bytes, end: bytes
) -> None:
    out = tmp_path / "t.jsonl"
    lines = whole.splitlines(keepends=True)
    before = b"".join(lines[:ours]) + other + end
    out.write_bytes(before)
    try:
        after = sampled(out)
    except InvalidInputError:
        assert out.read_bytes() == before
    else:
        torn = before[before.rfind(b"\n") + 1 :]
        assert before[: len(before) - len(torn)] == b"".join(lines[:ours]), "only lines of ours were there"
        assert any(line.startswith(torn) for line in lines), "and what such a line begins with"
        assert questions(after) == questions(whole)


def test_what_this_run_would_not_do_again_is_not_taken_away(whole: bytes, tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    for before in (whole[:-200], b"".join(whole.splitlines(keepends=True)[:-1])):
        out.write_bytes(before)
        last = json.loads(whole.splitlines()[-1])["question"]
        others = [problem for problem in ASKED if problem.question != last]
        with Searcher(generator=spoken(), scorer=None) as searcher, pytest.raises(InvalidInputError, match="given"):
            collect(searcher, others, out, grader=resolve_grader("exact"), n=3, report=quiet)
        assert out.read_bytes() == before


def test_lines_that_somebody_took_out_are_not_sampled_again(whole: bytes, tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join([*lines[:6], lines[7]]))  # of the last question, only its second sample
    assert sampled(out) == b"".join([*lines[:6], lines[7]])


@pytest.mark.parametrize("note", [b" good", b"\t", b", mine"])
def test_a_note_behind_the_last_line_is_kept(whole: bytes, tmp_path: Path, note: bytes) -> None:
    out = tmp_path / "t.jsonl"
    out.write_bytes(whole[:-1] + note)
    with pytest.raises(InvalidInputError, match="no beginning of one"):
        sampled(out)
    assert out.read_bytes() == whole[:-1] + note


def test_one_run_at_a_time(whole: bytes, tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    out.write_bytes(whole[:-5])
    with claim(out), pytest.raises(InvalidInputError, match="in use by another process"):
        sampled(out)
    assert out.read_bytes() == whole[:-5]
    assert questions(sampled(out)) == questions(whole)


def sample(*args: str) -> Result:
    given = ["--generator", "tests.training.test_collection:spoken", "--grader", "exact", "--n", "2"]
    return CliRunner().invoke(app, ["sample", *args, *given])


NAMES: dict[str, Callable[[Path], str]] = {
    "itself": lambda file: file.name,
    "a longer way": lambda file: f"../{file.parent.name}/{file.name}",
    "a symbolic link": lambda file: (file.with_name("l").symlink_to(file), "l")[1],
    "a hard link": lambda file: (os.link(file, file.with_name("h")), "h")[1],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["sample", "clean"])
def test_a_command_never_writes_to_what_it_reads(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "q.jsonl"
    file.write_text('{"question": "a", "answer": "4"}\n{"question": "b", "answer": "5"}')
    before = file.read_bytes()
    out = NAMES[name](file)
    args = ("q.jsonl", "--out", out)
    refused = sample(*args) if command == "sample" else CliRunner().invoke(app, [command, *args, "--grader", "exact"])
    assert refused.exit_code == 2, refused.output
    assert f"--out {out} is q.jsonl" in refused.stderr
    assert file.read_bytes() == before


def test_trajectories_are_not_sampled_into_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would do as questions."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.jsonl").write_text('{"question": "a", "answer": "4"}\n')
    assert sample("q.jsonl", "--out", "t.jsonl").exit_code == 0
    before = (tmp_path / "t.jsonl").read_bytes()
    assert sample("t.jsonl", "--out", "t.jsonl").exit_code == 2
    assert (tmp_path / "t.jsonl").read_bytes() == before


@pytest.mark.parametrize("notes", ["buy milk", "buy milk\ncall Ann\n", "\n", " "])
def test_notes_are_left_alone(notes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.jsonl").write_text('{"question": "a", "answer": "4"}\n')
    (tmp_path / "notes.txt").write_text(notes)
    refused = sample("q.jsonl", "--out", "notes.txt")
    assert refused.exit_code == 2
    assert "notes.txt" in refused.stderr
    assert "name another file" in refused.stderr
    assert (tmp_path / "notes.txt").read_text() == notes
    assert sample("q.jsonl", "--out", ".").exit_code == 2


def clean(*args: str) -> Result:
    return CliRunner().invoke(app, ["clean", "q.jsonl", "--grader", "exact", *args])


def test_cleaning_replaces_only_what_it_could_have_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"question": f"Why is it {i}?", "answer": "4"}) + "\n" for i in range(3)]
    (tmp_path / "q.jsonl").write_text("".join([*lines, lines[0]]))
    out = tmp_path / "c.jsonl"
    assert clean("--out", "c.jsonl").exit_code == 0
    assert out.read_text() == "".join(lines)
    bench = tmp_path / "bench.jsonl"
    bench.write_text(lines[1])
    again = clean("--out", "c.jsonl", "--against", "bench.jsonl", "--words", "3")
    assert again.exit_code == 0, again.output
    assert "Why is it 1?" not in out.read_text()
    for notes in ("buy milk", lines[0][:-1], lines[0] + json.dumps({"question": "mine", "answer": "5"}) + "\n"):
        out.write_text(notes)
        refused = clean("--out", "c.jsonl")
        assert refused.exit_code == 2
        assert "c.jsonl is there already" in refused.stderr
        assert out.read_text() == notes
    assert clean("--out", "bench.jsonl", "--against", "bench.jsonl").exit_code == 2
    assert bench.read_text() == lines[1]
    assert len(rows(tmp_path / "q.jsonl")) == 4
