"""Where a chain of thought begins and ends: the tags of models, found among tokens however they are cut, and in texts.

Knows token ids, their bytes and texts; it knows no tokenizer and no tree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

Ids = int | tuple[int, ...]
"""A tag as a vocabulary names it: its one token, or its tokens in order."""


class Tag:
    r"""One tag. Of a single token it is that token; of several it is their text, whichever tokens write it.

    A model that closes with `</think>` in three tokens may well write the last one as `>\n\n`. `ends` are all tokens
    that can complete the tag: an engine that stops at each never runs past it, and goes on where it was none. Where
    the last of several tokens is one that no text is cut into (`atoms`), only that one completes it.
    """

    def __init__(self, ids: Ids, pieces: Sequence[bytes], atoms: frozenset[int] = frozenset()) -> None:
        self.ids = (ids,) if isinstance(ids, int) else tuple(ids)
        self.is_single = len(self.ids) == 1
        self.text = b"".join([pieces[i] for i in self.ids if 0 <= i < len(pieces)])
        last = self.ids[-1]
        self.ends = (
            frozenset({last})
            if self.is_single or last in atoms
            else frozenset(i for i, piece in enumerate(pieces) if can_complete(self.text, piece))
        )
        self.keep = 0 if self.is_single else len(self.text) - 1
        """How many bytes in front of a token must be known to tell whether it completes the tag."""

    @property
    def name(self) -> Ids:
        """It as a vocabulary names it."""
        return self.ids[0] if self.is_single else self.ids

    @property
    def is_header(self) -> bool:
        """Whether it stands between messages rather than on a line of its own: a channel of gpt-oss."""
        return not self.is_single and self.text.startswith(b"<|")

    def completed_by(self, token: int, piece: bytes, tail: bytes) -> bool:
        """Whether the tag ends in `token`, whose bytes are `piece`, behind text that ends in `tail`."""
        if token not in self.ends:
            return False
        if self.is_single:
            return True
        begin = len(tail) - len(self.text) + 1
        return (tail + piece).find(self.text, max(0, begin)) >= 0

    def tokens_before(self, pieces: Sequence[bytes]) -> int:
        """Of tokens whose last completes the tag, how many hold anything that is in front of it."""
        if self.is_single:
            return len(pieces) - 1
        front = b"".join(pieces).rfind(self.text)
        if front < 0:  # it began in front of these
            return 0
        count = 0
        for piece in pieces:
            if front <= 0:
                break
            front -= len(piece)
            count += 1
        return count


def can_complete(text: bytes, piece: bytes) -> bool:
    """Whether the last byte of `text` can fall into `piece` with the rest of it in front."""
    return text in piece or any(piece.startswith(text[i:]) for i in range(1, len(text)))


_SPOKEN = re.compile(
    r"(?im)(?P<open>^[ \t]*<\|?(?:seed:)?(?:think|thought|reason)(?:ing|s)?\|?>|^[ \t]*\[think(?:ing)?\]"
    r"|◁think(?:ing)?▷|<\|begin_of_thought\|>|<\|channel\|>analysis<\|message\|>)"
    r"|(?P<close></\|?(?:seed:)?(?:think|thought|reason)(?:ing|s)?\|?>|\[/think(?:ing)?\]|◁/think(?:ing)?▷"
    r"|<\|end_of_thought\|>|<\|channel\|>final<\|message\|>)"
)


class SpokenThought(NamedTuple):
    """A response split at tags that nobody announced: `opening` and `closing` as they stand in it, or would."""

    thinking: str
    answer: str
    opening: str
    closing: str


def spoken_thought(text: str) -> SpokenThought | None:
    """A response that thinks in tags, split at them; None where it does not.

    An opening tag counts at the beginning of a line, a closing one also without: what precedes it is then the thought.
    Without a closing tag all behind an opening one is the thought, if the response begins with it.
    """
    first = _SPOKEN.search(text)
    if first is None:
        return None
    if first["close"]:
        answer = text[first.end() :]
        tag = first["close"]
        return SpokenThought(text[: first.start()], answer, _opposite(tag), tag) if answer.strip() else None
    opening = first["open"].strip()
    for tag in _SPOKEN.finditer(text, first.end()):
        if tag["close"] and _opposite(tag["close"]).lower() == opening.lower():
            thinking, answer = text[first.end() : tag.start()], text[tag.end() :]
            return SpokenThought(thinking, answer, opening, tag["close"])
    if text[: first.start()].strip():
        return None
    return SpokenThought(text[first.end() :], "", opening, _opposite(opening))


def _opposite(tag: str) -> str:
    """The other tag of a pair."""
    for left, right in (("_begin_of_", "_end_of_"), ("begin_of_", "end_of_"), ("analysis", "final")):
        if left in tag or right in tag:
            return tag.replace(left, right) if left in tag else tag.replace(right, left)
    return tag[0] + tag[2:] if tag[1] == "/" else f"{tag[0]}/{tag[1:]}"


def without_thoughts(answer: str, opening: str, closing: str) -> str:
    """An answer without the thoughts in it: a pair of tags goes with what it encloses, a closing one by itself alone.

    A thought that is never closed reaches to the end.
    """
    said: list[str] = []
    at = 0
    while True:
        opens, closes = answer.find(opening, at), answer.find(closing, at)
        if closes >= 0 and not 0 <= opens < closes:  # it closes nothing
            said += [answer[at:closes], "\n"]
            at = closes + len(closing)
        elif opens >= 0:
            said.append(answer[at:opens])
            if closes < 0:
                break
            at = closes + len(closing)
        else:
            said.append(answer[at:])
            break
    return "".join(said)
