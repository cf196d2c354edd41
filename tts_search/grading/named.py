"""Graders by name, for data sets, configurations and the command line; and the plainest of them, the exact match."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping

from tts_search.errors import InvalidInputError
from tts_search.grading import Grader
from tts_search.grading.answers import after_thinking, last_boxed


def exact_match(answer: str, reference: str) -> bool:
    r"""Whether the answer is the reference, letter by letter but for white space and Unicode forms.

    Compared is the last `\boxed{...}` of the answer, or all of it where there is none, without the thinking. An empty
    answer is always wrong.
    """
    said = after_thinking(answer)
    box = last_boxed(said)
    given = "".join((said if box is None else box).split())
    # No character vanishes when it is decomposed. What is too long is not normalized, which takes time in the square
    # of a run of accents.
    if not 0 < len(given) <= len(unicodedata.normalize("NFKD", reference)):
        return False
    return _folded(said if box is None else box) == _folded(reference)


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _math() -> Grader:
    from tts_search.grading.math import MathGrader

    return MathGrader()


def _math_boxed() -> Grader:
    from tts_search.grading.math import MathGrader

    return MathGrader(require_boxed=True)


def _choice() -> Grader:
    from tts_search.grading.choice import multiple_choice

    return multiple_choice


def _choice_released() -> Grader:
    from tts_search.grading.choice import released_choice

    return released_choice


def _code() -> Grader:
    from tts_search.grading.code import CodeGrader

    return CodeGrader()


def _code_released() -> Grader:
    from tts_search.grading.code import CodeGrader

    return CodeGrader(released=True)


def _puzzle() -> Grader:
    from tts_search.embedded.puzzles import grade, parse_question

    return lambda answer, reference: grade(after_thinking(answer), parse_question(reference))


GRADERS: Mapping[str, Callable[[], Grader]] = {
    "math": _math,  # math-verify, in processes
    "exact": lambda: exact_match,
    "choice": _choice,  # the last letter that is declared
    "puzzle": _puzzle,  # number puzzles, whose reference is the question itself
    "code": _code,  # tests in a sandbox
    "math-boxed": _math_boxed,  # as "math", and without a box an answer is wrong: for rewards
    "choice-released": _choice_released,  # the first letter, as the released script reads C-Eval
    "code-released": _code_released,  # what stands between the last two fences, as LiveCodeBench takes it
}


def resolve_grader(name: str) -> Grader:
    """A new grader of that name. What it holds open, if anything, ends with its `close()`.

    Raises:
        InvalidInputError: there is no such name.
    """
    if name not in GRADERS:
        raise InvalidInputError(f"unknown grader {name!r}: choose from {', '.join(GRADERS)}, or pass a function")
    return GRADERS[name]()
