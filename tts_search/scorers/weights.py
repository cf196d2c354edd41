"""The weights of a checkpoint: which there are, and a model of transformers with them.

No code that comes with them is run, and no file is unpickled but as plain tensors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.utils import logging

from tts_search.errors import InvalidInputError, MissingDependencyError, ModelNotFoundError
from tts_search.generators.transformers.placement import placement
from tts_search.models import model_folder
from tts_search.scorers.checkpoint import base_of


def weight_files(folder: Path) -> dict[str, Path]:
    """The names of all weights in a model folder, and the file that holds each."""
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / index).is_file():
            return {k: folder / file for k, file in json.loads((folder / index).read_text())["weight_map"].items()}
    if (file := folder / "model.safetensors").is_file():
        with safe_open(file, framework="pt") as weights:
            return dict.fromkeys(weights.keys(), file)
    if (file := folder / "pytorch_model.bin").is_file():
        return dict.fromkeys(_unpickled(file), file)
    return {}


def rows(folder: Path, name: str) -> int | None:
    """How many rows a weight has, None where it is not there."""
    file = weight_files(folder).get(name)
    if file is None:
        return None
    if file.suffix == ".bin":
        return _unpickled(file)[name].shape[0]
    with safe_open(file, framework="pt") as weights:
        return weights.get_slice(name).get_shape()[0]


def _unpickled(file: Path) -> dict[str, Tensor]:
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)


def load_model(
    kind: Any,
    folder: Path,
    *,
    device: str,
    dtype: str,
    config: PreTrainedConfig | None = None,
    names: dict[str, str] | None = None,
) -> Any:
    """A model of transformers, frozen, on its device; without a weight it is refused, and never made up.

    An adapter (PEFT) is merged into its base.

    `names` are patterns of weights' names and what to put in their place.

    Raises:
        ModelNotFoundError: it cannot be loaded, or weights are missing.
        InvalidInputError: no such device or dtype.
    """
    device, dtype = placement(folder, device, dtype)
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # weights that are not needed (a language model's head) are no news
    base = base_of(folder)
    try:
        model, report = kind.from_pretrained(
            str(folder if base is None else model_folder(base)),
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            key_mapping=names,
        )
        missing = set(report["missing_keys"])
        if base is not None:
            model, brought = _adapted(model, folder)
            missing = {name for name in missing if name.split(".")[0] not in brought}
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelNotFoundError(f"no reward model can be loaded from {str(folder)!r}: {error}") from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
    if missing:
        raise ModelNotFoundError(
            f"the weights in {str(folder)!r} lack {', '.join(sorted(missing)[:4])}, without which its scores would be "
            "chance: it is a model of another kind"
        )
    try:
        return model.eval().requires_grad_(False).to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise InvalidInputError(f"the model cannot be put on device {device!r}: {error}") from error


def _adapted(model: Any, folder: Path) -> tuple[Any, frozenset[str]]:
    """A base with the adapter of a folder merged into it, and the names of modules that the adapter brings whole."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingDependencyError(f"{str(folder)!r} holds an adapter, which needs peft: pip install peft") from error
    adapted = PeftModel.from_pretrained(model, str(folder))
    brought = frozenset(getattr(adapted.peft_config["default"], "modules_to_save", None) or ())
    return adapted.merge_and_unload(), brought
