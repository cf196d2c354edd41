"""What a user may get wrong, in every command: one line, exit code 2, and no model is loaded for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tts_search import api
from tts_search.cli import app

LINE = {"question": "Using the numbers 7, 5, 15 and 11, make 24.", "answer": "24"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.jsonl").write_text(json.dumps(LINE))
    (tmp_path / "bad.jsonl").write_text("no JSON")
    (tmp_path / "raises.py").write_text("raise ValueError('mine')")
    (tmp_path / "three.py").write_text("Object = 3")
    (tmp_path / "empty").mkdir()
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("solve x --model ./nowhere", "there is no model folder at './nowhere'"),
        ("solve x --model q.jsonl", "'q.jsonl' is a file, and a model is a folder"),
        ("solve x --model empty", "'empty' is no model folder"),
        ("solve x --model http://", "the server's URL must be like 'http://localhost:8000/v1'"),
        ("solve x --model http://a:1 --generator vllm", "--model http://a:1 is the address of a server"),
        ("solve x --engine-arg model=y", "the model is said twice: 'embedded', and 'y' in --engine-arg"),
        ("solve x --head empty", "the folder 'empty' holds no SPRM head"),
        ("solve x --scorer gone.py", "'gone.py' is a file: name an object in it, as in gone.py:Object"),
        ("solve x --scorer gone.py:Object", "--scorer: the file gone.py is not there"),
        ("solve x --scorer raises.py:Object", "--scorer raises.py:Object cannot be imported: ValueError: mine"),
        ("solve x --scorer three.py:Object", "--scorer three.py:Object is no Scorer and makes none: it is 3"),
        ("solve x --scorer three.py:Gone", "--scorer three.py:Gone cannot be imported: "),
        ("solve x --extract three.py:Object", "--extract three.py:Object is no function: it is 3"),
        ("solve x --aggregation three.py:Object", "--aggregation three.py:Object is no function: it is 3"),
        ("solve x --strategy gone.py:Object(n=2)", "--strategy: the file gone.py is not there"),
        ("solve x --strategy mcts", "MCTS searches until it is stopped: give it a budget, such as --budget 160000"),
        ("solve x --strategy beam --scorer none", "StepBeamSearch goes where step scores are high"),
        ("solve x --selector logprob --early-stop 0.5", "--selector logprob cannot"),
        ("compare --dataset gone.jsonl", "no such file: gone.jsonl"),
        ("compare --dataset bad.jsonl", "bad.jsonl, line 1: malformed JSON"),
        ("compare --dataset puzzles --limit x", "'--limit': 'x' is not a whole number of at least 1"),
        ("compare --dataset puzzles --repeats 0", "'--repeats': '0' is not a whole number of at least 1"),
        ("compare --dataset puzzles --concurrency 0", "'--concurrency': '0' is not a whole number of at least 1"),
        ("compare --dataset puzzles --grader nope", "unknown grader 'nope'"),
        ("compare --dataset livecodebench --since today", "'today' is not a day like 2024-08-01"),
        ("compare --dataset puzzles --out q.jsonl", "--out q.jsonl cannot be made: a file stands in its place"),
        ("compare --dataset puzzles --strategies mcts", "give it a budget, such as --budgets 160000"),
        ("compare --dataset puzzles --strategies mcts --budgets 9 --scorer none", "MCTS goes where step scores"),
        ("compare --dataset puzzles --strategies MCTS(childs=4)", "MCTS has no 'childs'"),
        ("sample gone.jsonl --out o.jsonl", "'QUESTIONS': the file 'gone.jsonl' is not there"),
        ("sample empty --out o.jsonl", "the file 'empty' is a folder, and a file is due"),
        ("sample bad.jsonl --out o.jsonl", "bad.jsonl"),
        ("sample q.jsonl --out empty", "--out empty is a folder: name a file in it"),
        ("sample q.jsonl --out gone/o.jsonl", "--out gone/o.jsonl: there is no folder gone"),
        ("sample q.jsonl --out o.jsonl -n 0", "'0' is not a whole number of at least 1"),
        ("sample q.jsonl --out o.jsonl --grader nope", "unknown grader 'nope'"),
        ("fit-head gone.jsonl", "'TRAJECTORIES': the file 'gone.jsonl' is not there"),
        ("fit-head q.jsonl --readout nope", "'nope' is none of previous, step"),
        ("fit-head q.jsonl --labels nope", "'nope' is none of outcome, steps"),
        ("fit-head q.jsonl --aggregation nope", "'nope' is none of geometric_mean"),
        ("fit-head q.jsonl --held-out 2", "'2' is not a number above 0 and below 1"),
        ("fit-head q.jsonl --epochs x", "'x' is not a whole number of at least 1"),
        ("fit-head q.jsonl --learning-rate nan", "'nan' is not a number above 0"),
        ("clean gone.jsonl --out o.jsonl", "'QUESTIONS': the file 'gone.jsonl' is not there"),
        ("clean q.jsonl --out o.jsonl --against gone.jsonl", "'--against': the file 'gone.jsonl' is not there"),
        ("clean q.jsonl --out o.jsonl --solved gone.jsonl", "'--solved': the file 'gone.jsonl' is not there"),
        ("clean q.jsonl --out o.jsonl --words 0", "'0' is not a whole number of at least 1"),
        ("clean q.jsonl --out gone/o.jsonl", "--out gone/o.jsonl: there is no folder gone"),
        ("train", "without a FILE that says it, --model and --data and --out must be given"),
        ("train gone.toml", "'FILE': the file 'gone.toml' is not there"),
        ("train --data gone.jsonl", "'--data': the file 'gone.jsonl' is not there"),
        ("train --model m --data q.jsonl --out o --set x", "--set x: write NAME=VALUE"),
        ("train --model m --data q.jsonl --out o --grader nope", "unknown grader 'nope'"),
        ("train --model m --data q.jsonl --out o --head gone", "--head: the folder gone is not there"),
        ("reproduce --samples 12", "12 is not a power of two from 8 to 1024"),
        ("reproduce --questions x", "'x' is not a whole number of at least 1"),
        ("reproduce --budgets many", "'many' is neither a whole number above 0 nor none"),
        ("reproduce --out q.jsonl", "--out q.jsonl cannot be made"),
    ],
)
def test_it_is_one_line_and_nothing_is_loaded(args: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    resolve = api.resolve_generator
    monkeypatch.setattr(api, "resolve_generator", lambda *given: loaded.append(resolve(*given)) or loaded[0])
    result = CliRunner().invoke(app, args.split())
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not loaded


def test_a_scorer_out_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Judge:\n    def score(self, trajectories): return [[0.5] * len(t.steps) for t in trajectories]\n"
    )
    asked = ("solve", LINE["question"], "-n", "2", "--scorer", "mine.py:Judge", "--json")
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["score"] == 0.5
