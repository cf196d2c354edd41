"""Programs graded by running tests, in the sandbox of `sandbox` (which says what that is no protection against).

A reference is JSON in LiveCodeBench's shape, `{"inputs": [...], "outputs": [...], "fn_name": null}`: texts on standard
input and what must be printed, or with a function's name its arguments, one JSON value a line, and the JSON result.
Any other reference is Python that must run to its end behind the program, such as asserts.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from tts_search.errors import InvalidInputError
from tts_search.grading.programs import called, defined, program, released_program
from tts_search.grading.sandbox import Limits, run_program

_LONGEST = 200_000  # characters of a program

_AS_MODULE = "solution"  # where functions are tested, what a program does as a script is not asked for
_CALL = """

def __call():
    import json, os, sys
    arguments = [json.loads(line) for line in sys.stdin.read().split("\\n") if line.strip()]
    out = os.dup(1)
    os.dup2(2, 1)  # what the function prints is no result
    owner = globals().get("Solution")
    function = getattr(owner(), {name!r}) if owner and hasattr(owner, {name!r}) else globals()[{name!r}]
    os.write(out, json.dumps(function(*arguments)).encode())

__call()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeGrader:
    """Whether the program in an answer passes every test: `CodeGrader()(answer, reference)`.

    The program is what `programs.program` finds: the last Python block that defines what the tests call, or reads what
    they write, or the whole answer where there is no fence. Tests with inputs and outputs are run one process each and
    cannot be cheated from inside; Python tests run in the program's own interpreter, where a program that looks for
    them can. Linux only. Threads may share it; there is nothing to close.

    Args:
        limits: of each run.
        released: whether the program is what LiveCodeBench's released evaluation takes: what stands between the last
            two lines with a fence, whatever it is.
    """

    limits: Limits = field(default_factory=Limits)
    released: bool = False

    def __call__(self, answer: str, reference: str) -> bool:
        """Run tests until the first failure.

        Raises:
            InvalidInputError: the reference holds no test, or other outputs than inputs.
            TTSError: this system cannot confine a program.
        """
        tests = _tests(reference)
        source = self._program(answer, tests)
        if not source.strip() or len(source) > _LONGEST:
            return False
        if isinstance(tests, str):
            mark = secrets.token_hex(16)  # so that leaving early is no success
            source = f"{source}\n\n__name__ = '__main__'\n{tests}\n\nprint({mark!r})\n"
            run = run_program(source, "", self.limits, name=_AS_MODULE)
            return run.exit_code == 0 and run.output.rstrip().endswith(mark)
        name, cases = tests
        source += "" if name is None else _CALL.format(name=name)
        return all(self._passes(source, given, wanted, is_call=name is not None) for given, wanted in cases)

    def _program(self, answer: str, tests: str | tuple[str | None, Any]) -> str:
        if self.released:
            return released_program(answer)
        if isinstance(tests, str):
            return program(answer, defines=called(tests) - defined(tests))
        name = tests[0]
        return program(answer, defines=(name, "Solution")) if name else program(answer, reads=True)

    def _passes(self, source: str, given: str, wanted: str, *, is_call: bool) -> bool:
        run = run_program(source, given, self.limits, name=_AS_MODULE if is_call else "__main__")
        if run.exit_code != 0:
            return False
        return _equal_json(run.output, wanted) if is_call else _equal_lines(run.output, wanted)


def _tests(reference: str) -> str | tuple[str | None, list[tuple[str, str]]]:
    """Python source, or a function's name and `(input, output)` texts."""
    if not reference.strip():
        raise InvalidInputError("the reference of a program is empty: give its tests")
    try:
        tests: Any = json.loads(reference)
    except ValueError:
        return reference
    if not isinstance(tests, dict) or not {"inputs", "outputs"} <= tests.keys():
        raise InvalidInputError(f'tests in JSON are {{"inputs": [...], "outputs": [...]}}: got {reference[:60]!r}')
    inputs, outputs = tests["inputs"], tests["outputs"]
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs) or not inputs:
        raise InvalidInputError("tests need as many outputs as inputs, and at least one of each")
    name = tests.get("fn_name")
    if name is not None and not (isinstance(name, str) and name.isidentifier()):
        raise InvalidInputError(f"fn_name must be a function's name or null: got {name!r}")
    return name, [(_text(given), _text(wanted)) for given, wanted in zip(inputs, outputs, strict=True)]


def _text(value: Any) -> str:
    """Tests as texts; a list of JSON values (arguments, or a result) is as good."""
    if isinstance(value, str):
        return value
    return "\n".join(map(json.dumps, value)) if isinstance(value, list) else json.dumps(value)


def _equal_json(given: str, wanted: str) -> bool:
    try:
        return json.loads(given) == json.loads(wanted)
    except (ValueError, RecursionError):  # no JSON, or lists in lists without end
        return False


def _equal_lines(given: str, wanted: str) -> bool:
    """Line by line, white space at the ends aside; numbers as numbers."""
    ours, theirs = given.strip().splitlines(), wanted.strip().splitlines()
    return len(ours) == len(theirs) and all(
        _equal_words(line.split(), other.split()) for line, other in zip(ours, theirs, strict=True)
    )


def _equal_words(ours: list[str], theirs: list[str]) -> bool:
    return len(ours) == len(theirs) and all(
        a == b or _number(a) == _number(b) is not None for a, b in zip(ours, theirs, strict=True)
    )


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text.replace("_", "?"))  # which reads 1_0 as 10
    except InvalidOperation:
        return None
    return None if number.is_nan() else number  # comparing with a signalling one raises
