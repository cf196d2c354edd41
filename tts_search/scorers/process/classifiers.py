"""Families with a head of their own on the hidden states: two labels, one number, or several numbers at each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tts_search.errors import InvalidInputError
from tts_search.scorers.process.family import Encoded, Family


class QwenMathPRM(Family):
    r"""Qwen2.5-Math-PRM-7B and -72B: a chat whose answer has `<extra_0>` behind every step, scored at that token.

    The classifier's second label is "correct" (model card; "The Lessons of Developing Process Reward Models").
    """

    aggregation = "product"
    head = "classifier"
    columns = (1, 0)
    system: ClassVar[str | None] = "Please reason step by step, and put your final answer within \\boxed{}."
    separator = "<extra_0>"

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self.tag = self._single(self.separator)

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        own = [step.replace(self.separator, "") for step in steps]
        turns = [] if self.system is None else [{"role": "system", "content": self.system}]
        turns += [
            {"role": "user", "content": question.replace(self.separator, "")},
            {"role": "assistant", "content": self.separator.join(own) + self.separator},
        ]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False)
        ids = tuple(self._ids(text, special=False))
        return Encoded(ids, tuple(i for i, token in enumerate(ids) if token == self.tag))


class SkyworkPRM(Family):
    """Skywork-o1-Open-PRM: a line ends a step, a blank one too; a value head scores its newline (their inference code).

    Tokenized line by line. A step of several lines is scored at the end of its last that is not blank.
    """

    aggregation = "mean"
    head = "value"
    columns = (0, None)
    as_written = True

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self.newline = self._ids("\n", special=False)[-1]
        if not tokenizer.bos_token:
            raise InvalidInputError("SkyworkPRM begins with the tokenizer's bos_token, and this tokenizer names none")

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        ids = self._ids(f"{self.tokenizer.bos_token}{question}\n", special=False)
        positions: list[int] = []
        for step in steps:
            body = step.rstrip("\n")
            for line in body.split("\n"):
                ids += [*(self._ids(line, special=False) if line else ()), self.newline]
            positions.append(len(ids) - 1)
            ids += [self.newline] * (len(step) - len(body) - 1)  # blank lines
        return Encoded(tuple(ids), tuple(positions))


class ReasonFluxPRM(QwenMathPRM):
    """ReasonFlux-PRM-7B: as Qwen2.5-Math-PRM, without a system turn of ours (their README).

    No aggregation is published for step scores: a chain is worth its weakest step.
    """

    aggregation = "min"
    system = None


class ActPRM(QwenMathPRM):
    """ActPRM and ActPRM-X: as Qwen2.5-Math-PRM; several heads, of whose probabilities the mean counts (ActivePRM).

    No aggregation is published: a chain is worth its weakest step.
    """

    aggregation = "min"
    head = "ensemble"
    columns = (0, None)


class TokenClassifierPRM(Family):
    r"""What TRL's `PRMTrainer` makes: a token classifier whose label 1 means right, read where a step's separator ends.

    Written as it is trained (`PRMTrainer.tokenize_row`): question and steps are tokenized apart, the separator behind
    every step. TRL's separator is a line break unless its user says otherwise; no aggregation is published: a chain is
    worth its weakest step.
    """

    aggregation = "min"
    head = "token classifier"
    columns = (1, 0)

    def __init__(self, tokenizer: Any, separator: str = "\n") -> None:
        super().__init__(tokenizer)
        self.separator = separator
        self._end = self._ids(separator, special=False)
        if not self._end:
            raise InvalidInputError(f"separator={separator!r} is no token to this tokenizer, so no step can be scored")

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        bos = self.tokenizer.bos_token_id
        ids = [*(() if bos is None else (bos,)), *self._ids(question, special=False)]
        positions: list[int] = []
        for step in steps:
            ids += [*self._ids(step, special=False), *self._end]
            positions.append(len(ids) - 1)
        return Encoded(tuple(ids), tuple(positions))


class PurePRM(TokenClassifierPRM):
    r"""PURE-PRM-7B: a token classifier of TRL's, read at `\n`.

    Their reward p(right) - p(wrong) in [-1, 1] is 2 s - 1 of a score s here. A trajectory is worth their weighted sum
    of rewards, which is close to the least (PURE, temperature 0.1), put into [0, 1] in the same way.
    """

    aggregation = "soft_min"


class UniversalPRM(Family):
    """Universal-PRM-7B: a number for the question and the solution up to a step, read at the end-of-text token.

    Their model card asks step by step. The reference answer that it may be given is said to be missing.
    """

    aggregation = "last"
    head = "sequence value"
    columns = (0, None)
    apart = True
    system = "You are a helpful assistant."
    reference = "\n\n###\n\nThe reference answer is: There is no reference answer for this question."

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        turns = [{"role": "system", "content": self.system}, {"role": "user", "content": question + self.reference}]
        asked = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        answer = "".join(f"{step}\n\n" for step in steps)
        ids = (*self._ids(asked, special=False), *self._ids(answer, special=True), self.tokenizer.eos_token_id)
        return Encoded(ids, (len(ids) - 1,))


class ReasonFluxSmallPRM(Family):
    """ReasonFlux-PRM-1.5B: a number for the question and the solution up to a step, one behind the other as plain text.

    Read at the last token (their README); the head is a file of its own beside a language model, `reward_head.pt`.
    """

    aggregation = "last"
    head = "reward_head.pt"
    columns = (0, None)
    as_written = True
    apart = True

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        ids = tuple(self._ids(question + "".join(steps).rstrip(), special=True))
        return Encoded(ids, (len(ids) - 1,))
