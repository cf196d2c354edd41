r"""The published benchmarks: where each lies on the Hugging Face hub, and how a row of it becomes a problem.

A recipe reads the rows of the published schema wherever they come from, the hub or a local copy. It loads nothing.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tts_search.errors import InvalidInputError
from tts_search.grading.answers import MARK, reference_of

Values = Mapping[str, Any]

BOXED = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."
CHOICE = (
    "以下是中国考试的单项选择题，请选出其中的正确答案。\n\n{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\n\n"
    "请一步一步思考，最后一行写：答案：X，其中 X 是正确选项的字母。"
)
PROGRAM = (
    "{question}\n\nWrite a Python program that reads from standard input and writes to standard output. Put all of it "
    "into one block of code:\n\n```python\n# your program\n```"
)
FUNCTION = "{question}\n\nComplete this code, and put all of it into one block of code:\n\n```python\n{starter}\n```"
_LARGEST_TESTS = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One published data set.

    `read` makes `(question, reference)` from a row; `columns` are those it needs, `ids` those that may name a row.
    `files`, for a set that is files rather than a loadable data set, are its files by release. `dated` is the column
    of a problem's date (ISO), where there is one.
    """

    hub: str
    split: str
    grader: str
    read: Callable[[Values], tuple[str, str]]
    columns: tuple[str, ...]
    config: str | None = None
    per_subject: bool = False
    ids: tuple[str, ...] = ("id", "unique_id", "question_id")
    dated: str | None = None
    files: Mapping[str, tuple[str, ...]] | None = None


def _boxed(question: str, answer: str = "answer") -> Callable[[Values], tuple[str, str]]:
    return lambda row: (BOXED.format(question=row[question]), number(row[answer]))


def number(value: Any) -> str:
    """An answer as text; whole numbers without their `.0`, which AMC's have."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _gsm8k(row: Values) -> tuple[str, str]:
    worked = str(row["answer"])
    if MARK not in worked:
        raise InvalidInputError(f"GSM8K's answer has no {MARK!r}")
    return BOXED.format(question=row["question"]), reference_of(worked).replace(",", "")


def _ceval(row: Values) -> tuple[str, str]:
    if not str(row["answer"]).strip():
        raise InvalidInputError("C-Eval's test split has no answers: use the val split")
    return CHOICE.format(**{name: row[name] for name in ("question", *"ABCD")}), str(row["answer"])


def _livecodebench(row: Values) -> tuple[str, str]:
    tests = _tests(row["public_test_cases"]) + _tests(row["private_test_cases"])
    name = json.loads(row.get("metadata") or "{}").get("func_name")
    reference = {"inputs": [t["input"] for t in tests], "outputs": [t["output"] for t in tests], "fn_name": name}
    starter = str(row.get("starter_code") or "").strip()
    prompt = FUNCTION.format(question=row["question_content"], starter=starter) if starter else None
    return prompt or PROGRAM.format(question=row["question_content"]), json.dumps(reference)


def _tests(text: str) -> list[dict[str, str]]:
    """Tests as JSON, or as the published file packs them: base64, zlib, and a pickle of the JSON text."""
    try:
        return json.loads(text)
    except ValueError:
        packed = zlib.decompressobj().decompress(base64.b64decode(text), _LARGEST_TESTS)
        return json.loads(_TextOnly(io.BytesIO(packed)).load())


class _TextOnly(pickle.Unpickler):
    """Unpickles texts and nothing that would need a class or a function: no code can run."""

    def find_class(self, module: str, name: str) -> Any:
        raise InvalidInputError(
            f"the tests hold {module}.{name}, where only text belongs: the file is not to be trusted"
        )


_LCB_FILES = ("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl", "test6.jsonl")

BENCHMARKS: Mapping[str, Benchmark] = {
    "aime24": Benchmark(
        hub="HuggingFaceH4/aime_2024", split="train", grader="math", columns=("problem", "answer"),
        read=_boxed("problem"),
    ),
    "aime25": Benchmark(
        hub="math-ai/aime25", split="test", grader="math", columns=("problem", "answer"), read=_boxed("problem")
    ),
    "math500": Benchmark(
        hub="HuggingFaceH4/MATH-500", split="test", grader="math", columns=("problem", "answer"),
        read=_boxed("problem"), ids=("unique_id",),
    ),
    "gsm8k": Benchmark(
        hub="openai/gsm8k", config="main", split="test", grader="math", columns=("question", "answer"), read=_gsm8k
    ),
    "amc": Benchmark(
        hub="AI-MO/aimo-validation-amc", split="train", grader="math", columns=("problem", "answer"),
        read=_boxed("problem"),
    ),
    "ceval": Benchmark(
        hub="ceval/ceval-exam", split="val", grader="choice", columns=("question", "A", "B", "C", "D", "answer"),
        read=_ceval, per_subject=True, ids=(),
    ),
    "livecodebench": Benchmark(
        hub="livecodebench/code_generation_lite", split="test", grader="code", read=_livecodebench,
        columns=("question_content", "public_test_cases", "private_test_cases", "question_id"), ids=("question_id",),
        dated="contest_date", files={f"v{n}": _LCB_FILES[:n] for n in range(1, 7)},
    ),
}  # fmt: skip
