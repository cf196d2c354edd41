"""In-engine scores against the transformers reference, for every token of sampled trajectories."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from tests.checkpoints import ARCHITECTURES, Architecture
from tests.generators.conftest import engine_of, run_in_process
from tests.generators.reference import differences, largest_difference, reference
from tts_search.core.protocols import Completion, Request, Sampling
from tts_search.generators.vllm import VLLMGenerator

PROMPT = "We are given four numbers and a target. " * 3
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}
PLAIN = Sampling(temperature=1.0, top_p=1.0)


def small(folder: Path, *, dtype: str = "float32", eager: bool = True, **more: Any) -> VLLMGenerator:
    return VLLMGenerator(
        folder, dtype=dtype, max_model_len=256, kv_cache_gib=0.02, enforce_eager=eager, engine_args=more
    )


def request(generator: VLLMGenerator, prefix: Sequence[int], *, seeds: int = 4, max_tokens: int = 40) -> Request:
    return Request(
        prefix=tuple(prefix),
        seeds=tuple(range(seeds)),
        max_tokens=max_tokens,
        stop_ids=generator.tokenizer.eos_ids,
        sampling=PLAIN,
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_score_is_the_heads_on_the_second_to_last_layer(
    checkpoints: Callable[..., Path], architecture: Architecture, dtype: str
) -> None:
    folder = checkpoints(architecture)
    generator = small(folder, dtype=dtype)
    prompt = generator.tokenizer.encode(PROMPT)

    async def work(generator: VLLMGenerator) -> tuple[Sequence[Completion], tuple[int, ...], Sequence[Completion]]:
        computed: list[float] = []
        await generator.start()
        model = engine_of(generator).model
        model.sprm.register_forward_hook(lambda *call: computed.extend(call[-1].tolist()))
        first = await generator.generate(request(generator, prompt))
        # Whatever the head computed comes out again, to fp32 precision, also when the policy runs in bf16.
        for score in (s for completion in first for s in completion.scores or ()):
            assert min(abs(score - value) for value in computed) <= 2e-6 * max(1.0, abs(score))
        longest = max(first, key=lambda completion: len(completion.token_ids))
        continued = (*prompt, *longest.token_ids[:-1])
        return first, continued, await generator.generate(request(generator, continued, seeds=2, max_tokens=8))

    first, continued, second = run_in_process(generator, work)
    assert all(c.sampled_tokens == len(c.token_ids) for c in first)
    assert max(len(completion.token_ids) for completion in first) > 16
    assert all(c.cached_tokens > len(prompt) - 32 for c in second), "the continuation should read the prefix cache"
    for prefix, completions in ((prompt, first), (continued, second)):
        scores, logprobs = differences(folder, dtype, prefix, completions)
        assert scores <= TOLERANCE[dtype]
        assert logprobs <= 10 * TOLERANCE[dtype]  # the policy's own: bf16 logits round coarsely


def test_a_compiled_policy_has_the_same_scores(checkpoints: Callable[..., Path]) -> None:
    folder = checkpoints("qwen2")
    generator = small(folder, eager=False)
    prompt = generator.tokenizer.encode(PROMPT)

    async def work() -> Sequence[Completion]:
        try:
            return await generator.generate(request(generator, prompt))
        finally:
            await generator.aclose()

    scores, logprobs = differences(folder, "float32", prompt, asyncio.run(work()))  # in a process that may compile
    assert scores <= TOLERANCE["float32"]
    assert logprobs <= 10 * TOLERANCE["float32"]


def test_scores_survive_preemption(checkpoints: Callable[..., Path]) -> None:
    folder = checkpoints("qwen2")
    generator = small(folder, num_gpu_blocks_override=10)
    prompt = generator.tokenizer.encode(PROMPT)[:40]
    everything = Request(prefix=prompt, seeds=tuple(range(6)), max_tokens=150, stop_ids=frozenset({0}), sampling=PLAIN)

    async def work(generator: VLLMGenerator) -> tuple[Sequence[Completion], int]:
        completions = await generator.generate(everything)
        return completions, engine_of(generator).preemptions

    completions, preemptions = run_in_process(generator, work)
    assert preemptions > 0
    assert differences(folder, "float32", prompt, completions)[0] <= 1e-4


def test_readout_at_the_step_token_spends_a_token_on_the_last_score(checkpoints: Callable[..., Path]) -> None:
    folder = checkpoints("qwen2", readout="step")
    generator = small(folder)
    prompt = generator.tokenizer.encode(PROMPT)
    eos = generator.tokenizer.eos_ids
    stops = frozenset(range(0, 400, 40)) | eos  # some completions end at once, some later, some not before their limit

    async def work(generator: VLLMGenerator) -> list[Sequence[Completion]]:
        def asking(max_tokens: int) -> Request:
            seeds = tuple(range(12))
            return Request(prefix=prompt, seeds=seeds, max_tokens=max_tokens, stop_ids=stops, sampling=PLAIN)

        return [await generator.generate(asking(max_tokens)) for max_tokens in (24, 1)]

    several, single = run_in_process(generator, work)
    assert {c.token_ids[-1] in stops for c in several} == {True, False}
    for completion in several:
        expected = reference(folder, "float32", prompt, completion.token_ids).step
        assert completion.scores is not None
        ended = completion.token_ids[-1] in eos
        assert [math.isnan(score) for score in completion.scores] == [False] * (len(expected) - 1) + [ended]
        known = len(expected) - ended
        assert largest_difference(completion.scores[:known], expected[:known]) <= 1e-4
        assert completion.sampled_tokens == len(completion.token_ids) + (not ended) <= 24
        assert completion.token_ids[-1] in stops or completion.sampled_tokens == 24
    for completion in single:  # nothing left to read the score with
        assert completion.sampled_tokens == 1
        assert completion.scores is not None
        assert math.isnan(completion.scores[0])


def test_without_a_head_there_are_no_scores(checkpoints: Callable[..., Path]) -> None:
    folder = checkpoints("qwen2")
    generator = VLLMGenerator(
        folder, head=None, dtype="float32", max_model_len=256, kv_cache_gib=0.02, enforce_eager=True
    )
    prompt = generator.tokenizer.encode(PROMPT)

    async def work(generator: VLLMGenerator) -> Sequence[Completion]:
        return await generator.generate(request(generator, prompt))

    assert generator.head_config is None
    for completion in run_in_process(generator, work):
        assert completion.scores is None
        expected = reference(folder, "float32", prompt, completion.token_ids)
        assert largest_difference(completion.logprobs, expected.logprobs) <= 1e-4
