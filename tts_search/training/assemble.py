"""What a joint trainer is put together from, and what it refuses to be combined with, each with its reason.

It trains nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedTokenizerBase
from trl.trainer.utils import is_async_callable

from tts_search.errors import HeadMismatchError, InvalidInputError
from tts_search.generators.tokenizer import PretrainedTokenizer
from tts_search.segmentation import Contains
from tts_search.sprm.config import SPRMConfig
from tts_search.sprm.loading import head_folder
from tts_search.sprm.module import SPRM
from tts_search.training.rewards import CORRECTNESS, RewardFunction, naming_failures
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


def name_failures(function: Any) -> Any:
    """A plain reward function so wrapped that its failures name it; models and coroutines as they are."""
    plain = callable(function) and not isinstance(function, torch.nn.Module) and not is_async_callable(function)
    return naming_failures(cast(RewardFunction, function)) if plain else function


def wrap_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PretrainedTokenizer:
    """The very tokenizer that training uses, behind the package's contract."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return PretrainedTokenizer(folder)


def check_settings(args: ReflectiveConfig, *, policy: str, adapted: bool) -> None:
    """Refuse settings under which the head would not learn, or would not learn what it should.

    Raises:
        InvalidInputError: the message names the setting, the reason and the remedy.
    """
    plugin: Any = getattr(args, "deepspeed_plugin", None)
    if plugin is not None and plugin.zero_stage == 3:
        raise InvalidInputError(
            "DeepSpeed ZeRO-3 shards the head's weights away from where it reads: use ZeRO-2, or a PEFT adapter"
        )
    parallel: Any = getattr(args, "parallelism_config", None)
    if parallel is not None and (getattr(parallel, "cp_enabled", False) or getattr(parallel, "sp_enabled", False)):
        raise InvalidInputError(
            "context and sequence parallelism cut trajectories into pieces, and the head reads whole ones: turn them "
            "off"
        )
    if args.use_liger_kernel:
        raise InvalidInputError(
            "Liger's kernels replace the forward passes that the head reads from: use kernels of the hub instead, "
            'model_init_kwargs={"use_kernels": True}'
        )
    options: Any = args.gradient_checkpointing_kwargs or {}
    reentrant = isinstance(options, dict) and options.get("use_reentrant", False)
    if args.gradient_checkpointing and reentrant and args.backbone_gradient > 0:
        raise InvalidInputError(
            "reentrant gradient checkpointing cuts the head's gradient off from the backbone: set use_reentrant=False, "
            "or backbone_gradient=0"
        )
    if args.beta != 0 and not adapted and policy != "embedded" and not _loadable(policy):
        raise InvalidInputError(
            f"beta={args.beta} compares with a reference that is loaded from the model's folder, and {policy!r} is "
            "none: save the model first (save_pretrained) and pass the folder, or set beta=0"
        )


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse processors of images.

    Raises:
        InvalidInputError: it is no tokenizer.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InvalidInputError(
            f"joint training is for text: processing_class must be a tokenizer, got {type(tokenizer).__name__}"
        )


def check_head(head: SPRM, hidden_size: int) -> None:
    """Refuse a head for another policy.

    Raises:
        HeadMismatchError: its hidden size is not the policy's.
    """
    if head.config.hidden_size != hidden_size:
        raise HeadMismatchError(
            f"the SPRM head reads hidden states of size {head.config.hidden_size}, but the policy's are of size "
            f"{hidden_size}: use the head that was fitted on this policy, or none for a new one"
        )


def _loadable(policy: str) -> bool:
    """A folder with a model, or what may be the id of a repository."""
    return (Path(policy) / "config.json").is_file() or (policy.count("/") == 1 and not policy.startswith((".", "/")))
