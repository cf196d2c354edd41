"""From a checkpoint's name to the scorer that it is: a process or outcome reward model, or a judge, as published."""

from __future__ import annotations

import re
from pathlib import Path

from tts_search.core.protocols import Scorer
from tts_search.scorers.checkpoint import names_of, read_config, reward_folder
from tts_search.written import bind, read_call


def is_checkpoint(text: str) -> bool:
    """Whether a scorer is meant as a model's: a folder, or the id of a repository with its organization.

    A file of Python, or an object in one (`path/to/file.py:Object`), is none.
    """
    name = name_of(text)
    if re.search(r"\.py(?::[\w.]+)?$", name):
        return False
    return "/" in name or Path(name).expanduser().is_dir()


def name_of(text: str) -> str:
    """The folder or id in `folder(setting=value)`."""
    return text if Path(text).expanduser().exists() else text.partition("(")[0].strip()


def read_scorer(text: str) -> Scorer:
    r"""A scorer as people write it: a folder or hub id, with settings of `load_scorer` or without.

    Such as `org/prm` and `org/prm(family="trl", separator="\n\n")`.

    Raises:
        ModelNotFoundError: no such checkpoint, or its weights lack the head.
        InvalidInputError: it cannot be read, or what it is cannot be told.
    """
    if name_of(text) == text:
        return load_scorer(text)
    return read_call(text, lambda name, places, named: bind(load_scorer, name, (name, *places), named).make())


def load_scorer(
    name_or_path: str | Path,
    *,
    family: str | None = None,
    separator: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Scorer:
    """The reward model or judge that a checkpoint holds, with all other settings as published.

    Args:
        name_or_path: a model folder, or the id of a repository on the Hugging Face hub.
        family: of process reward models, and `separator`: see `ProcessRewardModel.from_pretrained`.
        separator: see there.
        device: `"cpu"`, `"cuda:1"`, ...; `"auto"` prefers CUDA to MPS to the CPU.
        dtype: `"float32"`, `"bfloat16"`, ...; `"auto"` keeps the checkpoint's.

    Raises:
        ModelNotFoundError: no such checkpoint, or its weights lack the head.
        InvalidInputError: what it is cannot be told, or does not fit its tokenizer.
    """
    from tts_search.scorers.judge import GenPRM, ThinkPRM  # few searches have a scorer out of a checkpoint
    from tts_search.scorers.outcome import OutcomeRewardModel
    from tts_search.scorers.process import ProcessRewardModel

    if family is None and separator is None:
        folder = reward_folder(name_or_path)
        names = " ".join(names_of(folder, str(name_or_path)))
        for pattern, judge in (("thinkprm", ThinkPRM), ("genprm", GenPRM)):
            if re.search(pattern, names, re.IGNORECASE):
                return judge.from_pretrained(name_or_path, device=device, dtype=dtype)
        kinds: list[str] = read_config(folder).get("architectures") or []
        outcome = any(kind.endswith(("ForRewardModel", "ForSequenceClassification")) for kind in kinds)
        if outcome and not re.search(r"universal-prm", names, re.IGNORECASE):
            return OutcomeRewardModel.from_pretrained(name_or_path, device=device, dtype=dtype)
    return ProcessRewardModel.from_pretrained(
        name_or_path, family=family, separator=separator, device=device, dtype=dtype
    )
