r"""How each family of process reward models wants a solution written, and where it reads the score of a step.

A family turns a question and its steps into token ids and one position per step; the score there is the sigmoid of the
difference of two outputs (which is their softmax), or of one. It knows a tokenizer; it runs no model.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tts_search.errors import InvalidInputError, ScorerError

Head = Literal["language model", "classifier", "value"]
"""What stands on the backbone: the rows of the vocabulary, a two-layer classifier, one linear layer to one number."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A solution as a model reads it; `positions[i]` is the index of the token at which step `i` is scored."""

    token_ids: tuple[int, ...]
    positions: tuple[int, ...]


class Family(ABC):
    """One family's protocol.

    `columns` are the outputs that speak for and against a step (the second is None where there is but one output).
    `aggregation` is the published way from step scores to a trajectory's. `as_written` asks for steps with the white
    space around them, else they come without.
    """

    aggregation: ClassVar[str]
    head: ClassVar[Head] = "language model"
    as_written: ClassVar[bool] = False
    columns: tuple[int, int | None]

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @abstractmethod
    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        """Token ids of a question with its steps, and where each step is scored; at least one step is given."""

    def _ids(self, text: str, *, special: bool) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=special)

    def _single(self, text: str) -> int:
        """The id of a text that must be one token, as it is written within a line."""
        ids = self._ids(text, special=False)
        if len(ids) != 1:
            raise InvalidInputError(
                f"{type(self).__name__} needs {text!r} to be one token, but this tokenizer makes {len(ids)} of it: "
                "the checkpoint is of another family (pass family=...)"
            )
        return ids[0]

    def _located(self, pieces: Sequence[tuple[str, bool]], *, special: bool, tag: int) -> Encoded:
        """Tokenize pieces of text as one; those marked True end with the step tag, which must have stayed one token.

        By character offsets, so that the same characters elsewhere in the text are no steps.
        """
        ends, length = set[int](), 0
        for piece, tagged in pieces:
            length += len(piece)
            if tagged:
                ends.add(length)
        encoded = self.tokenizer(
            "".join(piece for piece, _ in pieces), add_special_tokens=special, return_offsets_mapping=True
        )
        ids = tuple(encoded["input_ids"])
        positions = tuple(
            i for i, (a, b) in enumerate(encoded["offset_mapping"]) if b > a and b in ends and ids[i] == tag
        )
        if len(positions) != len(ends):
            raise ScorerError(
                f"{type(self).__name__} found {len(positions)} step tags for {len(ends)} steps: the tokenizer joined a "
                "tag to the text beside it"
            )
        return Encoded(ids, positions)


class QwenMathPRM(Family):
    r"""Qwen2.5-Math-PRM-7B and -72B: a chat whose answer has `<extra_0>` behind every step, scored at that token.

    The classifier's second label is "correct" (model card; "The Lessons of Developing Process Reward Models").
    """

    aggregation = "product"
    head = "classifier"
    columns = (1, 0)
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    separator = "<extra_0>"

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self.tag = self._single(self.separator)

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        own = [step.replace(self.separator, "") for step in steps]
        text = self.tokenizer.apply_chat_template(
            [
                {"role": "system", "content": self.system},
                {"role": "user", "content": question.replace(self.separator, "")},
                {"role": "assistant", "content": self.separator.join(own) + self.separator},
            ],
            tokenize=False,
        )
        ids = tuple(self._ids(text, special=False))
        return Encoded(ids, tuple(i for i, token in enumerate(ids) if token == self.tag))


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
        """White space with four newlines or more in it is two newlines."""
        return re.sub(r"\s+", lambda space: "\n\n" if space[0].count("\n") >= 4 else space[0], text).strip()


FAMILIES: dict[str, type[Family]] = {
    "qwen-math-prm": QwenMathPRM,
    "math-shepherd": MathShepherd,
    "skywork-prm": SkyworkPRM,
    "rlhflow": RLHFlowPRM,
    "versaprm": VersaPRM,
}

_ARCHITECTURES = {"Qwen2ForProcessRewardModel": "qwen-math-prm", "Qwen2ForPrmModel": "skywork-prm"}
_NAMES = {
    r"qwen2\.5-math-prm": "qwen-math-prm",
    r"math-shepherd": "math-shepherd",
    r"skywork-o1-open-prm": "skywork-prm",
    r"prm-(mistral|deepseek)-data": "rlhflow",
    r"versaprm": "versaprm",
}


def family_of(config: dict[str, Any], name: str) -> str:
    """The name of a checkpoint's family, by the architecture in its `config.json`, else by its name.

    Raises:
        InvalidInputError: neither tells, or it is an outcome reward model or a generative judge.
    """
    for architecture in config.get("architectures") or ():
        if architecture in _ARCHITECTURES:
            return _ARCHITECTURES[architecture]
        if architecture.endswith(("ForRewardModel", "ForSequenceClassification")):
            raise InvalidInputError(
                f"{name!r} is an outcome reward model ({architecture}): use OutcomeRewardModel.from_pretrained"
            )
    for known in (name, str(config.get("_name_or_path", ""))):
        if re.search(r"thinkprm|genprm", known, re.IGNORECASE):
            raise InvalidInputError(f"{name!r} judges in words: use ThinkPRM or GenPRM of tts_search.scorers.judge")
        for pattern, family in _NAMES.items():
            if re.search(pattern, known, re.IGNORECASE):
                return family
    raise InvalidInputError(
        f"which family of process reward models is {name!r}? Its architecture ({config.get('architectures')}) and its "
        f"name do not say: pass family=, one of {', '.join(FAMILIES)}"
    )
