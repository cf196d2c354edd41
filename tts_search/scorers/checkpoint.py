"""What a text scorer reads of a checkpoint besides its weights: the config and the tokenizer. Runs no code of its own.

Text scorers need a tokenizer's chat template, special tokens and character offsets, which the contract of
`tts_search.core.protocols.Tokenizer` leaves out; so they get the Hugging Face object itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tts_search.errors import MissingDependencyError, ModelNotFoundError


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a model folder."""
    try:
        return json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(f"{str(folder)!r} has no readable config.json: {error}") from error


def load_tokenizer(folder: Path) -> Any:
    """The fast Hugging Face tokenizer of a model folder.

    Raises:
        ModelNotFoundError: there is none.
    """
    try:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingDependencyError("reward models need transformers: pip install transformers") from error
    # The class for a model type may replace what tokenizer.json says, so it is for folders without that file.
    kind: Any = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    try:
        return kind.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # transformers raises a different class for each missing file
        raise ModelNotFoundError(f"no readable tokenizer in {str(folder)!r}: {error}") from error
