"""In-engine scores on real weights: SmolLM2-135M (Llama, tied embeddings, no id to spare), against transformers."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("vllm")

from tests.checkpoints import write_head
from tests.generators.conftest import run_in_process
from tests.generators.reference import largest_difference, policy, reference
from tests.smollm2 import smollm2
from tts_search.core.protocols import Completion, Request, Sampling
from tts_search.generators.vllm import VLLMGenerator
from tts_search.sprm.loading import FOLDER
from tts_search.sprm.module import SPRM

QUESTION = "Natalia sold clips to 48 friends in April, and half as many in May. How many did she sell?"


@pytest.fixture(scope="module")
def folder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with a random head whose logits are of a trained head's size."""
    folder = Path(shutil.copytree(smollm2(pytestconfig), tmp_path_factory.mktemp("smollm2") / "model"))
    write_head(folder / FOLDER, hidden_size=576)
    return folder


def scale_head(folder: Path, prompt: Sequence[int]) -> None:
    """Real hidden states have a few huge entries: bring the logits within 3 units."""
    spread = max(map(abs, reference(folder, "float32", prompt[:1], prompt[1:]).previous))
    head = SPRM.from_pretrained(folder)
    for name in ("3.weight", "3.bias"):
        head.layers.state_dict()[name].mul_(3.0 / spread)
    head.save_pretrained(folder / FOLDER)


def test_scores_on_real_weights(folder: Path) -> None:
    scale_head(folder, VLLMGenerator(folder).tokenizer.render(QUESTION))
    results = {dtype: sampled(folder, dtype) for dtype in ("float32", "bfloat16")}
    for dtype, trajectories in results.items():
        off: list[float] = []
        rounding = 0.0
        for prefix, completion in trajectories:
            expected = reference(folder, dtype, prefix, completion.token_ids).previous
            exact = reference(folder, "float32", prefix, completion.token_ids).previous
            assert completion.scores is not None
            apart = [a - b for a, b in zip(completion.scores, expected, strict=True)]
            assert abs(statistics.mean(apart)) <= 1e-2, "the trajectory's own score, every token taken for a step"
            off += map(abs, apart)
            rounding = max(rounding, largest_difference(expected, exact))
        worst, middle = max(off), statistics.median(off)
        print(f"{dtype}: vLLM from transformers {middle:.1e}, at most {worst:.1e}; its own rounding {rounding:.1e}")
        if dtype == "float32":
            assert worst <= 1e-4
        else:  # two right implementations each stray from fp32 by their own rounding, which is more than 1e-2 at worst
            assert middle <= 1e-2
            assert worst <= 2 * max(1e-2, rounding)
    policy.cache_clear()


def sampled(folder: Path, dtype: str) -> list[tuple[tuple[int, ...], Completion]]:
    """A few completions with their prefixes; the last one's prefix came out of the prefix cache."""
    generator = VLLMGenerator(folder, dtype=dtype, max_model_len=512, kv_cache_gib=0.2, enforce_eager=True)
    prompt = generator.tokenizer.render(QUESTION)

    def request(prefix: tuple[int, ...], *seeds: int, max_tokens: int) -> Request:
        stops = generator.tokenizer.eos_ids
        sampling = Sampling(temperature=0.8)
        return Request(prefix=prefix, seeds=seeds, max_tokens=max_tokens, stop_ids=stops, sampling=sampling)

    async def work(generator: VLLMGenerator) -> list[tuple[tuple[int, ...], Completion]]:
        first = await generator.generate(request(prompt, 0, 1, 2, max_tokens=32))
        longer = (*prompt, *first[0].token_ids[:-1])
        second = await generator.generate(request(longer, 3, max_tokens=8))
        return [*((prompt, completion) for completion in first), (longer, second[0])]

    trajectories: list[tuple[tuple[int, ...], Completion]] = run_in_process(generator, work)
    assert trajectories[-1][1].cached_tokens >= 32
    return trajectories
