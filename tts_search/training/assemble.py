"""What a joint trainer is put together from: its head, its outcome reward, its tokenizer. Trains nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedTokenizerBase
from trl.trainer.utils import is_async_callable

from tts_search.errors import InvalidInputError
from tts_search.generators.tokenizer import PretrainedTokenizer
from tts_search.segmentation import Contains
from tts_search.sprm.config import SPRMConfig
from tts_search.sprm.loading import head_folder
from tts_search.sprm.module import SPRM
from tts_search.training.refusals import check_head
from tts_search.training.rewards import CORRECTNESS, RewardFunction, guarded
from tts_search.training.settings import ReflectiveConfig


def head_for(model: Any, head: SPRM | str | Path | None, folder: Path, args: ReflectiveConfig) -> SPRM:
    """The head to train: the one that is given, else the model folder's, else a new one."""
    size = model.config.get_text_config().hidden_size
    if head is None and head_folder(folder) is not None:
        head = folder
    if head is None:
        torch.manual_seed(args.seed)
        config = SPRMConfig(hidden_size=size, readout=cast(Any, args.readout), step_rule=Contains(args.step_text))
        return SPRM(config).train()
    found = head if isinstance(head, SPRM) else SPRM.from_pretrained(head)
    check_head(found, size)
    return found.float().train()


def outcome_index(names: list[str], wanted: str | None) -> int:
    """Which reward function says what is right.

    Raises:
        InvalidInputError: none of that name, or none was named and there are several.
    """
    if wanted is None:
        wanted = CORRECTNESS if CORRECTNESS in names else names[0] if len(names) == 1 else None
    if wanted is None or wanted not in names:
        raise InvalidInputError(
            f"the head learns from one reward that says what is right: set outcome_reward to one of {', '.join(names)}"
            f"{'' if wanted is None else f', not {wanted!r}'}"
        )
    return names.index(wanted)


def guard(function: Any) -> Any:
    """A plain reward function so wrapped that its failures name it; models and coroutines as they are."""
    plain = callable(function) and not isinstance(function, torch.nn.Module) and not is_async_callable(function)
    return guarded(cast(RewardFunction, function)) if plain else function


def own(tokenizer: PreTrainedTokenizerBase) -> PretrainedTokenizer:
    """The very tokenizer that training uses, behind the package's contract."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return PretrainedTokenizer(folder)
