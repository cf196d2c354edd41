r"""Families that are language models: the score of a step is what they say of two words, `+` and `-`, at its end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tts_search.errors import InvalidInputError, ScorerError
from tts_search.scorers.process.family import Encoded, Family


class MathShepherd(Family):
    """math-shepherd-mistral-7b-prm: `Step 1: ... ки` a line, scored at `ки` as `+` against `-` (model card)."""

    aggregation = "min"
    separator = "ки"

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self.tag = self._ids(f" {self.separator}", special=False)[-1]
        if tokenizer.decode([self.tag]).strip() != self.separator:
            raise InvalidInputError(
                f"MathShepherd needs {self.separator!r} to be one token, but this tokenizer has no such token: the "
                "checkpoint is of another family (pass family=...)"
            )
        good, bad = self._ids("+ -", special=False)[-2:]
        self.columns = (good, bad)

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        pieces = [(self._clean(question) + " ", False)]
        for number, step in enumerate(steps, start=1):
            text = self._clean(step)
            label = "" if re.match(r"Step \d+:", text) else f"Step {number}: "
            pieces += [(f"{label}{text} {self.separator}", True), ("\n", False)]
        return self._located(pieces[:-1], special=True, tag=self.tag)

    def _clean(self, text: str) -> str:
        return re.sub(rf"(?<!\w){self.separator}(?!\w)", "", text)


class MathPSA(Family):
    r"""Math-PSA (OpenR): `Step 1: ...` and ` \n\n\n\n\n` behind every step, scored there as ` +` against ` -`.

    None of its authors' aggregations is the default; a chain is worth its weakest step, as with Math-Shepherd.
    """

    aggregation = "min"
    separator = " \n\n\n\n\n"

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self.tag = self._single(self.separator)
        self.columns = (self._single(" +"), self._single(" -"))

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        pieces = [(_squeezed(question, 5) + " ", False)]
        for number, step in enumerate(steps, start=1):
            text = _squeezed(step, 5)
            label = "" if re.match(r"Step \d+:", text) else f"Step {number}: "
            pieces += [(f"{label}{text}{self.separator}", True), (" ", False)]
        return self._located(pieces, special=True, tag=self.tag)


class RLHFlowPRM(Family):
    """Llama3.1-8B-PRM-Mistral-Data and -Deepseek-Data: one user turn a step, each answered by `+` (RLHFlow, math-rm).

    Scored in front of the answer, where the model says `+` or `-`. The first turn holds the question too.
    """

    aggregation = "mean"
    good = "+"

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self.columns = (self._single(self.good), self._single("-"))

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        good = {"role": "assistant", "content": self.good}
        asked = [{"role": "user", "content": step} for step in (f"{question} {steps[0]}", *steps[1:])]
        # Where in the text each answer begins. The turns in front of a step are stood in for by a short one: written
        # out anew for each step they would take time in the square of their number.
        short = {"role": "user", "content": "?"}
        written = len(self._written([short], open_answer=True))
        end = len(self._written(asked[:1], open_answer=True))
        answers = {end}
        for turn in asked[1:]:
            end += len(self._written([short, good, turn], open_answer=True)) - written
            answers.add(end)
        text = self._written([turn for user in asked for turn in (user, good)], open_answer=False)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = tuple(encoded["input_ids"])
        starts = (i for i, (a, b) in enumerate(encoded["offset_mapping"]) if b > a and a in answers)
        positions = tuple(i - 1 for i in starts if ids[i] == self.columns[0])
        if len(positions) != len(steps):
            raise ScorerError(
                f"RLHFlowPRM found {len(positions)} answers for {len(steps)} steps: the chat template of this "
                "tokenizer does not write turns one behind the other"
            )
        return Encoded(ids, positions)

    def _written(self, turns: list[dict[str, str]], *, open_answer: bool) -> str:
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=open_answer)


class VersaPRM(Family):
    r"""VersaPRM: every step ends with ` \n\n\n\n`, scored at that token as `+` against `-` (model card)."""

    aggregation = "min"
    separator = " \n\n\n\n"

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self.tag = self._single(self.separator)
        self.columns = (self._single("+"), self._single("-"))

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        pieces = [(self._clean(question) + " \n\n", False)]
        pieces += [(self._clean(step) + self.separator, True) for step in steps]
        return self._located(pieces, special=True, tag=self.tag)

    def _clean(self, text: str) -> str:
        return _squeezed(text, 4)


def _squeezed(text: str, newlines: int) -> str:
    """White space with so many newlines or more in it, which is a step tag, becomes two newlines."""
    return re.sub(r"\s+", lambda space: "\n\n" if space[0].count("\n") >= newlines else space[0], text).strip()
