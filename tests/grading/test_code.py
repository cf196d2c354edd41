"""Programs are graded by their tests, and a hostile one gets nothing: no network, file, process, memory or time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tts_search.errors import InvalidInputError, TTSError
from tts_search.grading import sandbox
from tts_search.grading.code import CodeGrader
from tts_search.grading.sandbox import Limits, Run, run_program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux only")

DOUBLE = json.dumps({"inputs": ["1\n", "21\n"], "outputs": ["2", "42\n"]})
ADD = json.dumps({"inputs": ["1\n2", "[1]\n[2]"], "outputs": ["3", "[1, 2]"], "fn_name": "add"})
QUICK = Limits(cpu_seconds=1, wall_seconds=30, memory_mb=256, output_kb=64, open_files=16)


def fenced(code: str) -> str:
    return f"<think>```python\nwrong\n```</think>Here:\n```python\n{code}\n```\nIt doubles."


@pytest.mark.parametrize(
    ("code", "right"),
    [
        ("print(int(input()) * 2)", True),
        ("print(float(input()) * 2)", True),
        ("print(int(input()) * 2, end=' \\n\\n')", True),
        ("print(2)", False),
        ("print(int(input()) * 2, 2)", False),
        ("print(int(input()) * 2); print()\nprint(1)", False),
        ("print(int(input()) * 2); raise SystemExit(1)", False),
        ("prin(", False),
        ("raise SystemExit(97)", False),
        ("", False),
    ],
)
def test_input_and_output(code: str, right: bool) -> None:
    assert CodeGrader()(fenced(code), DOUBLE) is right


@pytest.mark.parametrize(
    ("printed", "wanted", "right"),
    [
        ("1 2\n3", "1 2\n3\n", True),
        ("1  2 \n 3", "1 2\n3", True),
        ("1.0 2e0\n3", "1 2\n3", True),
        ("1 2 3", "1 2\n3", False),
        ("1 2 9\n3", "1 2\n3", False),  # a word too many, behind all that are wanted
        ("1\n3", "1 2\n3", False),
        ("1 2", "1 2\n3", False),
        ("1 2\n3\n4", "1 2\n3", False),
        ("1 2\n\n3", "1 2\n3", False),
        ("2 1\n3", "1 2\n3", False),
        ("1 2\n4", "1 2\n3", False),
        ("", "1", False),
        ("yes", "no", False),  # neither is a number
        ("Yes", "yes", False),
        ("nan", "nan", True),
        ("0.30000000000000004", "0.3", False),
    ],
)
def test_output_is_compared_word_by_word(printed: str, wanted: str, right: bool) -> None:
    tests = json.dumps({"inputs": [""], "outputs": [wanted]})
    assert CodeGrader()(fenced(f"print({printed!r})"), tests) is right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("print(1)", True),
        ("```python\nprint(1)\n```", True),
        ("```\nprint(2)\n```\nor better\n```python\nprint(1)\n```", True),
        ("```python\nprint(1)\n```\nor worse\n```\nprint(2)\n```", False),
        ("<think>```\nprint(1)\n```", False),  # a thought is no answer
        ("```python\nprint(1)", True),  # cut off behind its last line
        ("print(1)#" + "x" * 200_000, False),
        ("print(1)#" + "x" * (200_000 - 9), True),
    ],
)
def test_which_program_counts(answer: str, right: bool) -> None:
    assert CodeGrader()(answer, '{"inputs": [""], "outputs": ["1"]}') is right


def test_every_test_must_pass() -> None:
    def tests(*outputs: str) -> str:
        return json.dumps({"inputs": ["1", "2", "3"], "outputs": outputs})

    code = fenced("print(int(input()) * 2)")
    assert CodeGrader()(code, tests("2", "4", "6"))
    assert not any(CodeGrader()(code, tests(*wrong)) for wrong in (("9", "4", "6"), ("2", "9", "6"), ("2", "4", "9")))


@pytest.mark.parametrize(
    ("code", "right"),
    [
        ("def add(a, b):\n    return a + b", True),
        ("class Solution:\n    def add(self, a, b):\n        print('noise')\n        return a + b", True),
        ("def add(a, b):\n    return 3", False),
        ("def plus(a, b):\n    return a + b", False),
        ("def add(a, b):\n    return {1}", False),
    ],
)
def test_functions(code: str, right: bool) -> None:
    assert CodeGrader()(code, ADD) is right


@pytest.mark.parametrize("result", ["[" * 100_000, "9" * 100_000, "", "nan"])
def test_a_result_that_is_none_is_wrong(result: str) -> None:
    program = f"import os\nos.write(1, {result!r}.encode()); os._exit(0)"
    assert not CodeGrader()(program, ADD)


@pytest.mark.parametrize("printed", ["sNaN", "nan", "1e999999999999999999", "-"])
def test_a_number_that_is_none_is_wrong(printed: str) -> None:
    assert not CodeGrader()(f"print({printed!r})", DOUBLE)


def test_python_tests_must_run_to_their_end() -> None:
    grader, tests = CodeGrader(), "assert add(1, 2) == 3"
    assert grader("def add(a, b):\n    return a + b", tests)
    assert not grader("def add(a, b):\n    return a", tests)
    assert not grader("import os; os._exit(0)", tests), "leaving early is no success"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (" ", "is empty"),
        ("[1]", "tests in JSON"),
        ('{"inputs": ["1"], "outputs": []}', "as many outputs"),
        ('{"inputs": [], "outputs": ["1"]}', "as many outputs"),
        ('{"inputs": [], "outputs": []}', "at least one of each"),
        ('{"inputs": "1", "outputs": "1"}', "as many outputs"),
        ('{"inputs": ["1"]}', "tests in JSON"),
        ('{"inputs": ["1"], "outputs": ["1"], "fn_name": 3}', "fn_name"),
        ('{"inputs": ["1"], "outputs": ["1"], "fn_name": "a b"}', "fn_name"),
    ],
)
def test_tests_that_are_none_are_refused(reference: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        CodeGrader()("print(1)", reference)


def outcome(source: str) -> Run:
    run = run_program(source, limits=QUICK)
    assert run.exit_code is not None, "processor time ends it, not wall time"
    assert run.exit_code != 0, f"it got away with it: {run}"
    return run


@pytest.mark.parametrize(
    ("attack", "refusal"),
    [
        ("import os\nwhile True: os.fork()", "BlockingIOError"),
        ("import subprocess; subprocess.run(['true'])", "BlockingIOError"),
        ("import socket; socket.socket()", "PermissionError"),
        ("import socket; socket.socket(socket.AF_UNIX)", "PermissionError"),
        ("open('here', 'w')", "Permission"),
        ("import os; os.open('here', os.O_RDWR | os.O_CREAT)", "Permission"),
        ("import os; os.mkdir('here')", "PermissionError"),
        ("import os; os.remove(__import__('sys').executable)", "PermissionError"),
        ("import os; os.kill(os.getppid(), 9)", "PermissionError"),
        ("import ctypes as c; assert c.CDLL(None).syscall(62, __import__('os').getppid(), 9) == 0", "AssertionError"),
        ("bytearray(10**9)", "MemoryError"),
        ("import resource as r; r.setrlimit(r.RLIMIT_CPU, (99, 99))", "Error"),
        ("held = [open('/dev/null') for _ in range(99)]", "Too many open files"),
        ("import threading as t, time\nfor _ in range(9999): t.Thread(target=time.sleep, args=(1,), daemon=1).start()",
         "can't start new thread"),
        ("import os; os.execv('/bin/sh', ['sh', '-c', 'echo > here || exit 5'])", ""),
    ],
)  # fmt: skip
def test_hostile_programs_are_refused(attack: str, refusal: str) -> None:
    assert refusal in outcome(attack).errors


def test_time_is_limited() -> None:
    assert outcome("while True: pass").exit_code in (-9, -24)
    assert run_program("import time; time.sleep(60)", limits=Limits(wall_seconds=1)).exit_code is None
    assert outcome("import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
                   "    except (OSError, ValueError): pass\nwhile True: pass").exit_code == -9  # fmt: skip


def test_output_is_capped() -> None:
    assert len(outcome("while True: print('x' * 1000)").output) <= 64 * 1024
    assert len(outcome("import sys\nwhile True: sys.stderr.write('x' * 1000)").errors) <= 2_000


def test_nothing_of_the_caller_is_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "hunter2")
    run = run_program("import os; print(sorted(os.environ))")
    assert run.exit_code == 0
    assert "SECRET" not in run.output
    assert "OMP_NUM_THREADS" in run.output


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    outcome("import os\ntry: os.fork()\nfinally: open('here', 'w')")
    assert list(tmp_path.iterdir()) == []


def test_what_a_solution_needs_is_there() -> None:
    source = "import sys, math, heapq, random, threading\nsys.setrecursionlimit(10**6)\n" \
             "t = threading.Thread(target=print, args=(math.gcd(12, 18),)); t.start(); t.join()"  # fmt: skip
    assert run_program(source) == Run(exit_code=0, output="6\n", errors="")


def test_where_programs_cannot_be_confined_none_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_confines", lambda: False)
    with pytest.raises(TTSError, match="none was run"):
        run_program("print(1)")


def test_limits_are_checked() -> None:
    with pytest.raises(InvalidInputError, match="wall_seconds must be positive"):
        Limits(wall_seconds=0)
