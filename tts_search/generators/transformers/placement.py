"""On which device a model that runs in this process lies, and in which type its weights are loaded."""

from __future__ import annotations

from pathlib import Path

import torch

from tts_search.errors import InvalidInputError
from tts_search.generators.dtype import cpu_dtype


def placement(folder: Path, device: str = "auto", dtype: str = "auto") -> tuple[str, str]:
    """Device and dtype for a model's folder: of devices the best there is, and a dtype that it computes well.

    Raises:
        InvalidInputError: there is no such dtype.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise InvalidInputError(f'dtype must be "auto" or a torch float type such as "bfloat16", got {dtype!r}')
    return device, cpu_dtype(folder, dtype) if device.partition(":")[0] == "cpu" else dtype
