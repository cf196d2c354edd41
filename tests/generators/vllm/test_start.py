"""How an engine starts: whose it is, and what becomes of one whose generator is closed meanwhile."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from tts_search.errors import GeneratorError
from tts_search.generators.vllm import VLLMGenerator, engine
from tts_search.generators.vllm.parent import STARTED_BY


def sleeper() -> SpawnProcess:
    process = get_context("spawn").Process(target=time.sleep, args=(3600,), name="EngineCore")
    process.start()
    return process


@pytest.fixture
def other() -> Iterator[SpawnProcess]:
    """Another engine of this process, which runs already."""
    process = sleeper()
    yield process
    process.kill()
    process.join()


def test_its_processes_are_told_whose_they_are(
    checkpoints: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "launch", lambda args: os.environ[STARTED_BY])
    assert engine.start({"model": str(checkpoints("qwen2")), "max_model_len": 64}, {}) == str(os.getpid())
    assert STARTED_BY not in os.environ


def test_closing_a_generator_ends_an_engine_that_is_starting_and_no_other(
    checkpoints: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, other: SpawnProcess
) -> None:
    """vLLM takes a minute to start, and fails at once where its process ends."""
    started: list[SpawnProcess] = []

    def launch(args: Any) -> None:
        started.append(sleeper())
        started[0].join()
        raise RuntimeError("Engine core initialization failed")

    async def close_while_it_starts() -> None:
        generator = VLLMGenerator(checkpoints("qwen2"))
        starting = asyncio.ensure_future(generator.start())
        while not started:
            await asyncio.sleep(0.02)
        await generator.aclose()
        with pytest.raises(GeneratorError, match="closed while its engine started"):
            await starting

    monkeypatch.setattr(engine, "launch", launch)
    asyncio.run(close_while_it_starts())
    assert not started[0].is_alive()
    assert other.is_alive()
