"""Where a chain of thought begins and ends: the tags of models, found among tokens however they are cut, and in texts.

Knows token ids, their bytes and texts; it knows no tokenizer and no tree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from tts_search.errors import InvalidInputError

Ids = int | tuple[int, ...]
"""A tag as a vocabulary names it: its one token, or its tokens in order."""

Texts = tuple[str, str]
"""The texts of the tags that open and close a thought."""

ThinkingTags = Literal["auto"] | Texts | None
"""As a user says them: "auto" are the model's own, None is none."""

GPT_OSS: Texts = ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>")
_PAIRS: tuple[Texts, ...] = (  # those whose closing tag is not the opening one with a slash
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
    ("<|channel>thought", "<channel|>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
)
_SPELLED = (*_PAIRS, ("<unused94>", "<unused95>"))  # Gemma, each of whose vocabularies has them
_OTHER_HALF = dict(_SPELLED) | {closing: opening for opening, closing in _SPELLED}
_NAMED = re.compile(r"(?i)[<\[◁]/?(?:[a-z]+[:|_])?(?:think(?:ing)?|thoughts?|reasoning)(?:[:_][\w.-]+)?[>\]▷]")


def tags_of(vocabulary: Mapping[str, int], template: str) -> Texts | None:
    """The tags of a model that thinks, told from its tokens and its chat template; None where neither has any.

    A pair of tokens goes before tags that only the template has, `<think>` before others.
    """
    if "<|channel|>" in vocabulary and "<|message|>" in vocabulary and "<|channel|>" in template:
        return GPT_OSS
    special = [pair for pair in _PAIRS if all(_head(tag) in vocabulary for tag in pair)]
    tokens = [pair for pair in _pairs(t for t in vocabulary if _NAMED.fullmatch(t)) if set(pair) <= vocabulary.keys()]
    found = tokens + special
    if found:  # several: the one that the template uses
        return min(found, key=lambda pair: (pair[0] != "<think>", pair[1] not in template, vocabulary[_head(pair[0])]))
    written = [pair for pair in _PAIRS if pair[1] in template]
    return next(iter([*_pairs(_NAMED.findall(template)), *written]), None)


def _pairs(tags: Iterable[str]) -> list[Texts]:
    """Each with its other half, once."""
    opening = [tag if tag[1] != "/" else tag[0] + tag[2:] for tag in tags]
    return [(tag, f"{tag[0]}/{tag[1:]}") for tag in dict.fromkeys(opening)]


def _head(tag: str) -> str:
    """The token that a special tag begins with."""
    return tag[: tag.find(">") + 1] or tag


def check_tags(tags: object) -> Texts:
    """Two texts.

    Raises:
        InvalidInputError: they are none, empty, or the same.
    """
    match tags:
        case (str(opening), str(closing)) | [str(opening), str(closing)]:
            if opening.strip() and closing.strip() and opening.strip() != closing.strip():
                return opening.strip(), closing.strip()
    raise InvalidInputError(
        f'thinking_tags are two different texts, such as ("<think>", "</think>"), "auto" or None; got {tags!r}'
    )


def tag_ids(encode: Callable[[str], Sequence[int]], tags: Texts) -> tuple[Ids, Ids]:
    """Tags as a vocabulary names them.

    Raises:
        InvalidInputError: a tag has no tokens.
    """
    ids = [tuple(encode(tag)) for tag in tags]
    if not all(ids):
        raise InvalidInputError(f"the tokenizer writes no tokens for the thinking tag {tags[not ids[1]]!r}")
    opening, closing = (tag[0] if len(tag) == 1 else tag for tag in ids)
    return opening, closing


class Tag:
    r"""One tag. Of a single token it is that token; of several it is their text, whichever tokens write it.

    A model that closes with `</think>` in three tokens may well write the last one as `>\n\n`. `ends` are all tokens
    that can complete the tag: an engine that stops at each never runs past it, and goes on where it was none. Where
    the last of several tokens is one that no text is cut into (`atoms`), only that one completes it.
    """

    def __init__(self, ids: Ids, pieces: Sequence[bytes], atoms: frozenset[int] = frozenset()) -> None:
        self.ids = (ids,) if isinstance(ids, int) else tuple(ids)
        self.is_single = len(self.ids) == 1
        # A tokenizer may write a space in front of whatever it encodes.
        self.text = b"".join([pieces[i] for i in self.ids if 0 <= i < len(pieces)]).strip()
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
    rf"|◁think(?:ing)?▷|<\|channel\|>analysis<\|message\|>|{'|'.join(re.escape(opening) for opening, _ in _SPELLED)})"
    r"|(?P<close></\|?(?:seed:)?(?:think|thought|reason)(?:ing|s)?\|?>|\[/think(?:ing)?\]|◁/think(?:ing)?▷"
    rf"|{'|'.join(re.escape(closing) for _, closing in _SPELLED)}"
    r"|(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>)"
)


# What is left of the channels of gpt-oss where a server leaves control tokens out of its texts.
_STRIPPED = re.compile(r"\s*analysis(?P<thinking>.*?)assistantfinal(?P<answer>.*)", re.DOTALL)


class SpokenThought(NamedTuple):
    """A response split at tags that nobody announced: `opening` and `closing` as they stand in it, or would."""

    thinking: str
    answer: str
    opening: str
    closing: str


def spoken_thought(text: str) -> SpokenThought | None:
    """A response that thinks in tags, split at them; None where it does not.

    An opening tag counts at the beginning of a line, elsewhere only if it is closed. A closing tag counts without an
    opening one: what precedes it is then the thought.
    Without a closing tag all behind an opening one is the thought, if the response begins with it.
    """
    first = _SPOKEN.search(text)
    if first is None:
        bare = _STRIPPED.fullmatch(text)
        return None if bare is None else SpokenThought(bare["thinking"], bare["answer"], "analysis", "assistantfinal")
    if first["close"]:
        answer = text[first.end() :]
        closing, opening = first["close"], _opposite(first["close"])
        _, opened, thinking = text[: first.start()].partition(opening)  # behind words on the same line
        thinking = thinking if opened else text[: first.start()]
        return SpokenThought(thinking, answer, opening, closing) if answer.strip() else None
    opening = first["open"].strip()
    for tag in _SPOKEN.finditer(text, first.end()):
        if tag["close"] and _opposite(tag["close"]).lower() == opening.lower():
            thinking, answer = text[first.end() : tag.start()], text[tag.end() :]
            return SpokenThought(thinking, answer, opening, tag["close"])
    if text[: first.start()].strip():
        return None
    return SpokenThought(text[first.end() :], "", opening, _opposite(opening))


def behind_thoughts(text: str) -> str:
    """What follows the last thought; the whole text where nothing does."""
    end = len(text)
    for tag in reversed([tag for tag in _SPOKEN.finditer(text) if tag["close"]]):
        if text[tag.end() : end].strip():
            return text[tag.end() : end]
        end = tag.start()
    return text


def _opposite(tag: str) -> str:
    """The other tag of a pair."""
    if "<|channel|>" in tag:
        return GPT_OSS["final" not in tag]
    if tag in _OTHER_HALF:
        return _OTHER_HALF[tag]
    return tag[0] + tag[2:] if tag[1] == "/" else f"{tag[0]}/{tag[1:]}"


def without_thoughts(answer: str, opening: str, closing: str) -> str:
    """An answer without the thoughts in it: a pair of tags goes with what it encloses, a closing one by itself alone.

    A thought that is never closed reaches to the end.
    """
    said: list[str] = []
    at, opens, closes = 0, _find(answer, opening, 0), _find(answer, closing, 0)
    while opens >= 0 or closes >= 0:
        said.append(answer[at : closes if opens < 0 else opens if closes < 0 else min(opens, closes)])
        if closes < 0:
            return "".join(said)
        if not 0 <= opens < closes:  # it closes nothing
            said.append("\n")
        at = closes + len(closing)
        opens = opens if opens < 0 or opens >= at else _find(answer, opening, at)  # looked for once: linear in the text
        closes = _find(answer, closing, at)
    said.append(answer[at:])
    return "".join(said)


def _find(text: str, tag: str, at: int) -> int:
    return text.find(tag, at) if tag else -1  # a saved tree may lack one


def without_tags(text: str) -> str:
    """A step's text without the thinking tags in it."""
    return _SPOKEN.sub("", text)
