"""vLLM's synchronous engine inside the test process, with the face of `AsyncLLM` that the generator uses.

The same scheduler, worker, model classes and sampler as in the real engine, without the minute that three processes
need to import them. What is not exercised here is the transport between processes; `test_engine.py` does that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any


class InProcessEngine:
    def __init__(self, args: Any) -> None:
        from vllm.v1.engine.llm_engine import LLMEngine

        self.engine: Any = LLMEngine.from_engine_args(args, enable_multiprocessing=False)
        self.scheduler: Any = self.engine.engine_core.engine_core.scheduler
        self.model: Any = self.engine.model_executor.driver_worker.worker.model_runner.model
        self.preemptions = 0
        preempt = self.scheduler._preempt_request

        def counting(*args: Any, **kwargs: Any) -> None:
            self.preemptions += 1
            preempt(*args, **kwargs)

        self.scheduler._preempt_request = counting
        self._queues: dict[str, asyncio.Queue[Any]] = {}
        self._stepping: asyncio.Task[None] | None = None

    async def generate(
        self, prompt: Any, params: Any, request_id: str, data_parallel_rank: int | None = None
    ) -> AsyncIterator[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self.engine.add_request(request_id, prompt, params)
        self._queues[request_id] = queue
        if self._stepping is None or self._stepping.done():
            self._stepping = asyncio.create_task(self._step())
        try:
            while True:
                output = await queue.get()
                if isinstance(output, BaseException):
                    raise output
                yield output
                if output.finished:
                    return
        except (asyncio.CancelledError, GeneratorExit):
            self.engine.abort_request([request_id])
            raise
        finally:
            del self._queues[request_id]

    async def reset_prefix_cache(self) -> bool:
        return bool(self.engine.reset_prefix_cache())

    def shutdown(self) -> None:
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self.engine.engine_core.shutdown()
        cleanup_dist_env_and_memory()

    async def _step(self) -> None:
        try:
            while self.engine.has_unfinished_requests():
                for output in self.engine.step():
                    if output.request_id in self._queues:
                        self._queues[output.request_id].put_nowait(output)
                await asyncio.sleep(0)
        except Exception as error:
            for queue in self._queues.values():
                queue.put_nowait(error)
