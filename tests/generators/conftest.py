"""What the tests of the vLLM generator share: checkpoints made once, and an engine without processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints import Architecture, write_checkpoint
from tts_search.sprm.config import Readout
from tts_search.sprm.loading import FOLDER
from tts_search.sprm.module import SPRM


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Tiny random models with heads, made when first asked for."""
    root = tmp_path_factory.mktemp("models")

    def checkpoint(architecture: Architecture = "qwen2", *, readout: Readout | None = "previous") -> Path:
        folder = root / f"{architecture}-{readout}"
        if not folder.exists():
            write_checkpoint(folder, architecture, readout=readout)
            soften(folder)
        return folder

    return checkpoint


def soften(folder: Path) -> None:
    """Turn the random weights down, so that two implementations of bf16 stay close enough to be compared.

    At full size each block multiplies the rounding of the last, and two correct engines differ by whole units.
    """
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    for name, value in weights.items():
        if name.endswith("proj.weight"):
            value *= 0.25
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if (folder / FOLDER).is_dir():
        head = SPRM.from_pretrained(folder)
        with torch.no_grad():
            head.layers.state_dict()["3.weight"].mul_(0.2)  # logits within a few units, as trained heads give
        head.save_pretrained(folder / FOLDER)


@contextmanager
def in_process() -> Iterator[None]:
    """Let generators that start within run vLLM in this process, and undo what vLLM does to it."""
    import torch._dynamo

    from tests.generators.vllm.inprocess import InProcessEngine

    threads, set_threads, environment = torch.get_num_threads(), torch.set_num_threads, dict(os.environ)
    # The threads that vLLM starts in are to count as many as this one does: their kernels share out work by it. A
    # generator of transformers for a small model has told all new threads of the process to have one.
    torch.set_num_threads(threads)
    patch = pytest.MonkeyPatch()
    patch.setattr("tts_search.generators.vllm.engine.launch", InProcessEngine)
    patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    patch.setenv("VLLM_CPU_CI_ENV", "1")
    try:
        with torch.random.fork_rng(), torch._dynamo.config.patch(disable=True):
            yield
    finally:
        patch.undo()
        torch.set_num_threads = set_threads
        torch.set_num_threads(threads)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


def engine_of(generator: Any) -> Any:
    """The engine behind a started generator."""
    assert generator._starting is not None
    return generator._starting.result()


def run_in_process(generator: Any, work: Callable[[Any], Any]) -> Any:
    """Run `work(generator)`, a coroutine function, on an in-process engine, and close it."""

    async def whole() -> Any:
        try:
            return await work(generator)
        finally:
            await generator.aclose()

    with in_process():
        return asyncio.run(whole())
