"""`solve --file`, `--shard` and `merge` as people and scripts meet them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tts_search.cli import app
from tts_search.log import SearchLog
from tts_search.store import RunLog

FAKES = """
from tts_search.testing import FakeGenerator, FakeScorer
def engine(): return FakeGenerator(delay_seconds=0.02)
def other(): return FakeGenerator(step=0.3)
def scorer(): return FakeScorer()
def holds(answer, reference): return reference in answer
"""
COUNT = 12
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    (tmp_path / "manyfakes.py").write_text(FAKES)
    lines = [json.dumps({"question": f"What is {i}?", "answer": "a", "id": f"q{i}"}) for i in range(COUNT)]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    yield
    sys.modules.pop("manyfakes", None)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def solve(*more: object, out: str = "a.jsonl", file: str = "q.jsonl", n: int = 3) -> Result:
    fake = ("--generator", "manyfakes:engine", "--scorer", "manyfakes:scorer", "--max-tokens", 80)
    return run("solve", "--file", file, "--out", out, "-n", n, "-q", *fake, *more)


def answers(path: str = "a.jsonl") -> list[dict[str, Any]]:
    """Without what the clock says."""
    found = [json.loads(line) for line in Path(path).read_text().splitlines()]
    for line in found:
        line.get("usage", {}).pop("seconds", None)
    return found


def test_every_question_is_answered_in_its_order() -> None:
    done = solve()
    assert done.exit_code == 0, done.stderr
    assert f"{COUNT} of {COUNT} questions are answered in a.jsonl" in done.stdout
    assert [(line["line"], line["id"]) for line in answers()] == [(i + 1, f"q{i}") for i in range(COUNT)]
    assert all(line["error"] is None and line["strategy"] == "BestOfN(n=3)" for line in answers())


@pytest.mark.parametrize("cut", [0, 1, 20, 500, 2000, -1])
@pytest.mark.parametrize("log", [0.0, 0.5, 1.0])
def test_cut_off_anywhere_it_goes_on(cut: int, log: float) -> None:
    solve()
    whole, searched, size = answers(), Path("a.jsonl").read_bytes(), Path("a.jsonl.log").stat().st_size
    Path("a.jsonl").write_bytes(searched[:cut])
    Path("a.jsonl.log").write_bytes(Path("a.jsonl.log").read_bytes()[: int(size * log)])
    if not log and cut:  # without its log nobody knows whose the answers are
        assert solve().exit_code in (0, 2)
        return
    assert solve().exit_code == 0
    assert answers() == whole


def test_one_bad_line_harms_one_question() -> None:
    lines = Path("q.jsonl").read_text().splitlines()
    lines[2], lines[5], lines[7] = '{"question": "broken', "[1]", '{"question": "  "}'
    Path("q.jsonl").write_bytes("\n".join(lines).encode() + b'\n\n{"question": "\xff"}\n')
    done = solve()
    assert done.exit_code == 1
    assert [line["line"] for line in answers() if line["error"]] == [3, 6, 8, 14]
    for number, said in ((3, "malformed JSON"), (6, "a JSON object is due"), (8, "empty"), (14, "not UTF-8")):
        assert f"q.jsonl, line {number}: " in done.stderr
        assert said in next(line["error"] for line in answers() if line["line"] == number)
    Path("q.jsonl").write_text("\n".join([*lines[:2], '{"question": "mended"}', *lines[3:]]))
    assert solve().exit_code == 1
    assert [line["line"] for line in answers() if line["error"]] == [6, 8]
    assert len(answers()) == COUNT


def test_a_strategy_of_the_users_is_gone_on_with() -> None:
    plan = "from tts_search import Expand, Until\ndef plan(tree): yield [Expand(tree.root, n=2, until=Until.THOUGHT)]\n"
    Path("manyfakes.py").write_text(FAKES + plan)
    command = [sys.executable, "-m", "tts_search", "solve", "--file", "q.jsonl", "--out", "a.jsonl", "-q"]
    command += ["--generator", "manyfakes:engine", "--strategy", "manyfakes:plan", "--max-tokens", "40"]
    for _ in range(2):  # in two processes the function is at two addresses
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert len(answers()) == COUNT


def test_other_settings_are_refused_and_harm_nothing() -> None:
    solve()
    before = Path("a.jsonl").read_bytes()
    done = solve(n=4)
    assert done.exit_code == 2
    assert "other settings" in done.stderr
    assert Path("a.jsonl").read_bytes() == before


@pytest.mark.parametrize("content", ["{}\n", '{"line": 1}\n', "precious\n", '{"line": 1, "key": 3, "error": null}\n'])
def test_what_is_not_ours_is_left(content: str) -> None:
    Path("a.jsonl").write_text(content)
    assert solve().exit_code == 2
    assert solve("--log", "other.log").exit_code == 2
    solve(out="b.jsonl")
    assert solve("--log", "b.jsonl.log").exit_code == 2, "a log of ours says nothing of the answers"
    assert Path("a.jsonl").read_text() == content
    Path("c.jsonl.log").write_text(content)
    assert solve(out="c.jsonl").exit_code == 2
    assert Path("c.jsonl.log").read_text() == content
    assert not Path("c.jsonl").exists()


WRONG: list[tuple[tuple[object, ...], str]] = [
    (("solve", "--file", "q.jsonl"), "needs --out"),
    (("solve", "Why?", "--file", "q.jsonl", "--out", "a.jsonl"), "not both"),
    (("solve", "Why?", "--out", "a.jsonl"), "goes with --file"),
    (("solve",), "no question"),
    (("solve", "--file", "none.jsonl", "--out", "a.jsonl"), "no such file"),
    (("solve", "--file", "q.jsonl", "--out", "q.jsonl"), "which is read"),
    (("solve", "--file", "q.jsonl", "--out", "a.jsonl", "--log", "a.jsonl"), "--log a.jsonl is --out"),
    (("solve", "--file", "q.jsonl", "--out", "a.jsonl", "--log", "q.jsonl"), "holds the questions"),
    (("solve", "--file", "q.jsonl", "--out", "a.jsonl", "--replay", "q.jsonl"), "holds the questions"),
    (("solve", "--file", "q.jsonl", "--out", "a.jsonl", "--log", "/dev/null"), "/dev/null cannot be written"),
    (("solve", "--file", "q.jsonl", "--out", "/dev/null"), "/dev/null cannot be written"),
    (("solve", "--file", "q.jsonl", "--out", "a.jsonl", "--shard", "3/3"), "a shard is i/n"),
    (("solve", "--file", "q.jsonl", "--out", "a.jsonl", "--json"), "one question"),
    (("merge", "m.jsonl", "q.jsonl"), "nothing that tts-search wrote"),
    (("merge", "q.jsonl", "q.jsonl"), "is there already"),
    (("merge", "m.jsonl", "none.jsonl"), "is not there"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_cannot_be_done_is_said(arguments: tuple[object, ...], said: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(list(Path.cwd().glob("*.jsonl*"))) == 1


def test_an_id_that_json_does_not_have_harms_one_question() -> None:
    lines = ['{"id": NaN, "question": "Why?"}', '{"id": [1e999], "question": "Why?"}', '{"id": 1, "question": "Why?"}']
    Path("q.jsonl").write_text("\n".join(lines))
    done = solve()
    assert done.exit_code == 1
    assert done.stderr.count("JSON has no such thing") == 2
    assert [(line["id"], line["error"] is None) for line in answers()] == [(None, False), (None, False), (1, True)]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"id": "q3"', '"id": "new"', "another id than the one in line 4"),
        ("What is 3?", "Why?", "another question than the one in line 4"),
        ('{"question": "What is 3?"', "broken", "another question than the one in line 4"),
        ('{"question": "What is 11?", "answer": "a", "id": "q11"}', "", "1 questions that are not there any more"),
    ],
)
def test_questions_that_have_changed_are_said(old: str, new: str, said: str) -> None:
    solve()
    before = Path("a.jsonl").read_bytes()
    Path("q.jsonl").write_text(Path("q.jsonl").read_text().replace(old, new))
    done = solve()
    assert done.exit_code == 2
    assert said in done.stderr
    assert "name another --out" in done.stderr
    assert Path("a.jsonl").read_bytes() == before
    Path("q.jsonl").write_text(Path("q.jsonl").read_text().replace(new, old) + '\n{"question": "One more?"}\n')
    if new:
        assert solve().exit_code == 0, "more questions are no change"


def batch(name: str, question: str, **body: Any) -> str:
    request = {"model": "gpt-x", "messages": [{"role": "user", "content": question}], **body}
    return json.dumps({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": request})


def test_the_batches_of_openai() -> None:
    neutral = {"stream": False, "tools": [], "response_format": {"type": "text"}, "stop": None}
    good = batch("one", "What is 1?", temperature=0.6, **neutral)
    bad = [
        batch("two", "What is 2?", temperature=0.1),
        batch("three", "What is 3?", tools=[{"type": "function"}]),
        good,
        good.replace('"one"', "7"),
        good.replace('"one"', '"x"').replace("chat/completions", "embeddings"),
    ]
    Path("b.jsonl").write_text("\n".join([good, *bad]))
    done = solve("--format", "openai-batch", file="b.jsonl")
    assert done.exit_code == 1
    first, *others = answers()
    assert first["custom_id"] == "one"
    assert first["error"] is None
    body = first["response"]["body"]
    assert (body["object"], first["response"]["status_code"]) == ("chat.completion", 200)
    assert body["choices"][0]["message"]["role"] == "assistant"
    assert isinstance(body["choices"][0]["message"]["content"], str)
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]
    said = [line["error"]["message"] for line in others]
    for words, text in zip(("temperature", "tools", "there twice", "custom_id", "embeddings"), said, strict=True):
        assert words in text
    assert all(line["response"] is None for line in others)


def test_a_custom_id_is_there_twice_in_whatever_shards() -> None:
    Path("b.jsonl").write_text("\n".join(batch("same", f"What is {i}?") for i in range(8)))
    solve("--format", "openai-batch", file="b.jsonl")
    for i in range(2):
        solve("--format", "openai-batch", "--shard", f"{i}/2", file="b.jsonl", out=f"s{i}.jsonl")
        assert len(answers(f"s{i}.jsonl")) > 1
    done = run("merge", "m.jsonl", "s0.jsonl", "s1.jsonl")
    assert done.exit_code == 0, done.stderr
    for line in (*answers(), *(merged := answers("m.jsonl"))):
        assert line["custom_id"] == "same"
        assert (line["error"] is None) is ("_1_" in line["id"]), "the first alone is answered"
    assert len(merged) == 8


def test_a_replay_asks_no_engine_and_another_selector_says_so() -> None:
    solve("--selector", "majority")
    before = answers()
    other = ("--generator", "manyfakes:other", "--replay", "a.jsonl.log", "--max-tokens", 80)
    same = run("solve", "--file", "q.jsonl", "--out", "b.jsonl", "-n", 3, "-q", "--selector", "majority", *other)
    assert same.exit_code == 0, same.stderr
    assert [line["answer"] for line in answers("b.jsonl")] == [line["answer"] for line in before]
    assert [line["warnings"] for line in answers("b.jsonl")] == [line["warnings"] for line in before]
    again = run("solve", "--file", "q.jsonl", "--out", "c.jsonl", "-n", 3, "-q", "--selector", "best", *other)
    assert again.exit_code == 0, again.stderr
    assert all("selector best instead of majority" in str(line["warnings"]) for line in answers("c.jsonl"))
    missing = run("solve", "--file", "q.jsonl", "--out", "d.jsonl", "-n", 4, "-q", *other)
    assert missing.exit_code == 1
    assert "strategy='BestOfN(n=3)', not 'BestOfN(n=4)'" in missing.stderr
    assert not Path("b.jsonl.log").exists()


def test_shards_of_answers_are_the_whole() -> None:
    solve()
    for i in range(3):
        assert solve("--shard", f"{i}/3", out=f"s{i}.jsonl").exit_code == 0
    assert sum(len(answers(f"s{i}.jsonl")) for i in range(3)) == COUNT
    done = run("merge", "m.jsonl", "s2.jsonl", "s0.jsonl", "s1.jsonl")
    assert done.exit_code == 0, done.stderr
    assert answers("m.jsonl") == answers()
    with SearchLog("m.jsonl.log", write=False) as merged, SearchLog("a.jsonl.log", write=False) as whole:
        assert {record[:2] for record in merged} == {record[:2] for record in whole}
    before = Path("m.jsonl").read_bytes()
    assert solve(out="m.jsonl").exit_code == 0, "what was merged is gone on with"
    assert Path("m.jsonl").read_bytes() == before


def test_parts_that_do_not_belong_together_are_refused_by_name() -> None:
    solve("--shard", "0/2", out="s0.jsonl")
    solve("--shard", "1/2", out="s1.jsonl", n=2)
    done = run("merge", "m.jsonl", "s0.jsonl", "s1.jsonl")
    assert done.exit_code == 2
    assert "strategy='BestOfN(n=2)', not 'BestOfN(n=3)'" in done.stderr
    done = run("merge", "m.log", "s0.jsonl.log", "s1.jsonl.log")
    assert done.exit_code == 2
    assert "'BestOfN(n=2)'" in done.stderr
    assert run("merge", "m.jsonl", "s0.jsonl", "s1.jsonl.log").exit_code == 2
    solve(out="s2.jsonl")
    done = run("merge", "m.jsonl", "s0.jsonl", "s2.jsonl")
    assert done.exit_code == 2
    assert "both answer line" in done.stderr
    assert not list(Path.cwd().glob("*m.*"))


def sample(out: str, *more: object) -> Result:
    grade = ("--grader", "puzzle", "-n", 4, "--max-tokens", 80, "--seed", 3)
    return run("sample", "p.jsonl", "--out", out, *grade, *more)


def compare(out: str, *more: object) -> Result:
    given = ("--dataset", "puzzles", "--limit", 8, "--strategies", "single,BestOfN(n=3)", "--max-tokens", 80)
    return run("compare", *given, "--seed", 3, "--out", out, "-q", *more)


def test_shards_of_the_embedded_model_are_the_whole() -> None:
    questions = [f"Using the numbers {i}, 8, 3 and 6, make 15." for i in range(2, 8)]
    Path("p.jsonl").write_text("\n".join(json.dumps({"question": q, "answer": q}) for q in questions))
    for out, more in (("whole", ()), *((f"s{i}", ("--shard", f"{i}/3")) for i in range(3))):
        for command in (sample(f"{out}.jsonl", *more), compare(out, *more)):
            assert command.exit_code == 0, command.stderr
    assert run("merge", "merged.jsonl", "s0.jsonl", "s1.jsonl", "s2.jsonl").exit_code == 0
    assert run("merge", "merged", "s0", "s1", "s2").exit_code == 0

    def sampled(path: str) -> list[Any]:
        lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
        return sorted((line["question"], line["sample"], line["response"], line["correct"]) for line in lines)

    assert sampled("merged.jsonl") == sampled("whole.jsonl")
    before = Path("merged/runs.jsonl").read_bytes()
    done = compare("merged")
    assert done.exit_code == 0, done.stderr
    assert Path("merged/runs.jsonl").read_bytes() == before, "nothing was searched again"
    merged, whole = (Path(out, "table.csv").read_text().splitlines() for out in ("merged", "whole"))
    seconds = [i for i, name in enumerate(whole[0].split(",")) if "second" in name or "cached" in name]
    for first, second in zip(merged, whole, strict=True):
        cells = [[c for i, c in enumerate(row.split(",")) if i not in seconds] for row in (first, second)]
        assert cells[0] == cells[1]
    with RunLog("merged/runs.jsonl") as log:
        assert len(log) == 16


def test_ctrl_c_leaves_whole_lines_and_says_how_to_go_on() -> None:
    Path("manyfakes.py").write_text(FAKES + "def slow(): return FakeGenerator(delay_seconds=2.0)\n")
    command = [sys.executable, "-m", "tts_search", "solve", "--file", "q.jsonl", "--out", "a.jsonl", "-n", "2"]
    command += ["--generator", "manyfakes:slow", "--scorer", "manyfakes:scorer", "--max-tokens", "40", "-q"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while process.poll() is None and not (Path("a.jsonl").exists() and Path("a.jsonl").stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    if process.returncode:  # it may have been done before
        assert process.returncode == 130
        assert b"questions are answered in a.jsonl: run the same again to go on" in said
    assert all(line["error"] is None for line in answers())
    assert subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 0
    assert [line["line"] for line in answers()] == list(range(1, COUNT + 1))
