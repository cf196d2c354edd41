r"""Mathematical answers by math-verify, in processes that can be killed.

math-verify's own timeout needs signals, which threads have not, and no signal interrupts a power tower inside the
integer arithmetic (`9^{9^{9^9}}`). So each answer is judged in a process of its own under limits that the kernel keeps.
It knows no model: an answer is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from types import TracebackType
from typing import Self

from tts_search.errors import InvalidInputError, MissingDependencyError
from tts_search.grading.answers import CLOSE, after_thinking, last_boxed, reference_of
from tts_search.grading.choice import multiple_choice, option_alone
from tts_search.grading.late import late
from tts_search.grading.math_judges import Judges
from tts_search.grading.plain import in_words, key, latex, name_of, quantity, sides, unnamed
from tts_search.grading.reading import final_expression, final_words

_BOUND = late(r"\s*(?:\\(?:ge|geq|le|leq|gt|lt|ne|neq)(?![A-Za-z])|[<>])")
_COUNTS = late(
    r"(?<![\d.])(\d[\d,]*(?:\.\d+)?)\s*(?:\\[ ,;])?(?:\\text\s*\{\s*)?(?!or\b)(?:[A-Za-z]{3,20}|[\u4e00-\u9fff])"
)
_VERBS = ("does", "do", "is", "are", "has", "undefined", "no", "none")
_LONGEST = 4_000  # characters of an answer that are read; no gradeable answer is longer


class MathGrader:
    r"""Whether two mathematical expressions mean the same: `MathGrader()(r"So \boxed{\frac12}.", "0.5")`.

    What counts is what `reading.final_expression` finds: the last `\boxed{...}` behind the thinking, else what is
    declared as the answer, else the last expression. Equal texts and plain numbers are compared without a process; 5 km
    is 5000 m and not 5 m. An answer that cannot be judged within the limits is wrong, and so is a sum that does not
    hold (`8 = 7`).

    Any number of threads may call it. Processes begin with the first answer that needs them (some seconds, once),
    outlive every hostile answer, and end with `close()`, with the `with` block, or with the program.

    Args:
        require_boxed: without a box an answer is wrong. For rewards: loose numbers pass otherwise.
        require_thought: what no `</think>` precedes is no answer. For whole responses of models that think.
        cpu_seconds: limit of one judgement, in seconds of processor time: a busy machine changes no grade.
        memory_mb: limit of one judgement's memory.
        workers: processes at most; by default one a processor, up to 8.

    Raises:
        MissingDependencyError: math-verify is not installed.
    """

    def __init__(
        self,
        *,
        require_boxed: bool = False,
        require_thought: bool = False,
        cpu_seconds: float = 5.0,
        memory_mb: int = 2048,
        workers: int | None = None,
    ) -> None:
        if not cpu_seconds > 0:
            raise InvalidInputError(f"cpu_seconds must be positive, got {cpu_seconds!r}")
        for name, value in (("memory_mb", memory_mb), ("workers", workers)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InvalidInputError(f"{name} must be a whole number of at least 1, got {value!r}")
        if find_spec("math_verify") is None:
            raise MissingDependencyError("grading mathematics needs math-verify: pip install 'tts-search[eval]'")
        self._require_boxed, self._require_thought = require_boxed, require_thought
        self._judges = Judges(cpu_seconds=cpu_seconds, memory_mb=memory_mb, workers=workers)

    def __call__(self, answer: str, reference: str) -> bool:
        """Whether `answer` (a whole response or its end) means the same as `reference` (LaTeX or plain, no box needed).

        Of a reference that is a worked solution its final answer counts, see `reference_of`.

        Raises:
            InvalidInputError: the reference is empty.
        """
        gold = latex(reference_of(reference))
        if not gold:
            raise InvalidInputError("the reference answer is empty")
        if (words := in_words(gold)) is not None and self._says(answer, words):
            return True
        if (
            (option := option_alone(gold))
            and len(gold) < 4
            and not self._require_boxed
            and multiple_choice.letter(answer) == option
        ):
            return True
        said = self._said(answer)
        return said is not None and bool(same(gold, latex(said), self._judges))

    def grade_many(self, pairs: Iterable[tuple[str, str]]) -> list[bool]:
        """Grade `(answer, reference)` pairs, in their order, on all workers at once."""
        with ThreadPoolExecutor(self._judges.workers) as threads:
            return list(threads.map(lambda pair: self(*pair), pairs))

    def close(self) -> None:
        """End the processes. Calling it twice is harmless; grading after it is an error."""
        self._judges.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _says(self, answer: str, words: str) -> bool:
        """Whether an answer is these words, such as a day of the week, or a sentence that comes down to them."""
        if self._require_boxed or self._require_thought:
            said = self._said(answer)
            return said is not None and in_words(latex(said)) == words
        found = final_words(answer)
        if found is None:
            return False
        if in_words(latex(found[0])) == words:
            return True
        said = " ".join(found[0].casefold().split()).rstrip(".!。")
        if words in ("yes", "no", "true", "false"):
            return re.match(rf"{words}[,.;: ]", said) is not None
        behind = r"(?:is|are|was|were)\s(?:(?:the|an?)\s)?" if words.split()[0] not in _VERBS else ""
        return re.search(rf"\b{behind}{re.escape(words)}$", said) is not None

    def _said(self, answer: str) -> str | None:
        """The expression of an answer that is graded."""
        if self._require_thought and CLOSE not in answer:
            return None
        said = last_boxed(after_thinking(answer)) if self._require_boxed else final_expression(answer)
        return said if said and len(said) <= _LONGEST else None


def same(gold: str, given: str, judges: Judges | None) -> bool | None:
    """Whether two expressions in LaTeX are equal: as texts, as quantities, else by math-verify where there are judges.

    None where it could not be told within the limits.
    """
    if given == gold:
        return True
    if (_BOUND.match(gold) is None and _BOUND.match(given)) or _counted(gold) != _counted(given):
        return False  # 7 is no "more than 7", and 7 apples and 3 pears are not 7 apples
    names = {name_of(gold), name_of(given)} - {None}
    ours, theirs = quantity(unnamed(gold)), quantity(unnamed(given))
    if ours and theirs and len(names) < 2:  # x = 5 is 5, and not y = 5
        return ours.agrees(theirs) or (ours.is_near(theirs) and _judge(gold, given, judges))
    return _judge(gold, given, judges)


def _counted(text: str) -> list[str] | None:
    """The numbers of a text that counts several things: `12 boys and 15 girls`."""
    found = _COUNTS.findall(text)
    return found if len(found) > 1 and not quantity(text) else None


def _judge(gold: str, given: str, judges: Judges | None) -> bool | None:
    if judges is None:
        return key(gold) == key(given)
    parts = sides(given)
    return judges.judge(gold, f"\\boxed{{{given}}}", parts if len(parts) > 1 else ())
