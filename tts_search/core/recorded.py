"""The vocabulary of one search: what of a tokenizer a tree needs to be read again without it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import overload

from tts_search.segmentation import Segmenter, StepRule, TokenIds
from tts_search.thinking import Ids


class RecordedTokens:
    """The vocabulary of one search: decodes the tokens that occurred in it, and can encode nothing.

    Implements `segmentation.Vocabulary`. `texts` are the bytes of each token; an id that did not occur has none.
    """

    def __init__(self, texts: Mapping[int, bytes], *, silent: frozenset[int], thinking: tuple[Ids, Ids] | None) -> None:
        self.texts = texts
        self.silent = silent
        self.thinking = thinking
        self.pieces: Sequence[bytes] = _Sparse(texts)

    def encode(self, text: str) -> tuple[int, ...]:
        """Nothing: of the tokenizer only the tokens that occurred are known."""
        del text
        return ()

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; a character cut in the middle shows as U+FFFD."""
        data = b"".join(self.pieces[i] for i in ids if i not in self.silent)
        return data.decode("utf-8", "replace")


class _Sparse(Sequence[bytes]):
    """A list of which few places are filled; the others hold no bytes."""

    def __init__(self, filled: Mapping[int, bytes]) -> None:
        self._filled = filled
        self._length = max(filled, default=-1) + 1

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self._filled.get(index, b"")


def record(
    segmenter: Segmenter, occurring: Collection[int], decode: Callable[[Sequence[int]], str]
) -> tuple[RecordedTokens, StepRule]:
    """The tokens that occur, with what they decode to, and the step rule that cuts them as `segmenter` does.

    On text a rule stands for itself; on tokens, for the ids that it matched.
    """
    ids, rule = set(occurring), segmenter.rule
    if not segmenter.text_mode:
        ends = segmenter.step_ids & ids or {min(segmenter.step_ids)}  # a rule needs one id at least
        rule = TokenIds(frozenset(ends))
        ids |= ends
    for tag in (segmenter.opening, segmenter.closing):
        if tag is not None and not tag.is_single:  # it is found by its text
            ids |= set(tag.ids)
    texts = {token: segmenter.piece(token) for token in sorted(ids)}
    silent = frozenset(token for token in texts if texts[token] and not decode((token,)))
    return RecordedTokens(texts, silent=silent, thinking=segmenter.thinking), rule
