"""The mathematics grader against hand-labelled cases, hostile answers, threads, and its own end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tts_search.errors import InvalidInputError, TTSError
from tts_search.grading.math import MathGrader

CASES: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "math_cases.jsonl").read_text().splitlines()
]
TOWER = r"\boxed{9^{9^{9^9}}}"


@pytest.fixture(scope="module")
def grader() -> Iterator[MathGrader]:
    with MathGrader(workers=2, cpu_seconds=1.0) as grader:
        yield grader


def test_the_labels_cover_what_answers_look_like() -> None:
    kinds = {case["kind"] for case in CASES}
    assert len(CASES) >= 240
    assert {"fraction", "set", "interval", "unit", "percent", "latex", "nested", "no answer", "two answers"} <= kinds
    assert {"tiny", "plain reference", "cut off", "equation", "notation", "Chinese", "tags", "declared"} <= kinds
    assert 0.2 < sum(case["correct"] for case in CASES) / len(CASES) < 0.8


def test_it_agrees_with_every_hand_label(grader: MathGrader) -> None:
    assert [case for case in CASES if grader(case["answer"], case["reference"]) != case["correct"]] == []


def test_a_hostile_answer_is_wrong_and_the_grader_lives_on(grader: MathGrader) -> None:
    assert not grader(TOWER, "x^2")  # which would take for ever
    assert grader(r"\boxed{(x+1)^2}", "x^2+2x+1")


def test_memory_is_limited(grader: MathGrader) -> None:
    assert not grader(r"\boxed{\binom{10^{9}}{5 \cdot 10^{8}}}", "x^2")
    assert grader(r"\boxed{(x+1)^2}", "x^2+2x+1")


def test_many_threads_share_it(grader: MathGrader) -> None:
    pairs = [(rf"\boxed{{x+{i}}}", f"{i}+x" if i % 3 else f"{i}-x") for i in range(1, 25)]
    with ThreadPoolExecutor(8) as threads:
        verdicts = list(threads.map(lambda pair: grader(*pair), pairs))
    assert verdicts == [bool(i % 3) for i in range(1, 25)]
    assert grader.grade_many(pairs) == verdicts


def test_a_reward_takes_nothing_but_a_box_behind_the_thinking() -> None:
    with MathGrader(require_boxed=True, require_thought=True) as grader:
        assert grader(r"<think>hm</think>\boxed{12}", "12")
        assert grader(r"hm</think>So \boxed{12}", "12")
        assert not grader("<think>hm</think>The answer is 12", "12")
        assert not grader(r"\boxed{12}", "12")
        assert not grader(r"<think>\boxed{12}", "12")


def test_of_a_long_answer_its_end_is_read(grader: MathGrader) -> None:
    assert grader("1 " + "and so on " * 500 + "so the answer is 7", "7")
    assert not grader("The answer is 7. " + "and so on " * 500 + "so the answer is 1", "7")
    longest = "x" * 4_000
    assert grader(rf"\boxed{{{longest}}}", longest)
    assert not grader(rf"\boxed{{{longest}x}}", f"{longest}x"), "no answer is that long"


def test_of_a_worked_reference_its_end_counts(grader: MathGrader) -> None:
    assert grader(r"\boxed{1000}", "500 + 500 = 1,000 clips\n#### 1,000")
    assert not grader(r"\boxed{500}", "500 + 500 = 1,000 clips\n#### 1,000")


def test_equal_texts_and_numbers_need_no_process() -> None:
    grader = MathGrader()
    assert grader(r"\boxed{073}", "73")
    assert not grader(r"\boxed{74}", "73")
    assert grader(r"\boxed{\frac{1}{2}}", r"$\frac{1}{2}$")
    assert grader(r"\boxed{\frac{1}{2}}", "0.5")
    assert not grader(r"\boxed{5 km}", "5 m")
    assert grader._judges._idle.empty()


def test_what_it_cannot_use_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="reference answer is empty"):
        MathGrader()(r"\boxed{1}", " ")
    with pytest.raises(InvalidInputError, match="workers"):
        MathGrader(workers=0)
    with pytest.raises(InvalidInputError, match="cpu_seconds"):
        MathGrader(cpu_seconds=0)


def test_processes_end_with_it_and_with_the_program() -> None:
    grader = MathGrader(workers=1)
    assert grader(r"\boxed{x+x}", "2x")
    process = grader._judges._idle.get()
    pid = process._process.pid
    grader._judges._idle.put(process)
    grader.close()
    grader.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(TTSError, match="closed"):
        grader(r"\boxed{x+x}", "2x")

    script = (
        "from tts_search.grading.math import MathGrader\n"
        "g = MathGrader(workers=1); g(r'\\boxed{x+x}', '2x'); print(g._judges._idle.get()._process.pid, flush=True)\n"
        "import os; os._exit(0)"
    )
    left = int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    deadline = time.monotonic() + 120
    while Path(f"/proc/{left}").exists():
        assert time.monotonic() < deadline, "the worker outlived its program"
        time.sleep(0.05)
