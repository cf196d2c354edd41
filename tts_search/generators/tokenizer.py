"""A Hugging Face tokenizer behind the package's own contract: token ids, the bytes of each, and the chat template.

Nothing else in the package touches the tokenizer of a search. It knows no model weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from tts_search.core.protocols import Question, Sampling
from tts_search.errors import InvalidInputError, MissingDependencyError, ModelNotFoundError
from tts_search.generators.tokenizer_files import TokenizerFiles, read_tokenizer
from tts_search.generators.user_text import UserText
from tts_search.thinking import Ids, ThinkingTags, check_tags, tag_ids, tags_of


class PretrainedTokenizer:
    """The `Tokenizer` of a model folder.

    Args:
        folder: a Hugging Face model folder with a fast tokenizer (`tokenizer.json`).
        thinking_tags: the texts that open and close the thinking part; `"auto"` are those that its vocabulary or its
            chat template has, if any; None for none: its whole response is segmented.

    Raises:
        ModelNotFoundError: the folder has no tokenizer that can be read.
    """

    def __init__(self, folder: str | Path, *, thinking_tags: ThinkingTags = "auto") -> None:
        try:
            self._hf: TokenizerFiles = read_tokenizer(Path(folder))
        except MissingDependencyError:
            raise
        except Exception as error:  # transformers raises a different class for each missing file
            raise ModelNotFoundError(
                f"no readable tokenizer in {str(folder)!r} (a model folder with tokenizer.json is needed): {error}"
            ) from error
        generation = _generation(Path(folder))
        ids = generation.get("eos_token_id")
        eos = {ids} if isinstance(ids, int) else set(ids or ())
        if self._hf.eos_token_id is not None:
            eos.add(self._hf.eos_token_id)
        if not eos:
            raise InvalidInputError(f"the tokenizer in {str(folder)!r} names no end-of-text token (eos_token)")
        self.eos_ids: frozenset[int] = frozenset(eos)
        self.generation = generation
        self._folder = Path(folder)
        self._pieces = _token_bytes(self._hf)
        self.added_ids: frozenset[int] = frozenset(self._hf.added_tokens_decoder)
        """Tokens that stand whole in a text, which no text is cut into."""
        if thinking_tags == "auto":
            thinking_tags = tags_of(self._hf.get_vocab(), _texts(self._hf.chat_template))
        elif thinking_tags is not None:
            thinking_tags = check_tags(thinking_tags)
        self.thinking: tuple[Ids, Ids] | None = None if thinking_tags is None else tag_ids(self.encode, thinking_tags)
        control = {i: str(token) for i, token in self._hf.added_tokens_decoder.items() if token.special}
        self._user_text = UserText(list(control.values()), thinking_tags or ())
        self.thinks_in_control_tokens = any(
            not control.keys().isdisjoint((tag,) if isinstance(tag, int) else tag) for tag in self.thinking or ()
        )
        """Whether its tags are of tokens that servers leave out of texts."""

    @property
    def sampling(self) -> Sampling:
        """How the model's `generation_config.json` wants tokens drawn; the paper's settings where it says nothing.

        A model that is not to be sampled from at all (`do_sample` false) keeps its repetition penalty: what else stands
        there has no meaning by its own account, and a search has to sample.
        """
        own, default = self.generation, Sampling()
        repetition_penalty = own.get("repetition_penalty") or 1.0
        if own.get("do_sample") is False:
            return Sampling(repetition_penalty=repetition_penalty)
        temperature, top_p = own.get("temperature"), own.get("top_p")
        return Sampling(
            temperature=default.temperature if temperature is None else temperature,
            top_p=default.top_p if top_p is None else top_p,
            top_k=max(0, own.get("top_k") or 0),  # some write -1 for no limit
            min_p=own.get("min_p") or 0.0,
            repetition_penalty=repetition_penalty,
        )

    @cached_property
    def id_limit(self) -> int:
        """Ids from here on the model cannot sample: it may have more of them than there are tokens, as padding."""
        try:
            config = json.loads((self._folder / "config.json").read_text())
        except (OSError, ValueError):  # a tokenizer by itself
            config = {}
        sizes = [part.get("vocab_size") for part in (config, config.get("text_config") or {})]
        return max([len(self.pieces), *(size for size in sizes if isinstance(size, int))])

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def pieces(self) -> Sequence[bytes]:
        """The bytes of every token: exact for byte-level BPE and SentencePiece, else the decoded text."""
        return self._pieces

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of plain text, no special tokens added."""
        return tuple(self._hf.encode(text, add_special_tokens=False))

    def render(self, messages: Question) -> tuple[int, ...]:
        """Token ids of the prompt. Control tokens come from the template alone: in messages their spellings are text.

        A text is one user turn; where the tokenizer has no chat template (a base model) it is continued as it is.

        Raises:
            InvalidInputError: messages for a tokenizer without a chat template, or malformed ones.
        """
        if not self._hf.chat_template:
            if isinstance(messages, str):
                (turn,), mark = self._user_text.take_apart([{"content": messages}])
                first, *others = turn["content"].split(mark) if mark else [messages]
                return (*self._hf.encode(first, add_special_tokens=True), *self._encode_each(others))
            raise InvalidInputError(
                "this tokenizer has no chat template, so chat messages cannot be rendered: "
                "pass the question as one string, or add a chat_template to the model folder"
            )
        chat = [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(m) for m in messages]
        chat, mark = self._user_text.take_apart(chat)
        try:
            text: str = self._hf.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # templates raise what their authors wrote
            raise InvalidInputError(f"the model's chat template refused these messages: {error}") from error
        return self._encode_each(text.split(mark)) if mark else self.encode(text)

    def _encode_each(self, parts: Sequence[str]) -> tuple[int, ...]:
        return tuple(chain.from_iterable(self.encode(part) for part in parts))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; a character cut in the middle shows as U+FFFD."""
        pieces = self.pieces
        data = b"".join(pieces[i] for i in ids if i not in self.eos_ids and 0 <= i < len(pieces))
        return data.decode("utf-8", "replace")


def _texts(template: Any) -> str:
    """A chat template, or all of several, as one text."""
    return "\n".join(map(str, template.values())) if isinstance(template, dict) else str(template or "")


def _generation(folder: Path) -> dict[str, Any]:
    """The folder's `generation_config.json`; a folder without it is common, and complete.

    It is read as what it is, JSON: transformers' class for it brings torch with it, a second that a client of a server
    has no use for.
    """
    path = folder / "generation_config.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{str(folder)!r} has a generation_config.json that is none: {error}") from error
    return found


def _token_bytes(tokenizer: TokenizerFiles) -> list[bytes]:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    kind = _decoder_kind(tokenizer)
    added = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items()}
    pieces = [b""] * (max(vocabulary.values()) + 1)
    for token, i in vocabulary.items():
        if i in added:
            pieces[i] = added[i].encode()
        elif kind == "bytes":
            pieces[i] = _unmap_bytes(token)
        elif kind == "sentencepiece":
            pieces[i] = _unmap_sentencepiece(token)
        else:
            pieces[i] = tokenizer.decode([i], clean_up_tokenization_spaces=False).encode()
    return pieces


def _decoder_kind(tokenizer: TokenizerFiles) -> str:
    decoder = json.dumps(json.loads(tokenizer.backend_tokenizer.to_str()).get("decoder") or {})
    if '"ByteLevel"' in decoder:
        return "bytes"
    if '"ByteFallback"' in decoder or '"Metaspace"' in decoder or "\\u2581" in decoder:
        return "sentencepiece"
    return "text"


def _byte_alphabet() -> dict[str, int]:
    """The printable stand-ins that byte-level BPE (GPT-2) writes for the 256 bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {chr(byte): byte for byte in printable}
    hidden = (byte for byte in range(256) if byte not in printable)
    return alphabet | {chr(256 + n): byte for n, byte in enumerate(hidden)}


_BYTES = _byte_alphabet()


def _unmap_bytes(token: str) -> bytes:
    return b"".join(bytes([_BYTES[c]]) if c in _BYTES else c.encode() for c in token)


def _unmap_sentencepiece(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode()
