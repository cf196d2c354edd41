"""The generator on the real engine: processes, tensor parallelism, cancellation, death.

One engine serves almost the whole file, because each of its processes takes long to start. The last test kills it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("vllm")

from tests.generators.conftest import engine_of
from tests.generators.reference import differences
from tts_search.core.protocols import Request, Sampling
from tts_search.errors import GeneratorError, InvalidInputError
from tts_search.generators.vllm import VLLMGenerator

CONTEXT = 512
PLAIN = Sampling(temperature=1.0, top_p=1.0)


class Running:
    """A generator and the loop it lives in, which runs in a thread of its own as the library's does."""

    def __init__(self, generator: VLLMGenerator) -> None:
        self.generator = generator
        self.others = {process.pid for process in engine_processes()}  # a server that other tests have running, say
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.prompt = generator.tokenizer.encode("So the product must come first: 4 * 13 = 52.\n\nNow " * 3)

    def __call__(self, work: Coroutine[Any, Any, Any], *, timeout_seconds: float = 120) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_seconds)

    def request(self, *seeds: int, max_tokens: int = 32, endless: bool = False, **more: Any) -> Request:
        stops = frozenset({0}) if endless else self.generator.tokenizer.eos_ids
        return Request(prefix=self.prompt, seeds=seeds, max_tokens=max_tokens, stop_ids=stops, sampling=PLAIN, **more)

    def close(self) -> None:
        self(self.generator.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture(scope="module")
def running(checkpoints: Callable[..., Path]) -> Iterator[Running]:
    generator = VLLMGenerator(
        checkpoints("qwen2"),
        dtype="float32",
        max_model_len=CONTEXT,
        kv_cache_gib=0.05,
        tensor_parallel_size=2,
        enforce_eager=True,
    )
    running = Running(generator)
    try:
        running(generator.start(), timeout_seconds=400)
        yield running
    finally:
        running.close()


def test_scores_under_tensor_parallelism_are_the_references(running: Running) -> None:
    first = running(running.generator.generate(running.request(0, 1, 2, 3)))
    again = running(running.generator.generate(running.request(4, 5)))
    assert all(completion.cached_tokens >= len(running.prompt) - 32 > 0 for completion in again)
    folder = running.generator.folder
    assert folder is not None
    scores, logprobs = differences(folder, "float32", running.prompt, [*first, *again])
    assert scores <= 1e-4
    assert logprobs <= 1e-4


def test_seeds_decide_and_batching_does_not(running: Running) -> None:
    alone = [running(running.generator.generate(running.request(seed)))[0] for seed in (7, 7, -1)]
    together = running(running.generator.generate(running.request(-1, 7, 8, 7)))
    assert alone[0].token_ids == alone[1].token_ids == together[1].token_ids == together[3].token_ids
    assert alone[2].token_ids == together[0].token_ids
    assert len({completion.token_ids for completion in together}) == 3


def test_progress_counts_every_sampled_token(running: Running) -> None:
    counts: list[int] = []
    streamed = running(running.generator.generate(running.request(7, 8, on_tokens=counts.append)))
    whole = running(running.generator.generate(running.request(7, 8)))
    assert sum(counts) == sum(completion.sampled_tokens for completion in streamed)
    assert len(counts) > 2
    for a, b in zip(streamed, whole, strict=True):
        assert a.token_ids == b.token_ids
        assert a.scores == pytest.approx(b.scores, abs=1e-5)


def test_stop_tokens_end_a_completion_and_stay_in_it(running: Running) -> None:
    stops = frozenset(range(0, 400, 5)) | running.generator.tokenizer.eos_ids
    request = Request(prefix=running.prompt, seeds=tuple(range(6)), max_tokens=40, stop_ids=stops, sampling=PLAIN)
    for completion in running(running.generator.generate(request)):
        assert not stops & set(completion.token_ids[:-1])
        assert completion.token_ids[-1] in stops or len(completion.token_ids) == 40


def test_a_prefix_that_fills_the_context_is_refused(running: Running) -> None:
    for prefix in ((), (5,) * CONTEXT):
        request = Request(prefix=prefix, seeds=(0,), max_tokens=4, stop_ids=frozenset({0}))
        with pytest.raises(InvalidInputError, match="prefix must hold 1 to 511 tokens"):
            running(running.generator.generate(request))
    almost = Request(prefix=(5,) * (CONTEXT - 2), seeds=(0,), max_tokens=9, stop_ids=frozenset({0}), sampling=PLAIN)
    assert len(running(running.generator.generate(almost))[0].token_ids) == 2


def test_cancelling_aborts_the_engines_requests(running: Running) -> None:
    started = threading.Event()
    request = running.request(*range(8), max_tokens=400, endless=True, on_tokens=lambda _: started.set())

    async def cancel() -> int:
        task = asyncio.create_task(running.generator.generate(request))
        await asyncio.to_thread(started.wait, 60)
        engine = engine_of(running.generator)
        assert engine.output_processor.get_num_unfinished_requests() == 8
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return engine.output_processor.get_num_unfinished_requests()

    assert running(cancel()) == 0
    running(running.generator.reset_prefix_cache())  # refused while a block is in use
    fresh = running(running.generator.generate(running.request(0)))
    assert fresh[0].cached_tokens == 0


def test_another_event_loop_is_refused(running: Running) -> None:
    with pytest.raises(GeneratorError, match="another event loop"):
        asyncio.run(running.generator.generate(running.request(0)))


def test_closing_ends_what_runs_and_no_traceback_is_logged(
    checkpoints: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    running = Running(
        VLLMGenerator(
            checkpoints("qwen2"), dtype="float32", max_model_len=CONTEXT, kv_cache_gib=0.05, enforce_eager=True
        )
    )
    started = threading.Event()
    request = running.request(0, max_tokens=450, endless=True, on_tokens=lambda _: started.set())
    future = asyncio.run_coroutine_threadsafe(running.generator.generate(request), running.loop)
    assert started.wait(400)
    processes = [process for process in engine_processes() if process.pid not in running.others]
    assert len(processes) >= 2
    capfd.readouterr()
    running(running.generator.aclose())
    with pytest.raises(GeneratorError, match="make a new generator"):
        future.result(60)
    running.close()
    assert "Traceback" not in capfd.readouterr().err
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive


def test_a_killed_engine_is_an_error_and_leaves_nothing_behind(running: Running) -> None:
    processes = [process for process in engine_processes() if process.pid not in running.others]
    assert len(processes) >= 3  # the engine's core and a worker per rank
    started = threading.Event()
    request = running.request(*range(4), max_tokens=450, endless=True, on_tokens=lambda _: started.set())
    future = asyncio.run_coroutine_threadsafe(running.generator.generate(request), running.loop)
    assert started.wait(60)
    processes[-1].kill()
    with pytest.raises(GeneratorError, match="make a new generator"):
        future.result(60)
    with pytest.raises(GeneratorError, match="make a new generator"):
        running(running.generator.generate(running.request(0)))
    running(running.generator.aclose())
    running(running.generator.aclose())
    with pytest.raises(GeneratorError, match="closed"):
        running(running.generator.generate(running.request(0)))
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive


def engine_processes() -> list[psutil.Process]:
    """Processes that vLLM has started below this one, youngest last."""
    found = []
    for process in psutil.Process().children(recursive=True):
        if any(name in process.name() for name in ("VLLM", "EngineCore", "Worker", "python", "pt_main_thread")):
            helper = "resource_tracker" in " ".join(process.cmdline())  # Python's own, lives as long as this process
            found += [] if helper else [process]
    return sorted(found, key=psutil.Process.create_time)
