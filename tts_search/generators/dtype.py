"""In which type weights are held on a CPU: a half type that it only emulates is several times slower than fp32.

Products in bf16 measured 1.4, 3.0 and 4.6 times slower than in fp32 at 16, 64 and 256 rows, on an x86 CPU without
AVX512-BF16 and AMX. A GPU computes in every half type, and nothing here is asked about one.
"""

from __future__ import annotations

import json
import logging
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open

from tts_search.generators.memory import available_memory

logger = logging.getLogger(__name__)

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SAFETENSORS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
NATIVE = {  # any one of these computes it: flags of x86 and of Arm in /proc/cpuinfo, Apple's names for them
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16", "FEAT_BF16"},
    "float16": {"avx512_fp16", "amx_fp16", "asimdhp", "FEAT_FP16"},
}
MEMORY_SHARE = 0.5  # of what is free, for fp32 weights: the rest is for the cache of prefixes, and for others


class Checkpoint(NamedTuple):
    """What a model folder holds."""

    dtype: str | None  # None for one that is left as it is: quantized, or in a type of its own
    parameters: int


def cpu_dtype(folder: Path, asked: str = "auto", *, engine_default: str | None = None) -> str:
    """The type to load a model's weights in on this machine's CPU; what differs from the checkpoint's is logged, once.

    Args:
        folder: of the model.
        asked: by the user; anything but `"auto"` is taken as it is, and nothing is said.
        engine_default: the type that an engine makes of fp32 weights, None where it keeps them.

    Returns:
        `"auto"` where the engine's own choice is right, otherwise `"float32"`.
    """
    if asked != "auto":
        return asked
    dtype, message = decide(read_checkpoint(folder), cpu_flags(), available_memory(), engine_default=engine_default)
    if message is not None:
        _say(f"{folder.name}: {message}")
    return dtype


def decide(
    checkpoint: Checkpoint, flags: frozenset[str], available: int, *, engine_default: str | None = None
) -> tuple[str, str | None]:
    """The type to load in, and what to say of it, from the checkpoint, what the CPU can do, and its free bytes."""
    stored = checkpoint.dtype
    used = engine_default if stored == "float32" and engine_default is not None else stored
    if used not in NATIVE or flags & NATIVE[used]:
        return "auto", None
    if stored == "float32":  # no more memory than the folder takes on the disk
        return "float32", None
    needed = BYTES["float32"] * checkpoint.parameters
    gib = f"{needed / 2**30:.1f} GiB"
    if needed <= MEMORY_SHARE * available:
        return "float32", (
            f"this CPU computes {used} only by emulation, so its weights run in float32 ({gib}); "
            f'dtype="{used}" keeps them as they are'
        )
    return "auto", (
        f"this CPU computes {used} only by emulation, and in float32 its weights would take {gib} of the "
        f"{available / 2**30:.1f} GiB that are free, so they stay as they are and will be slow: "
        'free memory, take a smaller model, or insist with dtype="float32"'
    )


def read_checkpoint(folder: Path) -> Checkpoint:
    """The type and the number of a model's weights, from its config and the sizes of its files."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))
    in_files = _dtype_of_file(files[0]) if files else None
    parts = (config, config.get("text_config") or {})
    dtype = next((part[key] for part in parts for key in ("dtype", "torch_dtype") if part.get(key)), in_files)
    if "quantization_config" in config or dtype not in BYTES:
        return Checkpoint(None, 0)
    size = sum(file.stat().st_size for file in files or folder.glob("pytorch_model*.bin"))
    return Checkpoint(dtype, size // BYTES[in_files or dtype])


def _dtype_of_file(file: Path) -> str | None:
    with safe_open(file, framework="pt") as weights:
        name = next(iter(weights.keys()), None)
        return None if name is None else SAFETENSORS.get(weights.get_slice(name).get_dtype())


@cache
def cpu_flags() -> frozenset[str]:
    """What this machine's CPU says it can do; empty where it cannot be asked."""
    try:
        if platform.system() == "Darwin":
            listed = subprocess.run(["sysctl", "hw.optional.arm"], capture_output=True, text=True, check=False).stdout
            lines = [line.rsplit(".", 1)[-1].partition(":") for line in listed.splitlines()]
            return frozenset(name for name, _, value in lines if value.strip() == "1")
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    except OSError:
        return frozenset()
    return frozenset(
        word for name, _, value in lines if name.strip() in ("flags", "Features") for word in value.split()
    )


@cache
def _say(message: str) -> None:
    logger.warning(message)
