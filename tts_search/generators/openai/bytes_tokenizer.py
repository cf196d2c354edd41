"""Text as bytes, for services that neither take nor show token ids. It knows no model.

One id a byte, and one each for the end of a response and the tags of its thinking: nothing has to be downloaded, no
text is read otherwise than it was written, and steps are found by their text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from tts_search.core.protocols import Question

END, OPEN, CLOSE = 256, 257, 258


class BytesTokenizer:
    """A `Tokenizer` of which every text is its bytes. Its ids say nothing of how many tokens a model would take."""

    pieces: Sequence[bytes] = (*(bytes([byte]) for byte in range(256)), b"<|end|>", b"<think>", b"</think>")
    thinking: tuple[int, int] | None = (OPEN, CLOSE)
    eos_ids = frozenset({END})

    def encode(self, text: str) -> tuple[int, ...]:
        """Its bytes; tags and ends that are spelled out in it are text like any other."""
        return tuple(text.encode("utf-8", "replace"))

    def render(self, messages: Question) -> tuple[int, ...]:
        """A conversation for eyes, and no other's: the service renders its own."""
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        return tuple(chain.from_iterable((*self.encode(f"{turn['role']}: {turn['content']}"), END) for turn in turns))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; a character cut in the middle shows as U+FFFD."""
        return b"".join([self.pieces[i] for i in ids if i != END]).decode("utf-8", "replace")
