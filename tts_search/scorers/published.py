"""From a checkpoint's name to the scorer that it is: a process or outcome reward model, or a judge, as published."""

from __future__ import annotations

import re
from pathlib import Path

from tts_search.core.protocols import Scorer
from tts_search.scorers.checkpoint import names_of, read_config, reward_folder
from tts_search.scorers.judge import GenPRM, ThinkPRM
from tts_search.scorers.outcome import OutcomeRewardModel
from tts_search.scorers.process import ProcessRewardModel

_JUDGES = {"thinkprm": ThinkPRM, "genprm": GenPRM}


def is_checkpoint(name: str) -> bool:
    """Whether a scorer's name is meant as a model's: a folder, or the id of a repository with its organization."""
    return "/" in name or Path(name).expanduser().is_dir()


def load_scorer(name_or_path: str | Path) -> Scorer:
    """The reward model or judge that a checkpoint holds, with all settings as published.

    For others see `ProcessRewardModel`, `OutcomeRewardModel`, `ThinkPRM` and `GenPRM`, each `.from_pretrained`.

    Raises:
        ModelNotFoundError: no such checkpoint, or its weights lack the head.
        InvalidInputError: what it is cannot be told, or does not fit its tokenizer.
    """
    folder = reward_folder(name_or_path)
    names = " ".join(names_of(folder, str(name_or_path)))
    for pattern, judge in _JUDGES.items():
        if re.search(pattern, names, re.IGNORECASE):
            return judge.from_pretrained(name_or_path)
    kinds: list[str] = read_config(folder).get("architectures") or []
    outcome = any(kind.endswith(("ForRewardModel", "ForSequenceClassification")) for kind in kinds)
    if outcome and not re.search(r"universal-prm", names, re.IGNORECASE):
        return OutcomeRewardModel.from_pretrained(name_or_path)
    return ProcessRewardModel.from_pretrained(name_or_path)
