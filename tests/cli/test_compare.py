"""The `compare` command as people and scripts meet it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tts_search import MCTS, BestOfN, Repeat
from tts_search.cli import app
from tts_search.cli.compare import REPORTS, _Lines, parse_budgets, parse_strategies
from tts_search.errors import InvalidInputError
from tts_search.evaluation.runs import RunProgress

FAKES = """
from tts_search.testing import FakeGenerator
def engine(): return FakeGenerator()
def holds(answer, reference): return reference in answer[:6]
class Doubtful:
    def score(self, trajectories): return [[0.001 * len(t.text) % 0.04 for _ in t.steps] for t in trajectories]
"""


@pytest.fixture(autouse=True)
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    (tmp_path / "comparefakes.py").write_text(FAKES)
    lines = [json.dumps({"question": f"What is {i}?", "answer": "abcdef"[i]}) for i in range(6)]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines))
    yield
    sys.modules.pop("comparefakes", None)


def run(*arguments: str) -> Result:
    options = ("--generator", "comparefakes:engine", "--grader", "comparefakes:holds", "--max-tokens", "100")
    return CliRunner().invoke(app, ["compare", "--dataset", "questions.jsonl", *options, *arguments])


def test_it_measures_writes_and_goes_on(tmp_path: Path) -> None:
    given = ("--strategies", "single,BestOfN(n=3)", "--budgets", "none,60", "--scorer", "none", "--out", "out")
    first = run(*given)
    assert first.exit_code == 0, first.stderr
    assert "BestOfN(n=3)" in first.stdout
    assert "0:00 left" in first.stderr
    files = {path.name for path in (tmp_path / "out").iterdir()}
    tables = {"table.md", "table.csv", "choices.md", "choices.csv", "warnings.json"}
    assert files == {"report.html", *tables, "tokens.png", "seconds.png", "runs.jsonl", "runs.jsonl.log"}
    assert (tmp_path / "out" / "tokens.png").read_bytes().startswith(b"\x89PNG")
    table, log = ((tmp_path / "out" / name).read_bytes() for name in ("table.md", "runs.jsonl"))
    again = run(*given, "--quiet")
    assert again.exit_code == 0
    assert again.stdout == table.decode()
    assert again.stderr == ""
    assert (tmp_path / "out" / "runs.jsonl").read_bytes() == log


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_what_results_were_warned_of_is_said_once_with_a_count(tmp_path: Path, quiet: tuple[str, ...]) -> None:
    given = ("--strategies", "single,BestOfN(n=3)", "--scorer", "comparefakes:Doubtful", "--step", "zz", "--out", "out")
    done = run(*given, *quiet)
    assert done.exit_code == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert [line.partition(" (")[2] for line in said if "takes even this one for wrong" in line] == [
        "12 of 12 searches: single: 6; BestOfN(n=3): 6)"
    ]
    (no_step,) = [line for line in said if "found no step" in line]
    assert "give --step what this model writes" in no_step
    found = json.loads((tmp_path / "out" / "warnings.json").read_text())
    assert len(found) == len(said)
    assert found[0]["where"] == {"single": 6, "BestOfN(n=3)": 6}
    assert found[0]["searches"] == 12
    assert "takes even this one for wrong" in (tmp_path / "out" / "report.html").read_text()
    record = json.loads((tmp_path / "out" / "runs.jsonl").read_text().splitlines()[-1])
    assert "takes even this one for wrong" in json.dumps(record)


@pytest.mark.parametrize("name", REPORTS)
def test_another_folders_files_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    refused = run("--strategies", "single", "--scorer", "none", "--out", "out")
    assert refused.exit_code == 2
    assert f"out/{name} is there already" in refused.stderr
    (tmp_path / "out" / "runs.jsonl").touch()  # an empty file proves nothing
    assert run("--strategies", "single", "--scorer", "none", "--out", "out").exit_code == 2
    assert (tmp_path / "out" / name).read_text() == "mine"


@pytest.mark.parametrize("command", ["compare", "reproduce"])
@pytest.mark.parametrize("notes", ['{"question": "mine"}', "one line", '{"format": "other"}\n'])
def test_another_runs_jsonl_is_left_alone(tmp_path: Path, notes: str, command: str) -> None:
    (tmp_path / "out").mkdir()
    file = tmp_path / "out" / "runs.jsonl"
    file.write_text(notes)
    (tmp_path / "out" / "report.html").write_text("mine")
    if command == "compare":
        refused = run("--strategies", "single", "--scorer", "none", "--out", "out")
    else:
        args = ("--questions", "2", "--samples", "8", "--budgets", "30", "--no-heads", "--out", "out")
        refused = CliRunner().invoke(app, ["reproduce", *args])
    assert refused.exit_code == 2, refused.output
    assert "is no line of a run log" in refused.stderr
    assert file.read_text() == notes
    assert (tmp_path / "out" / "report.html").read_text() == "mine"


def test_a_reproduction_is_not_written_over_another_report(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("mine")
    refused = CliRunner().invoke(app, ["reproduce", "--no-heads", "--out", "."])
    assert refused.exit_code == 2
    assert "report.md is there already" in refused.stderr
    assert (tmp_path / "report.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "nope"), "unknown data set 'nope'"),
        (("--strategies", "nope", "--scorer", "none"), "unknown strategy 'nope'"),
        (("--strategies", "BestOfN(m=3)"), "BestOfN has no 'm': choose from n, wave"),
        (("--strategies", "single,single"), "twice"),
        (("--budgets", "many"), "'many' is neither a whole number above 0 nor none"),
        (("--grader", "nope", "--scorer", "none"), "unknown grader 'nope'"),
        (("--limit", "0"), "'0' is not a whole number of at least 1"),
        (("--answer-column", "text"), "no answer column (text)"),
        (("--strategies", "comparefakes:nope"), "cannot be imported"),
    ],
)
def test_what_it_cannot_use_is_one_line_and_code_2(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.stderr
    assert message in result.stderr
    assert result.stderr.count("error: ") == 1


def test_strategies_and_budgets_as_they_are_typed() -> None:
    parsed = parse_strategies("single, high,MCTS(children=2, expansion_tokens=64),comparefakes:holds")
    assert list(parsed) == ["single", "high", "MCTS(children=2, expansion_tokens=64)", "comparefakes:holds"]
    assert list(parsed.values())[:3] == [BestOfN(n=1), BestOfN(n=32), MCTS(children=2, expansion_tokens=64)]
    assert list(parse_strategies("Repeat(BestOfN(n=2, wave=1)),mcts").values()) == [
        Repeat(BestOfN(n=2, wave=1)),
        MCTS(),
    ]
    assert parse_budgets("none, 200") == [None, 200]
    with pytest.raises(InvalidInputError, match="empty"):
        parse_strategies(" ,")


def test_lines_begin_again_with_the_next_evaluation() -> None:
    said: list[str] = []

    class Screen:
        def print(self, line: str) -> None:
            said.append(line.split(" searches")[0])

    tell = _Lines(Screen())
    for total in (20, 40):
        for done in range(0, total + 1, 5):
            tell(RunProgress(done=done, total=total, resumed=0, seconds=1.0, label="x"))
    assert said[:5] == [f"{done} of 20" for done in range(0, 21, 5)]
    assert said[5:] == [f"{done} of 40" for done in range(0, 41, 5)]
