"""Data sets in the published schemas, files of one's own, and everything that can be wrong with them."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets as hub_library
import pyarrow
import pyarrow.parquet
import pytest

from tts_search.errors import InvalidInputError
from tts_search.evaluation.benchmarks import BENCHMARKS
from tts_search.evaluation.datasets import PUZZLES, load_dataset
from tts_search.grading.math import MathGrader
from tts_search.grading.named import GRADERS, resolve_grader

TESTS = json.dumps([{"input": "1\n", "output": "2", "testtype": "stdin"}])


def packed(value: Any) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


SAMPLES: dict[str, tuple[dict[str, Any], str, str]] = {
    "aime24": (
        {"id": 60, "problem": "Find $m+n$.", "solution": "...", "answer": "204", "url": "...", "year": "2024"},
        r"\boxed{204}",
        r"\boxed{205}",
    ),
    "aime25": ({"problem": "Find $b$.", "answer": "70", "id": "0"}, r"\boxed{070}", r"\boxed{7}"),
    "math500": (
        {"problem": "Polar?", "solution": "...", "answer": r"\left( 3, \frac{\pi}{2} \right)", "subject": "Precalculus",
         "level": 2, "unique_id": "test/precalculus/807.json"},
        r"\boxed{\left( 3, \frac{\pi}{2} \right)}",
        r"\boxed{3}",
    ),
    "gsm8k": (
        {"question": "How much?", "answer": "9 * 2 = <<9*2=18>>18\n#### 1,018"}, r"\boxed{1018}", r"\boxed{1,019}"
    ),
    "amc": ({"id": 0, "problem": "What?", "answer": 142.0, "url": "..."}, r"\boxed{142}", r"\boxed{14}"),
    "ceval": (
        {"id": 0, "question": "使用位填充方法____", "A": "甲", "B": "乙", "C": "丙", "D": "丁", "answer": "C"},
        "答案：C",
        "答案：D",
    ),
    "livecodebench": (
        {"question_title": "A", "question_content": "Double it.", "platform": "atcoder", "question_id": "abc301_a",
         "contest_id": "abc301", "contest_date": "2024-09-07T00:00:00", "starter_code": "", "difficulty": "easy",
         "public_test_cases": TESTS, "private_test_cases": packed(TESTS), "metadata": "{}"},
        "```python\nprint(int(input()) * 2)\n```",
        "```python\nprint(1)\n```",
    ),
}  # fmt: skip

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def math() -> Iterator[MathGrader]:
    with MathGrader(workers=1) as grader:
        yield grader


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*rows: Any, name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
        return path

    return write


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("how", ["jsonl", "parquet", "folder", "hub"])
def test_every_benchmark_in_its_schema(
    name: str, how: str, write: Write, math: MathGrader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, right, wrong = SAMPLES[name]
    source = f"{name}={write(row)}"
    if how == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "data.parquet")
        source = f"{name}={tmp_path / 'data.parquet'}"
    elif how == "folder":
        source = f"{name}={tmp_path}"
    elif how == "hub":
        source = f"{name}:law" if name == "ceval" else name
        on_the_hub(name, row, tmp_path, monkeypatch)
    dataset = load_dataset(source, release="v1")
    (problem,) = dataset.problems
    shown = row.get("problem") or row.get("question") or row["question_content"]
    assert shown in problem.question
    grade = math if dataset.grader == "math" else resolve_grader(dataset.grader)
    assert grade(right, problem.reference)
    assert not grade(wrong, problem.reference)


def on_the_hub(name: str, row: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder laid out as the hub's repositories are; `datasets` reads it as it reads those, but for the transport."""
    benchmark = BENCHMARKS[name]
    configs = ["law", "logic"] if benchmark.per_subject else [benchmark.config or "default"]
    repository = folder / "repository"
    for config in configs:
        (repository / config).mkdir(parents=True)
        (repository / config / "part-0.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    card = [
        {"config_name": config, "data_files": [{"split": benchmark.split, "path": f"{config}/part-0.jsonl"}]}
        for config in configs
    ]
    (repository / "README.md").write_text(f"---\nconfigs: {json.dumps(card)}\n---\n")
    monkeypatch.setitem(BENCHMARKS, name, replace(benchmark, hub=str(repository)))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
    part = repository / configs[0] / "part-0.jsonl"
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, file, repo_type: part)


def test_all_subjects_of_ceval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_hub("ceval", SAMPLES["ceval"][0], tmp_path, monkeypatch)
    assert [problem.id for problem in load_dataset("ceval").problems] == ["0", "1"]
    with pytest.raises(InvalidInputError, match="biology"):
        load_dataset("ceval:biology")


def test_functions_of_livecodebench_get_their_starter_code(write: Write) -> None:
    row = SAMPLES["livecodebench"][0] | {
        "starter_code": "class Solution:\n    def f(self, a):",
        "metadata": json.dumps({"func_name": "f"}),
        "private_test_cases": packed(json.dumps([{"input": "[1]\n2", "output": "3", "testtype": "functional"}])),
    }
    (problem,) = load_dataset(f"livecodebench={write(row)}").problems
    assert "class Solution:" in problem.question
    assert json.loads(problem.reference)["fn_name"] == "f"


def test_a_pickle_with_code_in_it_is_refused(write: Write) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return (Path.touch, (Path("pwned"),))

    row = SAMPLES["livecodebench"][0] | {"private_test_cases": packed(Attack())}
    with pytest.raises(InvalidInputError, match=r"line 1: .*not to be trusted"):
        load_dataset(f"livecodebench={write(row)}")
    assert not Path("pwned").exists()


def test_the_date_window_counts_its_first_and_last_day(write: Write) -> None:
    days = ["2024-07-31", "2024-08-01", "2025-02-01", "2025-02-02"]
    rows = [SAMPLES["livecodebench"][0] | {"question_id": day, "contest_date": f"{day}T00:00:00"} for day in days]
    window = load_dataset(f"livecodebench={write(*rows)}", since="2024-08-01", until="2025-02-01")
    assert [problem.id for problem in window.problems] == days[1:3]
    with pytest.raises(InvalidInputError, match="since must be a day like"):
        load_dataset(f"livecodebench={write(*rows)}", since="August")
    with pytest.raises(InvalidInputError, match="gsm8k has none"):
        load_dataset(f"gsm8k={write(*rows)}", since="2024-08-01")


def test_a_file_of_ones_own(write: Write) -> None:
    path = write({"prompt": "1+1?", "answer": 2}, "", {"prompt": "1+2?", "answer": 3.0, "id": "b"})
    dataset = load_dataset(path)
    assert [(p.id, p.question, p.reference) for p in dataset.problems] == [("0", "1+1?", "2"), ("b", "1+2?", "3")]
    assert (dataset.name, dataset.grader, len(dataset.head(1))) == ("data", "math", 1)
    other = write({"q": "1+1?", "a": "two"}, name="other.jsonl")
    dataset = load_dataset(other, prompt_column="q", answer_column="a", grader="exact")
    assert dataset.problems[0].reference == "two"
    assert len(load_dataset(write(json.dumps([{"question": "?", "answer": "!"}]), name="a.json"))) == 1
    assert load_dataset(path, limit=1).problems == load_dataset(path).problems[:1]


GOOD = {"question": "1+1?", "answer": "2", "id": "a"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no problems"),
        ([GOOD, "{oops"], r"data\.jsonl, line 2: malformed JSON"),
        ([GOOD, "[1]"], "line 2: expected a JSON object, got list"),
        ([GOOD, {"question": "?"}], r"line 2: no answer column .* there are question: name it with answer_column"),
        ([{"text": "?", "answer": "2"}], r"line 1: no prompt column"),
        ([GOOD, {**GOOD, "answer": "3"}], r"line 2: duplicate id 'a', first at .*line 1"),
        ([GOOD, {"question": "?", "answer": "x" * 10_001}], r"line 2: the answer has 10,001 characters"),
        ([{"question": "?", "answer": " "}], "line 1: the answer is empty"),
        ([{"question": " ", "answer": "1"}], r"line 1: a question has 1 to"),
        ([{"question": ["?"], "answer": "1"}], "line 1: column 'question' must be text, got list"),
        ([{"question": "?", "answer": {"a": 1}}], "line 1: column 'answer' must be text or a number, got dict"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(write: Write, rows: list[Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_dataset(write(*rows))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nope", "unknown data set 'nope': choose from aime24"),
        ("nope.jsonl", "no such file"),
        ("gsm8k=nope", "no such file"),
    ],
)
def test_what_is_not_there(source: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_dataset(source)


def test_what_is_no_data(tmp_path: Path, write: Write) -> None:
    (tmp_path / "latin.jsonl").write_bytes('{"question": "é"}'.encode("latin-1"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "latin.jsonl": "not UTF-8 text: byte 0xe9",
        "broken.parquet": "is no Parquet file",
        "notes.txt": "expected an ending",
        "empty": "holds no .jsonl",
    }.items():
        with pytest.raises(InvalidInputError, match=message):
            load_dataset(tmp_path / name)
    with pytest.raises(InvalidInputError, match=r"line 1: no column 'problem'; there are question, answer, id"):
        load_dataset(f"aime24={write(GOOD)}")
    with pytest.raises(InvalidInputError, match="no '####'"):
        load_dataset(f"gsm8k={write(GOOD)}")


def test_a_missing_network_says_how_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(hub_library, "load_dataset", fail)
    with pytest.raises(InvalidInputError, match=r"openai/gsm8k.*Couldn't reach.*give it as gsm8k=PATH"):
        load_dataset("gsm8k")


def test_options_that_do_not_fit() -> None:
    with pytest.raises(InvalidInputError, match="gsm8k has no subjects"):
        load_dataset("gsm8k:law")
    with pytest.raises(InvalidInputError, match="release must be one of v1"):
        load_dataset("livecodebench", release="v99")
    with pytest.raises(InvalidInputError, match="limit"):
        load_dataset(PUZZLES, limit=0)
    with pytest.raises(InvalidInputError, match="unknown grader 'nope'"):
        resolve_grader("nope")


def test_the_embedded_puzzles() -> None:
    dataset = load_dataset(PUZZLES, limit=5)
    assert len(dataset) == 5
    grade = GRADERS[dataset.grader]()
    assert not grade("1 + 1", dataset.problems[0].reference)
    assert grade("(4 + 6) * 9 - 3", "Using the numbers 4, 6, 9 and 3, make 87.")
