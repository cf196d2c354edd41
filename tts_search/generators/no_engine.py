"""A model without its engine: tokenizer and settings, for replays of what a log holds. No weights are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tts_search.core.protocols import Completion, Request
from tts_search.errors import GeneratorError
from tts_search.generators.pretrained import PretrainedGenerator, longest_in
from tts_search.generators.tokenizer import PretrainedTokenizer
from tts_search.models import model_folder, model_name
from tts_search.sprm.loading import head_folder
from tts_search.sprm.module import SPRM

_CONTEXT_TOKENS = 1 << 20  # where the config names no limit; a replay goes by the log's


class NoEngine(PretrainedGenerator):
    """The `Generator` that generates nothing: what a replay needs of a model is its tokenizer.

    Args:
        model: `"embedded"`, a model folder, or the id of a model on the hub, of which the weights are not downloaded.

    Raises:
        ModelNotFoundError: no such model.
    """

    def __init__(self, model: str | Path) -> None:
        folder = model_folder(model, weights=False)
        config = folder / "config.json"
        read = json.loads(config.read_text()) if config.is_file() else {}
        context = longest_in(read) or _CONTEXT_TOKENS
        found = head_folder(folder)
        head = None if found is None else SPRM.from_pretrained(found).config
        super().__init__(model_name(model), PretrainedTokenizer(folder), int(context), head, folder)

    async def generate(self, request: Request) -> Sequence[Completion]:
        """Nothing.

        Raises:
            GeneratorError: always.
        """
        raise GeneratorError(
            f"generator 'none' samples nothing, and {len(request.seeds)} completions were asked of it: it is for "
            "replays (replay=True, log=...); name an engine to search"
        )

    async def aclose(self) -> None:
        """Nothing to free."""
