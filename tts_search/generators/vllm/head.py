"""Which engine arguments put a model's SPRM head to work. Clients of a server that carries one read it here, too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tts_search.errors import InvalidInputError, ModelNotFoundError
from tts_search.generators.vllm.plugin import ARCHITECTURES, sprm_engine_args
from tts_search.sprm.config import SPRMConfig
from tts_search.sprm.loading import head_folder


def score_in_engine(
    folder: Path, head: str | Path | None, config: Mapping[str, Any], engine_args: Mapping[str, Any]
) -> tuple[SPRMConfig | None, dict[str, Any]]:
    """The head's config and the engine arguments that put it to work; None and nothing without a head.

    Raises:
        ModelNotFoundError, HeadMismatchError: `head` names no head, or one that does not fit.
        InvalidInputError: a head cannot be had with this architecture or these engine arguments.
    """
    if head == "auto":
        head = folder if head_folder(folder) else None
    if head is None:
        return None, {}
    from tts_search.sprm.module import SPRM  # torch: a client of a server without a head does without it

    head_config = SPRM.from_pretrained(head, hidden_size=config["hidden_size"]).config
    architecture = (config.get("architectures") or ["unknown"])[0]
    if architecture not in ARCHITECTURES:
        raise InvalidInputError(
            f"the vLLM engine cannot carry an SPRM head in {architecture}, only in {', '.join(ARCHITECTURES)}: use the "
            "transformers generator, or head=None with another scorer"
        )
    if engine_args.get("speculative_config"):
        raise InvalidInputError(
            "speculative decoding and an SPRM head in the engine exclude each other, because drafted tokens come "
            "without scores: remove speculative_config, or pass head=None"
        )
    if engine_args.get("pipeline_parallel_size", 1) > 1 or engine_args.get("enable_lora"):
        raise InvalidInputError(
            "an SPRM head in the engine works with tensor and data parallelism, but not with pipeline parallelism or "
            "LoRA: use tensor_parallel_size, merge the adapter into the weights, or pass head=None"
        )
    found = head_folder(head)
    assert found is not None  # from_pretrained has found it
    return head_config, sprm_engine_args(architecture, config["vocab_size"], str(found.resolve()))


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's config.json.

    Raises:
        ModelNotFoundError: there is none that can be read.
    """
    try:
        return json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(f"{str(folder)!r} has no readable config.json: {error}") from error
