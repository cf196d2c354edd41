"""Ends the streams of servers that do not end them: more tokens than were asked for, or chunks without any.

It knows what has come, and no connection.
"""

from __future__ import annotations

import re

from tts_search.errors import GeneratorError
from tts_search.generators.openai.transcriber import Transcriber
from tts_search.generators.openai.wire import Answer

QUIET_CHUNKS = 1000  # in a row without a token, beside one for every token that a server may keep to itself
CHARACTERS = 4  # to a token, in most texts
GROWTH = 1.25  # of a text until its tokens are counted again: counting stays linear in the text

_PIECES = re.compile(r" ?[A-Za-z]{1,4}|\s+|.")  # four letters of a word, a run of space, any other character


class Watch:
    """Looks at one completion as it comes, which is to have at most `max_tokens` tokens."""

    def __init__(self, transcriber: Transcriber, max_tokens: int) -> None:
        self._text = transcriber
        self._max_tokens = max_tokens
        self._quiet = 0
        self._read_at = CHARACTERS * max_tokens + 64

    def check(self, answer: Answer, tokens: int) -> None:
        """Look at the answer after a chunk that brought `tokens` tokens.

        Raises:
            GeneratorError: nothing will come of this stream, or more than may.
        """
        self._quiet = 0 if tokens else self._quiet + 1
        if self._quiet > self._max_tokens + QUIET_CHUNKS:
            raise GeneratorError(
                f"{answer.server} sent {self._quiet:,} chunks in a row without a token: it does nothing but keep the "
                "connection; its log should say why"
            )
        sampled = answer.shown
        if not answer.exact and not sampled and len(answer.text) >= self._read_at:
            # Only the text tells. The model may have written it in a few tokens less than it is read here.
            sampled = int(len(self._text.read(answer.text)) / GROWTH)
            self._read_at = int(len(answer.text) * GROWTH)
        if sampled > self._max_tokens:
            raise too_many(answer.server, sampled, self._max_tokens)


def most_tokens(text: str) -> int:
    """About as many tokens as a text can have where no tokenizer is known: more than most would make of it."""
    return sum(1 for _ in _PIECES.finditer(text))


def too_many(server: str, sampled: int, max_tokens: int) -> GeneratorError:
    """The error for a server that goes on behind its limit."""
    return GeneratorError(
        f"{server} sampled {sampled} tokens where at most {max_tokens} were asked for: it does not honour max_tokens, "
        "and no budget can be kept with it"
    )
