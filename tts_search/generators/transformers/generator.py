"""The generator that runs wherever torch does: Hugging Face transformers, batching whatever is in flight.

One thread owns the model. Requests reach it through a queue, and their completions come back to the event loop they
were made on. How tokens are decoded is `decoding`'s matter; this module knows loading, checking and delivering.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tts_search.core.protocols import Completion, Request
from tts_search.errors import GeneratorError, InvalidInputError, MissingDependencyError, ModelNotFoundError
from tts_search.generators.pretrained import PretrainedGenerator, fingerprint
from tts_search.generators.tokenizer import PretrainedTokenizer
from tts_search.models import model_folder, model_name
from tts_search.thinking import ThinkingTags

if TYPE_CHECKING:
    from tts_search.generators.transformers.decoding import Decoder, Job
    from tts_search.sprm.module import SPRM


SINGLE_THREAD_PARAMETERS = 10_000_000


class TransformersGenerator(PretrainedGenerator):
    """Continues token sequences with a model of `transformers`, on any machine.

    Args:
        model: a model folder, the id of a model on the Hugging Face hub, or `"embedded"`. Code that comes with a model
            is never run.
        head: the folder of an SPRM head; `"auto"` takes the one in the model's folder if there is one; None goes
            without scores.
        device: `"cpu"`, `"cuda:1"`, ...; `"auto"` prefers CUDA to MPS to the CPU.
        dtype: `"float32"`, `"bfloat16"`, ...; `"auto"` keeps the checkpoint's, but runs in fp32 on a CPU that does not
            compute the checkpoint's itself, if memory allows. The head always computes in fp32.
        max_batch: continuations in flight at once; more of them wait for a free slot.
        context_tokens: the longest prefix plus completion, where it is to be shorter than the model's.
        threads: CPU threads for the model; None is torch's default, or 1 for a model so small that threads would
            wait for each other longer than they work.
        prefix_cache_tokens: how many tokens of earlier sequences to keep, so that continuing one of them does not read
            its prefix again; what sequences share is kept, and counted, once. None is room for `max_batch` of the
            longest, within a quarter of the memory that is free when the first is kept (a single one may take half);
            0 for none. Between two requests the slots of `max_batch` may hold as much again. Scores and tokens are the
            same up to rounding.
        thinking_tags: the texts around a thought, where neither vocabulary nor chat template tells; None for a model
            that does not think.

    Raises:
        ModelNotFoundError: no model, no tokenizer, or no head there.
        HeadMismatchError: the head does not fit the model.
        InvalidInputError: an argument is out of range.
        MissingDependencyError: torch or transformers is not installed.
    """

    reports_completions = True

    def __init__(
        self,
        model: str | Path,
        *,
        head: str | Path | Literal["auto"] | None = "auto",
        device: str = "auto",
        dtype: str = "auto",
        max_batch: int = 64,
        context_tokens: int | None = None,
        threads: int | None = None,
        prefix_cache_tokens: int | None = None,
        thinking_tags: ThinkingTags = "auto",
    ) -> None:
        if max_batch < 1:
            raise InvalidInputError(f"max_batch must be at least 1, got {max_batch}")
        if threads is not None and threads < 1:
            raise InvalidInputError(f"threads must be at least 1, or None for torch's default; got {threads}")
        if prefix_cache_tokens is not None and prefix_cache_tokens < 0:
            raise InvalidInputError(f"prefix_cache_tokens must not be negative, got {prefix_cache_tokens}")
        try:
            from tts_search.generators.transformers.decoding import Decoder
        except ImportError as error:
            raise MissingDependencyError(
                f"the transformers generator needs torch and transformers ({error}): pip install torch transformers"
            ) from error
        folder = model_folder(model)
        tokenizer = PretrainedTokenizer(folder, thinking_tags=thinking_tags)
        policy = _load_policy(folder, device, dtype)
        config = policy.config.get_text_config()
        context = _context(config, context_tokens)
        sprm = _load_head(folder, head, config.hidden_size)
        super().__init__(model_name(model), tokenizer, context, None if sprm is None else sprm.config, folder)
        self.fingerprint = fingerprint(
            folder, None if sprm is None else head, engine="transformers", dtype=str(policy.dtype)
        )
        decoder = Decoder(
            policy,
            None if sprm is None else sprm.to(policy.device),
            vocabulary=min(config.vocab_size, len(tokenizer)),
            max_rows=max_batch,
            max_tokens=context + 1,
            prefix_tokens=prefix_cache_tokens,
        )
        if threads is None and policy.num_parameters() < SINGLE_THREAD_PARAMETERS:
            threads = 1
        self._worker = _Worker(decoder, threads)
        # A generator that is dropped without `aclose` must not keep its thread, and with it the model.
        self._finalizer = weakref.finalize(self, self._worker.stop)

    async def generate(self, request: Request) -> Sequence[Completion]:
        """One completion per seed, in their order. Cancelling the call frees its slots at the next token.

        Raises:
            GeneratorError: the request does not fit the context, the model's logits are NaN, the engine ran out of
                memory, or it is closed.
        """
        from tts_search.generators.transformers.decoding import Job

        prefix = self._check(request)
        if not request.seeds:
            return []
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[Completion]] = loop.create_future()
        report, stream, done = request.on_tokens, request.on_delta, request.on_completion
        job = Job(
            request,
            prefix,
            stop_ids=request.stop_ids | self._tokenizer.eos_ids,
            deliver=lambda result: _call(loop, _settle, future, result),
            progress=None if report is None else lambda count: _call(loop, report, count),
            delta=None if stream is None else lambda sample, ids: _call(loop, stream, sample, ids),
            done=None if done is None else lambda sample, completion: _call(loop, done, sample, completion),
        )
        self._worker.submit(job)
        try:
            return await future
        finally:
            job.cancelled = True  # of no consequence for a job that is done

    async def aclose(self) -> None:
        """Stop the engine and free the model; what is in flight fails. Calling it twice is harmless."""
        self._finalizer()
        await asyncio.to_thread(self._worker.join)

    def _check(self, request: Request) -> array[int]:
        """The prefix, in a form that costs nothing for each token from here on."""
        if not len(request.prefix):
            raise GeneratorError("the prefix is empty: a language model needs at least one token to continue")
        if request.max_tokens < 1:
            raise GeneratorError(f"max_tokens must be at least 1, got {request.max_tokens}")
        wanted = len(request.prefix) + request.max_tokens
        if wanted > self._context_tokens:
            raise GeneratorError(
                f"a prefix of {len(request.prefix)} tokens and max_tokens={request.max_tokens} make {wanted} tokens, "
                f"but {self._name} holds {self._context_tokens}: ask for fewer tokens"
            )
        try:
            prefix = array("q", tuple(request.prefix))
        except (TypeError, OverflowError) as error:
            raise GeneratorError(f"the prefix holds what cannot be a token id: {error}") from error
        ids = np.frombuffer(prefix, np.int64)
        outside = ids[(ids < 0) | (ids >= len(self._tokenizer))]
        if outside.size:
            raise GeneratorError(f"the prefix holds ids that {self._name} has no token for: {outside[:5].tolist()}")
        return prefix


class _Worker:
    """The thread that owns the decoder."""

    def __init__(self, decoder: Decoder, threads: int | None) -> None:
        self._decoder: Decoder | None = decoder
        self._threads = threads
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        # A daemon, so that a program that forgot to close the generator can end.
        self._thread = threading.Thread(target=self._run, name="tts-search-transformers", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        with self._lock:
            if self._closed:
                raise GeneratorError("this generator is closed: make a new one")
            self._inbox.put(job)

    def stop(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._inbox.put(None)

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        decoder = self._decoder
        assert decoder is not None
        try:
            if self._threads is not None:
                import torch

                torch.set_num_threads(self._threads)
            while self._take_in(decoder):
                try:
                    decoder.step()
                except Exception as error:  # out of memory, a kernel that fails: the next request may well succeed
                    failure = GeneratorError(f"the engine failed while decoding: {type(error).__name__}: {error}")
                    failure.__cause__ = error
                    decoder.fail(failure)
        finally:
            with self._lock:  # from here on nothing can be submitted, so nothing can be left waiting
                self._closed = True
            while not self._inbox.empty():
                if (job := self._inbox.get()) is not None:
                    decoder.submit(job)
            decoder.fail(GeneratorError("the generator was closed while this request was in flight"))
            self._decoder = None

    def _take_in(self, decoder: Decoder) -> bool:
        """Hand over what has arrived, waiting for something to do; False when it is time to stop."""
        while decoder.idle or not self._inbox.empty():
            job = self._inbox.get()
            if job is None:
                return False
            decoder.submit(job)
        return True


def _load_policy(folder: Path, device: str, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from tts_search.generators.transformers.placement import placement

    device, dtype = placement(folder, device, dtype)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a command line has its own
    try:
        policy: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelNotFoundError(f"no causal language model can be loaded from {str(folder)!r}: {error}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    try:
        return policy.eval().requires_grad_(False).to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise InvalidInputError(f"the model cannot be put on device {device!r}: {error}") from error


def _load_head(folder: Path, head: str | Path | None, hidden_size: int) -> SPRM | None:
    from tts_search.sprm.loading import head_folder
    from tts_search.sprm.module import SPRM

    if head == "auto":
        head = folder if head_folder(folder) else None
    return None if head is None else SPRM.from_pretrained(head, hidden_size=hidden_size)


def _context(config: Any, asked: int | None) -> int:
    limit: int | None = getattr(config, "max_position_embeddings", None)
    if limit is None and asked is None:
        raise InvalidInputError("the model's config names no max_position_embeddings: pass context_tokens")
    if asked is not None and (asked < 2 or (limit is not None and asked > limit)):
        raise InvalidInputError(f"context_tokens must be between 2 and the model's {limit}, got {asked}")
    context = asked or limit
    assert context is not None
    return context


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: object) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody is waiting any more
        loop.call_soon_threadsafe(function, *args)


def _settle(future: asyncio.Future[Sequence[Completion]], result: Sequence[Completion] | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
