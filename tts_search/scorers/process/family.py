"""What a family of process reward models is: how it wants a solution written, and where it reads the score of a step.

A family turns a question and its steps into token ids and one position per step; the score there is the sigmoid of the
difference of two outputs (which is their softmax), or of one. It knows a tokenizer; it runs no model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tts_search.errors import InvalidInputError, ScorerError

Head = Literal[
    "language model", "classifier", "value", "token classifier", "ensemble", "sequence value", "reward_head.pt"
]
"""What stands on the backbone, and how it is stored: see `tts_search.scorers.reward_heads`."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A solution as a model reads it; `positions[i]` is the index of the token at which step `i` is scored."""

    token_ids: tuple[int, ...]
    positions: tuple[int, ...]


class Family(ABC):
    """One family's protocol.

    `columns` are the outputs that speak for and against a step (the second is None where there is but one output).
    `aggregation` is the published way from step scores to a trajectory's. `as_written` asks for steps with the white
    space around them, else they come without. `apart` says that each step is read at the end of a text of its own, made
    of the steps up to it: `encode` then gives the place of the last step alone.
    """

    aggregation: ClassVar[str]
    head: ClassVar[Head] = "language model"
    as_written: ClassVar[bool] = False
    apart: ClassVar[bool] = False
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
