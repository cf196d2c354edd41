"""The engine side of the vLLM generator: starting `AsyncLLM`, sending it one request, reading what came back.

Everything that depends on vLLM's own interfaces is here. What a completion is, and where the head's readout puts a
score, is `vllm`'s matter.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pydantic_core import ValidationError

from tts_search.core.protocols import Sampling
from tts_search.errors import GeneratorError, InvalidInputError
from tts_search.generators.dtype import cpu_dtype
from tts_search.generators.engine_requests import SEED_MASK, Run
from tts_search.generators.memory import available_memory
from tts_search.generators.vllm.parent import STARTED_BY
from tts_search.generators.vllm.plugin import read_score

LOOK_SECONDS = 0.2


def start(chosen: Mapping[str, Any], extra: Mapping[str, Any]) -> Any:
    """Start an engine; returns when the model is loaded.

    Args:
        chosen: engine arguments that this package sets; what suits the machine is added to them.
        extra: the user's, which go before all others.

    Raises:
        InvalidInputError: vLLM has no argument of that name, or does not take its value.
        GeneratorError: vLLM could not start.
    """
    arguments = None
    try:
        with environment({"VLLM_LOGGING_LEVEL": "ERROR", STARTED_BY: str(os.getpid())}):
            from vllm import AsyncEngineArgs

            args, wanted = suited({**chosen, **extra})
            with environment(wanted):
                arguments = AsyncEngineArgs(**args | dict(extra))
                return launch(arguments)
    except Exception as error:  # vLLM raises whatever its parts raise
        if (arguments is None and isinstance(error, TypeError)) or isinstance(error, ValidationError):
            raise InvalidInputError(f"vLLM refuses its engine arguments: {_refusal(error)}") from error
        raise GeneratorError(
            f"vLLM did not start on {chosen['model']!r}: {error} (the log above has the cause; if it is memory, ask "
            "for a smaller max_model_len, kv_cache_gib or gpu_memory_utilization)"
        ) from error


def _refusal(error: TypeError | ValidationError) -> str:
    """What was wrong, without the values that pydantic prints and the links below them."""
    if isinstance(error, TypeError):
        return str(error).replace("AsyncEngineArgs.__init__() ", "")
    said = [f"{'.'.join(map(str, one['loc'])) or error.title}: {one['msg']}" for one in error.errors()]
    return "; ".join(" ".join(words.split()) for words in said)


def suited(chosen: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Engine arguments with what suits this machine added, and environment variables for the engine's processes.

    `chosen` holds the folder of the model and `max_model_len`.
    """
    from vllm.platforms import current_platform

    args = dict(chosen)
    if not current_platform.is_cpu():
        return {"block_size": 16} | args, {}
    # Chunking off: a seeded request with a partly processed prompt kills the CPU engine (vLLM 0.32).
    args |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(args["max_model_len"], 4096)}
    args.setdefault("block_size", 32)
    narrowed = str(current_platform.supported_dtypes[0]).removeprefix("torch.")  # what vLLM makes of fp32 weights
    args["dtype"] = cpu_dtype(Path(args["model"]), args.get("dtype", "auto"), engine_default=narrowed)
    if "gpu_memory_utilization" not in args and "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
        # vLLM would reserve nine tenths of the machine, and not start beside anything else.
        args.setdefault("kv_cache_memory_bytes", available_memory() // 4)
    # Binding threads to cores needs rights that containers do not have. Without it vLLM computes with one thread unless
    # it is told a number.
    threads = max(1, _cores() // args.get("tensor_parallel_size", 1))
    wanted = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
    if args.get("enforce_eager"):
        wanted["TORCHDYNAMO_DISABLE"] = "1"  # or the first request waits for the compiler all the same
    return args, wanted


def launch(args: Any) -> Any:
    """The engine itself, in processes of its own."""
    from vllm.v1.engine.async_llm import AsyncLLM

    return AsyncLLM.from_engine_args(args)


async def give_up(starting: asyncio.Future[Any], others: Collection[BaseProcess]) -> None:
    """Wait until a start has failed, which it does once its processes are ended: those that are not `others`."""
    while not starting.done():
        for child in multiprocessing.active_children():
            if child not in others and child.name.startswith("EngineCore"):
                child.kill()
        await asyncio.wait([starting], timeout=LOOK_SECONDS)


async def stop(engine: Any) -> None:
    """End the engine and its processes; a request that still runs fails. Call it in the engine's own loop."""
    from vllm.v1.engine.exceptions import EngineDeadError

    reader = getattr(engine, "output_handler", None)
    if reader is not None:
        reader.cancel()  # it would take the end of the processes for a crash, and log a traceback
        engine.output_processor.propagate_error(EngineDeadError())
    await asyncio.to_thread(engine.shutdown)
    # vLLM shuts down once more when the object is collected, and complains if that is when the interpreter exits.
    engine.shutdown = lambda: None


def sampling_params(
    sampling: Sampling,
    *,
    seed: int,
    max_tokens: int,
    stop_ids: frozenset[int],
    columns: tuple[int, int] | None,
    streaming: bool,
) -> Any:
    """One completion's settings, in vLLM's form; `columns` are the ids that carry the score."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        seed=seed & SEED_MASK,
        max_tokens=max_tokens,
        stop_token_ids=sorted(stop_ids),
        ignore_eos=True,  # the request says what ends it, the end-of-text ids among them
        detokenize=False,
        # All requests to one engine take the same of these two: vLLM cannot mix them in a batch.
        logprobs=None if columns else 0,
        logprob_token_ids=list(columns) if columns else None,
        flat_logprobs=True,
        output_kind=RequestOutputKind.DELTA if streaming else RequestOutputKind.FINAL_ONLY,
    )


async def run(
    engine: Any,
    request_id: str,
    prefix: Sequence[int],
    params: Any,
    on_tokens: Callable[[int], None] | None = None,
    on_delta: Callable[[Sequence[int]], None] | None = None,
    rank: int | None = None,
) -> Run:
    """Send one request and wait for its end; cancelling the call aborts it in the engine.

    `rank` is the data parallel rank to take it, None leaves that to vLLM.

    Raises:
        InvalidInputError: vLLM refuses the request.
        GeneratorError: the engine died, or what it returned is no number.
    """
    from vllm.exceptions import VLLMClientError
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    tokens: list[int] = []
    flat: list[float] = []
    cached = 0
    try:
        async for output in engine.generate(
            {"prompt_token_ids": list(prefix)}, params, request_id, data_parallel_rank=rank
        ):
            part = output.outputs[0]
            tokens.extend(part.token_ids)
            flat.extend(part.logprobs.logprobs)
            cached = output.num_cached_tokens or cached
            if on_tokens is not None and part.token_ids:
                on_tokens(len(part.token_ids))
            if on_delta is not None and part.token_ids:
                on_delta(part.token_ids)
    except VLLMClientError as error:
        raise InvalidInputError(
            f"vLLM refused to continue {len(prefix)} tokens by {params.max_tokens}: {error}"
        ) from error
    except (EngineDeadError, EngineGenerateError) as error:
        raise GeneratorError(
            f"the vLLM engine died while it had requests ({error}): make a new generator; if that dies too, the log "
            "above has the cause, most often memory"
        ) from error
    return _read(tokens, flat, cached, scored=params.logprob_token_ids is not None)


def _read(tokens: list[int], flat: list[float], cached: int, *, scored: bool) -> Run:
    """Take apart what came back: for each token its own log-probability, then those of the score columns."""
    stride = 3 if scored else 1
    if not tokens or len(flat) != stride * len(tokens):
        raise GeneratorError(
            f"vLLM returned {len(tokens)} tokens with {len(flat)} log-probabilities, expected {stride} for each of at "
            "least one token: the request was aborted from outside, or this version of vLLM is not supported"
        )
    logprobs = flat[::stride]
    rows = [read_score(*pair) for pair in zip(flat[1::3], flat[2::3], strict=True)] if scored else []
    return Run(tokens, logprobs, rows, len(tokens), cached).checked()


@contextmanager
def environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Variables for vLLM's processes to inherit, where the user has not set them; taken back afterwards."""
    missing = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ |= missing
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
