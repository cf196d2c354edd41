"""What every generator of a pretrained model says of it. It runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tts_search.core.protocols import Question, Sampling
from tts_search.embedded import MODEL_FOLDER
from tts_search.generators.tokenizer import PretrainedTokenizer
from tts_search.models import contents_of, digest_files
from tts_search.sprm.config import SPRMConfig


def fingerprint(
    folder: Path, head: str | Path | None, *, engine: str, dtype: str, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What decides which completions an engine in this process returns: all that tells one from another in a log.

    `head` is where its SPRM head lies (`"auto"`: in the model's folder), None without one.
    """
    return {
        "engine": engine,
        "dtype": dtype,
        "weights": contents_of(folder),
        "tokenizer": digest_files(folder, ("tokenizer.json", "tokenizer.model")),
        "head": None if head is None else contents_of(folder if head == "auto" else Path(head)),
        **({} if not more else {"arguments": {name: repr(more[name]) for name in sorted(more)}}),
    }


def longest_in(config: Mapping[str, Any]) -> int | None:
    """How long prompt and response may get by a model's config.json, None where it does not say.

    GPT-2's kind has another name for it, and a model of several parts says it of its text model.
    """
    parts = (config, config.get("text_config") or {})
    said = (part.get(name) for part in parts for name in ("max_position_embeddings", "n_positions"))
    return next((length for length in said if isinstance(length, int)), None)


class PretrainedGenerator:
    """The properties of the `Generator` protocol, from what a subclass has found out about its model.

    Args:
        name: what to call the model.
        tokenizer: the model's own.
        context_tokens: the longest prefix plus completion, in tokens.
        head_config: of the SPRM head whose logits come with the completions, None where there is none.
        folder: where the model lies on this machine, None for one that runs elsewhere.
    """

    def __init__(
        self,
        name: str,
        tokenizer: PretrainedTokenizer,
        context_tokens: int,
        head_config: SPRMConfig | None,
        folder: Path | None,
    ) -> None:
        self._name = name
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._head_config = head_config
        self._folder = folder

    @property
    def name(self) -> str:
        """The model folder's name, or the model's name on the hub or the server."""
        return self._name

    @property
    def tokenizer(self) -> PretrainedTokenizer:
        """The model's tokenizer."""
        return self._tokenizer

    @property
    def context_tokens(self) -> int:
        """The longest prefix plus completion, in tokens."""
        return self._context_tokens

    @property
    def sampling(self) -> Sampling:
        """The model's own sampling defaults, the paper's where it has none."""
        return self._tokenizer.sampling

    @property
    def head_config(self) -> SPRMConfig | None:
        """The config of the head, None where there is none."""
        return self._head_config

    def remark(self, question: Question) -> str | None:
        """What to know of a question that the model is not made for: the embedded one knows number puzzles alone."""
        if self._folder != MODEL_FOLDER:
            return None
        from tts_search.embedded import puzzles  # what no other model needs

        text = question if isinstance(question, str) else question[-1]["content"]
        return puzzles.remark(text)

    @property
    def folder(self) -> Path | None:
        """Where the model lies on this machine, None for one that runs elsewhere."""
        return self._folder
