"""Where a head lies in a folder, and how its files are read: ours, and the released checkpoints'.

torch is imported where weights are read: who only asks a server for scores does without it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tts_search.errors import HeadMismatchError, InvalidInputError
from tts_search.segmentation import rule_from_json
from tts_search.sprm.config import SPRMConfig

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
RELEASED_FILE = "score_module.pt"
FOLDER = "sprm"


def head_folder(folder: str | Path) -> Path | None:
    """The folder that holds the head of a model folder (or is itself a head's), None where there is none.

    `sprm/` goes before the folder itself, and in either a head of ours before a released one. Whose `model.safetensors`
    is, a head's or the policy's, only the `config.json` beside it says. A `sprm/` with weights whose config is missing
    or damaged counts as a head, so that loading it fails: to go without would be silent.
    """
    own = Path(folder) / FOLDER
    if (own / WEIGHTS_FILE).is_file() and _config(own) is None:
        return own
    return next((p for p in (own, Path(folder)) if is_head(p) or (p / RELEASED_FILE).is_file()), None)


def is_head(folder: Path) -> bool:
    """Whether the folder's config is that of a head that `save_pretrained` wrote."""
    return "readout" in (_config(folder) or {})


def check_free(folder: Path) -> None:
    """Refuse a folder in which a head would overwrite what is no head.

    Raises:
        InvalidInputError: it holds a config or weights, and the config is no head's.
    """
    taken = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if (folder / name).exists()]
    if taken and not is_head(folder):
        raise InvalidInputError(
            f"{str(folder)!r} holds a {taken[0]} that is no head's, most likely a model's: write the head to "
            f"{str(folder / FOLDER)!r} instead"
        )


def _config(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / CONFIG_FILE).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def read_config(path: Path) -> SPRMConfig:
    """The config that `save_pretrained` wrote.

    Raises:
        HeadMismatchError: it is not the config of a head.
    """
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        raw["step_rule"] = rule_from_json(raw["step_rule"])
        return SPRMConfig(**raw)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HeadMismatchError(f"{str(path)!r} is not the config of an SPRM head: {error}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The weights that `save_pretrained` wrote.

    Raises:
        HeadMismatchError: the file cannot be read.
    """
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own, undocumented classes
        raise HeadMismatchError(f"{str(path)!r} is not a readable safetensors file: {error}") from error


def read_released(path: Path) -> dict[str, Tensor]:
    """The weights of a released `score_module.pt`, in fp32; nothing else is ever unpickled.

    Raises:
        HeadMismatchError: it is no such state dict.
    """
    import torch

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        if weights["0.weight"].ndim != 2:
            raise ValueError(f"0.weight has shape {tuple(weights['0.weight'].shape)}")
        return {name: value.float() for name, value in weights.items()}
    except Exception as error:  # a file that is no state dict fails in many ways
        raise HeadMismatchError(
            f"{str(path)!r} is not a released SPRM head (a state dict with 0.weight 0.bias 3.weight 3.bias): {error}"
        ) from error
