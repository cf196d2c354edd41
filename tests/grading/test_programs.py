"""Which part of an answer is the program."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_search.grading.code import CodeGrader
from tts_search.grading.named import resolve_grader
from tts_search.grading.programs import blocks, called, program, released_program

F = "```"
READS = "x = int(input())\nprint(x)"


@pytest.mark.parametrize(
    ("answer", "wants", "text"),
    [
        (f"{F}python\ndef f(): pass\n{F}\nOutput:\n{F}\n3\n{F}", {"defines": ("f",)}, "def f(): pass"),
        (f"{F}python\ndef f(): pass\n{F}\nOutput:\n{F}\n3\n{F}", {}, "def f(): pass"),
        (f"{F}python\n{READS}\n{F}\nRun it:\n{F}bash\npython a.py\n{F}", {"reads": True}, READS),
        (f"{F}\n{READS}\n{F}\nRun it:\n{F}\n$ python a.py\n3\n{F}", {"reads": True}, READS),
        (f"{F}\n{READS}\n{F}\nRun it:\n{F}\npython a.py\n{F}", {}, READS),
        (f"{F}python\n{READS}\n{F}\nAnother:\n{F}python\nprint(7)\n{F}", {"reads": True}, READS),
        (f"{F}python\n{READS}\n{F}\nC++:\n{F}cpp\nint main(){{}}\n{F}", {"reads": True}, READS),
        (f"{F}python\ndef f(): 1\n{F}\nUse:\n{F}python\nprint(f())\n{F}", {"defines": ("f",)}, "def f(): 1"),
        (f"{F}python\nf = lambda: 1\n{F}\nUse:\n{F}python\nprint(f())\n{F}", {"defines": ("f",)}, "f = lambda: 1"),
        (f"1. So\n   {F}python\n   def f():\n       return 1\n   {F}", {}, "def f():\n    return 1"),
        ("~~~python\nprint(1)\n~~~", {}, "print(1)"),
        (f"{F}python\nprint(1)\n{F}\n{F}", {}, "print(1)"),
        (f"{F}{F}python\nprint('{F}')\n{F}{F}", {}, f"print('{F}')"),
        (f"{F}python\nprint(1)", {}, "print(1)"),
        (f"{F}Python3 title=a\r\nprint(1)\r\n{F}\r\n", {}, "print(1)"),
        (f"{F}python\na = 1\n{F}python\nb = 2\n{F}", {}, "b = 2"),
        (f"<think>a</think>{F}python\nprint(1)\n{F}</think>", {}, "print(1)"),
        (f"**Solution:** {F}python\n{READS}\n{F}\nDone", {"reads": True}, READS),
        (f"Here it is: {F}\n{READS}\n{F}\nOutput:\n{F}\n6\n{F}", {"reads": True}, READS),
        (f"Use `x`, **thus:** {F}python\n{READS}\n{F}", {}, READS),
        (f"I will use {F}python fences.\n{F}python\n{READS}\n{F}", {}, READS),
        (f"- {F}python\n  {READS.replace(chr(10), chr(10) + '  ')}\n  {F}", {}, READS),
        (f"1. {F}python\n   def f():\n       return 1\n   {F}", {}, "def f():\n    return 1"),
        (f"1. {F}python\ndef f():\n    return 1\n{F}", {}, "def f():\n    return 1"),
        (f"> {F}python\n> def f():\n>     return 1\n> {F}", {}, "def f():\n    return 1"),
        (f"> 1. {F}python\n>    def f():\n>        return 1\n>    {F}", {}, "def f():\n    return 1"),
        (f"<answer>{F}python\n{READS}\n{F}</answer>", {}, READS),
        (f"“{F}python\n{READS}\n{F}”", {}, READS),
        *((f"{F}python\n{READS}\n{F}{tail}", {}, READS) for tail in ("<|im_end|>", "</s>", ".", "**So**", " (end)")),
        (f"{F}python\n{READS}{F}\nIt prints:\n{F}\n3\n{F}", {}, READS),
        (f"{F}python\n{READS}\n<|im_end|>", {}, READS),
        (f"{F}python\ns = '{F}'\nprint(s)  # {F}\nt = 1\n{F}", {}, f"s = '{F}'\nprint(s)  # {F}\nt = 1"),
        (f"{F}python\n{READS}\n{F}\nOutput\n{F}\nx = 6\n{F}", {}, READS),
        (f"{F}python\nprint(7)\n{F}\nIn full:\n{F}\n{READS}\n{F}", {"reads": True}, READS),
        (f"{F}\n{READS}\n{F}\nOutput\n{F}\nadd(1, 2) = 3\nSum = 6\n{F}", {}, READS),
        (f"{F}python\n{READS}\n{F}\nSession:\n{F}python\n>>> add(1, 2)\n3\n{F}", {}, READS),
        (f"{F}python\n{READS}\n{F}\nFirst:\n{F}python\n!pip install numpy\n{F}", {}, READS),
        (f"<answer>\n{READS}\n</answer>", {}, READS),
        (f"Thus:\n[PYTHON]\n{READS}\n[/PYTHON]\nDone.", {}, READS),
        (f'<pre><code class="python">\n{READS}\n</code></pre>', {}, READS),
        (f"s = '{F}'\nprint(s)", {}, f"s = '{F}'\nprint(s)"),
        ("print('<answer>')", {}, "print('<answer>')"),
        ("print(1)</s>", {}, "print(1)"),
        ("print(1)", {}, "print(1)"),
        (f"print(1)\n{F}", {}, "print(1)\n"),
    ],
)  # fmt: skip
def test_which_block_is_the_program(answer: str, wants: dict[str, Any], text: str) -> None:
    assert program(answer, **wants).strip("\n") == text.strip("\n")


@given(
    st.lists(st.sampled_from(["a = 1", "", "  b = 2", "print(a)"]), min_size=1).filter(any),
    st.sampled_from([F, "~~~", F + "`"]),
)
def test_a_fenced_block_is_read_back(lines: list[str], fence: str) -> None:
    assert [block.text for block in blocks("\n".join([fence + "py", *lines, fence]))] == ["\n".join(lines)]


def test_what_tests_call() -> None:
    assert called("assert add(1, len(x)) == y.find(2)") == {"add", "len"}


def test_the_grader_takes_the_program_that_fits() -> None:
    reads = json.dumps({"inputs": ["3\n"], "outputs": ["3"]})
    calls = json.dumps({"inputs": ["1\n2"], "outputs": ["3"], "fn_name": "add"})
    solution = (
        f"{F}python\ndef add(a, b):\n    return a + b\n{F}\nFor example:\n{F}python\nprint(add(1, 1))\n{F}\n{F}\n2\n{F}"
    )
    assert CodeGrader()(f"{F}python\n{READS}\n{F}\nIt prints\n{F}\n3\n{F}", reads)
    assert CodeGrader()(solution, calls)
    assert CodeGrader()(solution, "assert add(2, 2) == 4")
    assert not CodeGrader()(solution, "assert add(2, 2) == 5")


def test_the_released_rule_stays_by_name() -> None:
    answer = f"{F}python\n{READS}\n{F}\nIt prints\n{F}\n3\n{F}"
    tests = json.dumps({"inputs": ["3\n"], "outputs": ["3"]})
    assert released_program(answer) == "3"
    assert released_program("print(3)") == released_program(f"{F}\nprint(3)") == ""
    assert released_program(f"<think>{F}\n1\n{F}</think>") == "1", "thinking or not"
    assert not resolve_grader("code-released")(answer, tests)
    assert resolve_grader("code-released")(f"{F}python\n{READS}\n{F}", tests)
    assert resolve_grader("code")(answer, tests)


ITSELF, BEHIND = "def f(x):\n    return x", "def f(s):\n    return s.split('</think>')[-1]"


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        (f"{F}python\n{ITSELF}\n{F}\nExample usage:\n{F}python\nprint(f(3))\n{F}", ITSELF),
        (f"{F}python\n{ITSELF}\n{F}\nThe line\n{F}python\ndef f(x):\n{F}\nbegins it", ITSELF),
        (f"{ITSELF}\n{F}\n\nIt gives x.", ITSELF + "\n"),
        (f"{F}python\n{BEHIND}\n{F}", BEHIND),
    ],
)
def test_an_example_an_excerpt_or_a_tag_in_a_string_is_not_the_program(answer: str, chosen: str) -> None:
    assert program(answer) == chosen


def test_functions_are_tested_as_a_module_and_scripts_are_run() -> None:
    guarded = "def add(a, b):\n    return a + b\nif __name__ == '__main__':\n    print(add(*map(int, input().split())))"
    calls = json.dumps({"inputs": ["1\n2"], "outputs": ["3"], "fn_name": "add"})
    reads = json.dumps({"inputs": ["1 2"], "outputs": ["3"]})
    for tests in ("assert add(1, 2) == 3", "if __name__ == '__main__':\n    assert add(1, 2) == 3", calls, reads):
        assert CodeGrader()(f"{F}python\n{guarded}\n{F}", tests)
    assert not CodeGrader()(f"{F}python\n{guarded}\n{F}", "if __name__ == '__main__':\n    assert add(1, 2) == 4")


def test_a_model_that_writes_the_tests_too_is_still_tested() -> None:
    tests = "def check(candidate):\n    assert candidate(1, 2) == 3\ncheck(add)"
    right = f"{F}python\ndef add(a, b):\n    return a + b\n{F}\nTests:\n{F}python\n{tests}\n{F}"
    assert CodeGrader()(right, tests)
    assert not CodeGrader()(right.replace("a + b", "a - b"), tests)
