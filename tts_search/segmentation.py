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
from typing import Any, NamedTuple, Protocol, cast

from tts_search.errors import InvalidInputError
from tts_search.thinking import Ids, Tag, ThinkingTags, can_complete, check_tags, tag_ids


@dataclass(frozen=True, slots=True)
class Contains:
    r"""Every token whose text contains `text`, or one of several, is a step token (the paper: `".\n\n"` or `"\n\n"`).

    With `at_start` a step token at the very beginning of the segmented part ends a step too (see `Exact`).
    """

    text: str | tuple[str, ...]
    at_start: bool = False

    def __repr__(self) -> str:
        """As it would be typed."""
        return f"Contains(text={self.text!r}{', at_start=True' * self.at_start})"


@dataclass(frozen=True, slots=True)
class Exact:
    r"""Only the one token that `text` encodes to is a step token (the released code: `".\n\n"`).

    With `at_start` a step token at the very beginning of the segmented part ends a step too: the released code looks at
    the whole text, where the template's `<think>\n` stands in front of it. The paper's text leaves it out.
    """

    text: str
    at_start: bool = False

    def __repr__(self) -> str:
        """As it would be typed."""
        return f"Exact(text={self.text!r}{', at_start=True' * self.at_start})"


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Exactly these token ids are step tokens."""

    ids: frozenset[int]


StepRule = Contains | Exact | TokenIds | Callable[[str], bool]
"""What a step token is. A callable is asked once for the text of every token of the vocabulary."""

AUTO = "auto"
"""Says that the rule is to be found out from what the model writes."""

DEFAULT_STEP_RULE = Contains(".\n\n")
RELEASED_STEP_RULE = Exact(".\n\n")
RELEASED = "released"
RELEASED_CODE_RULE = Exact(".\n\n", at_start=True)
"""To the letter: a step token right behind the template's `<think>\\n` is a step."""


class Vocabulary(Protocol):
    """What segmentation needs of a tokenizer."""

    @property
    def pieces(self) -> Sequence[bytes]:
        """The bytes of every token, indexed by id; concatenated they are the text."""
        ...

    @property
    def thinking(self) -> tuple[Ids, Ids] | None:
        """The tags that open and close the thinking part, each an id or several; None for a model without them."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of plain text, nothing added."""
        ...


class Phase(StrEnum):
    """Where in a response a token stands."""

    BEFORE = "before"  # the model has tags, and nothing but white space came yet
    THINKING = "thinking"
    PLAIN = "plain"  # no thinking part, or none yet: segmented like one
    ANSWER = "answer"  # behind the closing tag: not segmented


class State(NamedTuple):
    """What the past of a stream means for its next token; immutable, so that branches can share it."""

    phase: Phase
    since: int = 0  # bytes (text mode) or tokens since the last step token, or since the segmented part began
    tail: bytes = b""  # the end of the text, where a step token or a tag may be of several tokens
    boundary: bool = False  # the last token ended a step
    found: int = 0  # steps that the rule has ended so far


class Segmenter:
    r"""Finds the step tokens of a token stream, and the end of its thinking.

    Where the tokenizer never writes the rule's text as one token (SmolLM2 writes `.\n\n` as three), the same
    boundaries are found on the text and mapped back: the step token is the one that completes the text (`text_mode`).
    `step_ids` are all tokens that can end a step: an engine that stops at each never runs past a boundary.

    The thinking part begins with the opening tag, wherever in a response it comes, and ends with the closing one. A
    closing tag without an opening one ends a thinking part all the same: templates and models leave the opening out.
    `thinking_tags` go before the vocabulary's own.

    Raises:
        InvalidInputError: the rule is empty, matches no token, or names ids outside the vocabulary.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        rule: StepRule | str | tuple[str, ...] | Collection[int] = DEFAULT_STEP_RULE,
        *,
        thinking_tags: ThinkingTags = "auto",
    ) -> None:
        self.rule = as_rule(rule)
        self.tags: ThinkingTags = thinking_tags
        self._pieces = vocabulary.pieces
        self.opening: Tag | None = None
        self.closing: Tag | None = None
        tags = vocabulary.thinking
        if thinking_tags != "auto":
            tags = None if thinking_tags is None else tag_ids(vocabulary.encode, check_tags(thinking_tags))
        if tags is not None:
            atoms: frozenset[int] = getattr(vocabulary, "added_ids", frozenset())
            self.opening, self.closing = (Tag(ids, self._pieces, atoms) for ids in tags)
        self._patterns: tuple[bytes, ...] = ()
        self._start = int(getattr(self.rule, "at_start", False))  # as if something had been there already
        self.step_ids = self._resolve(vocabulary)
        found = [tag for tag in (self.opening, self.closing) if tag is not None]
        self._marks = self.step_ids.union(*(tag.ends for tag in found))
        self._reach = max([len(pattern) - 1 for pattern in self._patterns], default=0)
        self._keep = max([self._reach, *(tag.keep for tag in found)])

    @property
    def text_mode(self) -> bool:
        """Whether boundaries are found on the text because no single token carries them."""
        return bool(self._patterns)

    @property
    def thinking(self) -> tuple[Ids, Ids] | None:
        """The tags as a vocabulary names them, None for a model without them."""
        return None if self.opening is None or self.closing is None else (self.opening.name, self.closing.name)

    def start(self, prompt: Sequence[int] = ()) -> State:
        """The state in front of the response: a prompt may have opened the thinking part already."""
        if self.opening is None or self.closing is None:
            return State(Phase.PLAIN, self._start)
        # Only at the very end of the prompt, where a chat template opens the assistant's turn: tags further in front
        # are earlier turns', or words of the question.
        if self._ends_with(prompt, self.opening):
            return State(Phase.THINKING, self._start)
        tail = self._tail(b"", [self.piece(token) for token in prompt[len(prompt) - self._keep :]])
        # The prompt may have closed it: thinking is switched off, which not every model heeds.
        return State(Phase.PLAIN if self._ends_with(prompt, self.closing) else Phase.BEFORE, tail=tail)

    def _ends_with(self, prompt: Sequence[int], tag: Tag) -> bool:
        """Whether a prompt ends with a tag, white space behind it left out."""
        end = next((i for i in range(len(prompt), 0, -1) if self.piece(prompt[i - 1]).strip()), 0)
        if tag.is_single:
            return end > 0 and prompt[end - 1] == tag.ids[0]
        text = b"".join([self.piece(token) for token in prompt[max(0, end - len(tag.text)) : end]])
        return text.rstrip().endswith(tag.text)

    def advance(self, state: State, token: int) -> State:
        """The state behind `token`; its `boundary` says whether the token ended a step."""
        phase, since, tail, _, found = state
        if phase is Phase.ANSWER:
            return State(Phase.ANSWER, found=found)
        piece = self.piece(token)
        if self.opening is not None and self.closing is not None:
            if phase is not Phase.THINKING and self.opening.completed_by(token, piece, tail):
                return State(Phase.THINKING, self._start, self._tail(tail, [piece]), found=found)
            if self.closing.completed_by(token, piece, tail):
                return State(Phase.ANSWER, found=found)
            if phase is Phase.BEFORE:
                if not piece.strip():
                    return State(Phase.BEFORE, tail=self._tail(tail, [piece]))
                phase = Phase.PLAIN
        if self._patterns:
            return self._advance_text(phase, since, tail, piece, found)
        tail = self._tail(tail, [piece])
        if token in self.step_ids:
            return State(phase, 0, tail, boundary=since > 0, found=found + (since > 0))
        return State(phase, since + 1, tail, found=found)

    def _advance_text(self, phase: Phase, since: int, tail: bytes, piece: bytes, found: int) -> State:
        window = tail[max(0, len(tail) - self._reach) :] + piece
        since += len(piece)
        tail = self._tail(tail, [piece])
        at = self._match(window, len(piece))
        if at < 0:
            return State(phase, since, tail, found=found)
        boundary = since > len(window) - at  # there is something between the last step token and this match
        return State(phase, 0, tail, boundary, found + boundary)

    def _match(self, window: bytes, new: int) -> int:
        """Where the last match begins that ends among the last `new` bytes, -1 without one; of two the longer."""
        end, begin = -1, -1
        for pattern in self._patterns:
            at = window.rfind(pattern, max(0, len(window) - new - len(pattern) + 1))
            if at >= 0 and (at + len(pattern), -at) > (end, -begin):
                end, begin = at + len(pattern), at
        return begin

    def scan(self, state: State, tokens: Sequence[int]) -> tuple[list[int], State]:
        """Positions just behind each step token among `tokens` (counted from 1), and the state behind them all.

        The same as one `advance` after another; tokens that can end nothing are passed over together.
        """
        ends, state, _ = self.scan_part(state, tokens)
        return ends, state

    def scan_part(self, state: State, tokens: Sequence[int]) -> tuple[list[int], State, int | None]:
        """As `scan`, and how many tokens there are up to the end of the closing tag: None where it is not there."""
        ends: list[int] = []
        begin, count, closed = 0, len(tokens), None
        if state.phase is Phase.ANSWER:
            return ends, self._pass_over(state, tokens), None
        while begin < count and state.phase is Phase.BEFORE:
            state = self.advance(state, tokens[begin])
            begin += 1
            if state.boundary:
                ends.append(begin)
        if state.phase is Phase.ANSWER:
            closed = begin
        marks = self._marks
        for place in [i for i in range(begin, count) if tokens[i] in marks]:
            if state.phase is Phase.ANSWER:
                break
            state = self.advance(self._pass_over(state, tokens[begin:place]), tokens[place])
            begin = place + 1
            if state.boundary:
                ends.append(begin)
            if state.phase is Phase.ANSWER:
                closed = begin
        return ends, self._pass_over(state, tokens[begin:]), closed

    def _pass_over(self, state: State, tokens: Sequence[int]) -> State:
        """The state behind tokens that can end nothing."""
        if not len(tokens):
            return state
        phase, since, tail, _, found = state
        if phase is Phase.ANSWER:
            return State(Phase.ANSWER, found=found)
        if not self._patterns:
            return State(phase, since + len(tokens), self._tail_of(tail, tokens), found=found)
        pieces = [self.piece(token) for token in tokens]
        return State(phase, since + sum(map(len, pieces)), self._tail(tail, pieces), found=found)

    def _tail_of(self, tail: bytes, tokens: Sequence[int]) -> bytes:
        """What is kept behind many tokens, of which only the last few are read."""
        if not self._keep:
            return b""
        last, length = list[bytes](), 0
        for token in reversed(tokens):
            last.append(self.piece(token))
            length += len(last[-1])
            if length >= self._keep:
                tail = b""
                break
        return self._tail(tail, last[::-1])

    def _tail(self, tail: bytes, pieces: Sequence[bytes]) -> bytes:
        return (tail + b"".join(pieces))[-self._keep :] if self._keep else b""

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
        texts = (rule.text,) if isinstance(rule.text, str) else rule.text
        if not texts or not all(texts):
            raise InvalidInputError('a step rule needs a text that ends steps, such as ".\\n\\n", got an empty one')
        patterns = tuple(text.encode() for text in texts)
        if isinstance(rule, Exact):
            encoded = vocabulary.encode(rule.text)
            if len(encoded) == 1:
                return frozenset(encoded)
        else:
            ids = frozenset(i for i, piece in enumerate(self._pieces) if any(text in piece for text in patterns))
            running = [set(vocabulary.encode(f"so it is{text}Now")) for text in texts]
            if all(ids & found for found in running):  # in running text, and not only somewhere in the vocabulary
                return ids
        self._patterns = patterns
        return frozenset(
            i for i, piece in enumerate(self._pieces) if any(can_complete(pattern, piece) for pattern in patterns)
        )


def as_rule(rule: StepRule | str | tuple[str, ...] | Collection[int]) -> StepRule:
    """A rule as users may write it: a string, or a tuple of some, means `Contains`, a collection of ints `TokenIds`."""
    if isinstance(rule, str):
        return Contains(rule)
    if isinstance(rule, Contains | Exact | TokenIds) or callable(rule):
        return rule
    if isinstance(rule, tuple) and rule and all(isinstance(text, str) for text in rule):
        return Contains(cast("tuple[str, ...]", rule))
    if isinstance(rule, bytes) or not isinstance(rule, Collection) or not all(hasattr(i, "__index__") for i in rule):
        raise InvalidInputError(
            f"a step rule is a text, a set of token ids, or a function of a token's text, got {rule!r}"
        )
    return TokenIds(frozenset(map(int, rule)))


def rule_to_json(rule: StepRule) -> dict[str, Any]:
    """The form in which a head's config carries its rule; a callable has none."""
    match rule:
        case Contains(text, at_start):
            texts = text if isinstance(text, str) else list(text)
            return {"contains": texts, **({"at_start": True} if at_start else {})}
        case Exact(text, at_start):
            return {"exact": text, **({"at_start": True} if at_start else {})}
        case TokenIds(ids):
            return {"ids": sorted(ids)}
        case _:
            raise InvalidInputError(f"a callable step rule ({rule!r}) cannot be saved: save its token ids instead")


def rule_from_json(value: Any) -> StepRule:
    """Inverse of `rule_to_json`."""
    match value:
        case {"contains": str(text)}:
            return Contains(text, value.get("at_start") is True)
        case {"contains": list(texts)} if texts and all(isinstance(text, str) for text in texts):
            return Contains(tuple(texts), value.get("at_start") is True)
        case {"exact": str(text)}:
            return Exact(text, value.get("at_start") is True)
        case {"ids": list(ids)} if all(isinstance(i, int) for i in ids):
            return TokenIds(frozenset(ids))
        case _:
            raise InvalidInputError(
                f'a step rule is {{"contains": text}}, {{"exact": text}} or {{"ids": [...]}}, got {value!r}'
            )
