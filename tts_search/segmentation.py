"""Token stream to reasoning steps: where a step ends, the same however the stream is cut into chunks.

A step ends with its *step token* (paper, section 3.1). The text between two steps is never changed, so the steps of a
trajectory always concatenate to the trajectory. This module knows token ids and their bytes; it knows no model, no
score and no tree.

The rules: of consecutive step tokens only the first ends a step; a run of them at the very beginning ends none; only
the thinking part is segmented, or the whole response of a model that does not think.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from tts_search.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Contains:
    r"""Every token whose text contains `text` is a step token (the paper: `".\n\n"` or `"\n\n"`)."""

    text: str


@dataclass(frozen=True, slots=True)
class Exact:
    r"""Only the one token that `text` encodes to is a step token (the released code: `".\n\n"`)."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Exactly these token ids are step tokens."""

    ids: frozenset[int]


StepRule = Contains | Exact | TokenIds | Callable[[str], bool]
"""What a step token is. A callable is asked once for the text of every token of the vocabulary."""

DEFAULT_STEP_RULE = Contains(".\n\n")
RELEASED_STEP_RULE = Exact(".\n\n")


class Vocabulary(Protocol):
    """What segmentation needs of a tokenizer."""

    @property
    def pieces(self) -> Sequence[bytes]:
        """The bytes of every token, indexed by id; concatenated they are the text."""
        ...

    @property
    def thinking(self) -> tuple[int, int] | None:
        """The ids of the tags that open and close the thinking part, None for a model without them."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of plain text, nothing added."""
        ...


class Phase(StrEnum):
    """Where in a response a token stands."""

    BEFORE = "before"  # the model has tags, and nothing but white space came yet
    THINKING = "thinking"
    PLAIN = "plain"  # a response that does not think: segmented whole
    ANSWER = "answer"  # behind the closing tag: not segmented


class State(NamedTuple):
    """What the past of a stream means for its next token; immutable, so that branches can share it."""

    phase: Phase
    since: int = 0  # bytes (text mode) or tokens since the last step token, or since the segmented part began
    tail: bytes = b""  # text mode: the end of the text, one byte shorter than the pattern
    boundary: bool = False  # the last token ended a step


class Segmenter:
    r"""Finds the step tokens of a token stream.

    Where the tokenizer never writes the rule's text as one token (SmolLM2 writes `.\n\n` as three), the same
    boundaries are found on the text and mapped back: the step token is the one that completes the text (`text_mode`).
    `step_ids` are all tokens that can end a step: an engine that stops at each never runs past a boundary.

    Raises:
        InvalidInputError: the rule is empty, matches no token, or names ids outside the vocabulary.
    """

    def __init__(self, vocabulary: Vocabulary, rule: StepRule | str | Collection[int] = DEFAULT_STEP_RULE) -> None:
        self.rule = as_rule(rule)
        self.thinking = vocabulary.thinking
        self._pieces = vocabulary.pieces
        self._pattern = b""
        self.step_ids = self._resolve(vocabulary)
        self._marks = self.step_ids if self.thinking is None else self.step_ids | {self.thinking[1]}

    @property
    def text_mode(self) -> bool:
        """Whether boundaries are found on the text because no single token carries them."""
        return bool(self._pattern)

    def start(self, prompt: Sequence[int] = ()) -> State:
        """The state in front of the response: a prompt may have opened the thinking part already."""
        if self.thinking is None:
            return State(Phase.PLAIN)
        opening, closing = self.thinking
        # Only at the very end of the prompt, where a chat template opens the assistant's turn: tags further in front
        # are earlier turns', or words of the question.
        last = next((token for token in reversed(prompt) if self.piece(token).strip()), None)
        if last == opening:
            return State(Phase.THINKING)
        if last == closing:
            return State(Phase.PLAIN)  # the prompt closed it: thinking is switched off
        return State(Phase.BEFORE)

    def advance(self, state: State, token: int) -> State:
        """The state behind `token`; its `boundary` says whether the token ended a step."""
        phase, since, tail, _ = state
        if phase is Phase.BEFORE:
            assert self.thinking is not None
            if token == self.thinking[0]:
                return State(Phase.THINKING)
            if not self.piece(token).strip():
                return State(Phase.BEFORE)
            phase = Phase.PLAIN
        if phase is Phase.ANSWER:
            return State(Phase.ANSWER)
        if phase is Phase.THINKING and self.thinking is not None and token == self.thinking[1]:
            return State(Phase.ANSWER)
        if not self._pattern:
            if token in self.step_ids:
                return State(phase, boundary=since > 0)
            return State(phase, since + 1)
        return self._advance_text(phase, since, tail, self.piece(token))

    def _advance_text(self, phase: Phase, since: int, tail: bytes, piece: bytes) -> State:
        window = tail + piece
        since += len(piece)
        keep = len(self._pattern) - 1
        tail = window[-keep:] if keep else b""
        found = window.rfind(self._pattern)
        if found < 0:
            return State(phase, since, tail)
        content = since - (len(window) - found)  # bytes between the last step token and this match
        return State(phase, 0, tail, boundary=content > 0)

    def scan(self, state: State, tokens: Sequence[int]) -> tuple[list[int], State]:
        """Positions just behind each step token among `tokens` (counted from 1), and the state behind them all.

        The same as one `advance` after another; tokens that can end nothing are passed over together.
        """
        ends: list[int] = []
        begin, count = 0, len(tokens)
        while begin < count and state.phase is Phase.BEFORE:
            state = self.advance(state, tokens[begin])
            begin += 1
            if state.boundary:
                ends.append(begin)
        marks = self._marks
        for place in [i for i in range(begin, count) if tokens[i] in marks]:
            if state.phase is Phase.ANSWER:
                break
            state = self.advance(self._pass_over(state, tokens[begin:place]), tokens[place])
            begin = place + 1
            if state.boundary:
                ends.append(begin)
        return ends, self._pass_over(state, tokens[begin:])

    def _pass_over(self, state: State, tokens: Sequence[int]) -> State:
        """The state behind tokens that can end nothing."""
        if not len(tokens):
            return state
        if state.phase is Phase.ANSWER:
            return State(Phase.ANSWER)
        if not self._pattern:
            return State(state.phase, state.since + len(tokens))
        text = b"".join([self.piece(token) for token in tokens])
        keep = len(self._pattern) - 1
        return State(state.phase, state.since + len(text), (state.tail + text)[-keep:] if keep else b"")

    def piece(self, token: int) -> bytes:
        """The bytes of a token, none for an id outside the vocabulary."""
        return self._pieces[token] if 0 <= token < len(self._pieces) else b""

    def _resolve(self, vocabulary: Vocabulary) -> frozenset[int]:
        rule = self.rule
        if isinstance(rule, TokenIds):
            outside = sorted(i for i in rule.ids if not 0 <= i < len(self._pieces))
            if outside or not rule.ids:
                raise InvalidInputError(
                    f"step-token ids must be a non-empty set of ids below {len(self._pieces)}, got {outside or 'none'}"
                )
            return rule.ids
        if isinstance(rule, Contains | Exact):
            return self._resolve_text(rule, vocabulary)
        ids = frozenset(i for i, piece in enumerate(self._pieces) if rule(piece.decode("utf-8", "replace")))
        if not ids:
            raise InvalidInputError(f"the step rule {rule!r} accepts no token of this vocabulary: no step would end")
        return ids

    def _resolve_text(self, rule: Contains | Exact, vocabulary: Vocabulary) -> frozenset[int]:
        if not rule.text:
            raise InvalidInputError('a step rule needs a text that ends steps, such as ".\\n\\n", got an empty one')
        pattern = rule.text.encode()
        if isinstance(rule, Exact):
            encoded = vocabulary.encode(rule.text)
            if len(encoded) == 1:
                return frozenset(encoded)
        else:
            ids = frozenset(i for i, piece in enumerate(self._pieces) if pattern in piece)
            running = set(vocabulary.encode(f"so it is{rule.text}Now"))
            if ids & running:  # in running text, and not only somewhere in the vocabulary
                return ids
        self._pattern = pattern
        return frozenset(i for i, piece in enumerate(self._pieces) if _can_complete(pattern, piece))


def _can_complete(pattern: bytes, piece: bytes) -> bool:
    """Whether the last byte of `pattern` can fall into `piece` with the rest of it in front."""
    return pattern in piece or any(piece.startswith(pattern[i:]) for i in range(1, len(pattern)))


def as_rule(rule: StepRule | str | Collection[int]) -> StepRule:
    """A rule as users may write it: a string means `Contains`, a collection of ints `TokenIds`."""
    if isinstance(rule, str):
        return Contains(rule)
    if isinstance(rule, Contains | Exact | TokenIds) or callable(rule):
        return rule
    if isinstance(rule, bytes) or not isinstance(rule, Collection) or not all(hasattr(i, "__index__") for i in rule):
        raise InvalidInputError(
            f"a step rule is a text, a set of token ids, or a function of a token's text, got {rule!r}"
        )
    return TokenIds(frozenset(map(int, rule)))


def rule_to_json(rule: StepRule) -> dict[str, Any]:
    """The form in which a head's config carries its rule; a callable has none."""
    match rule:
        case Contains(text):
            return {"contains": text}
        case Exact(text):
            return {"exact": text}
        case TokenIds(ids):
            return {"ids": sorted(ids)}
        case _:
            raise InvalidInputError(f"a callable step rule ({rule!r}) cannot be saved: save its token ids instead")


def rule_from_json(value: Any) -> StepRule:
    """Inverse of `rule_to_json`."""
    match value:
        case {"contains": str(text)}:
            return Contains(text)
        case {"exact": str(text)}:
            return Exact(text)
        case {"ids": list(ids)} if all(isinstance(i, int) for i in ids):
            return TokenIds(frozenset(ids))
        case _:
            raise InvalidInputError(
                f'a step rule is {{"contains": text}}, {{"exact": text}} or {{"ids": [...]}}, got {value!r}'
            )
