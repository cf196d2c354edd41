"""The transformers generator: the shared contract, parity with a plain forward pass, batching, failures."""

import asyncio
import gc
import itertools
import math
import sys
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tests.checkpoints import ARCHITECTURES, Architecture, train_tokenizer, write_checkpoint, write_head
from tts_search.core.protocols import Completion, Generator, Request, Sampling
from tts_search.errors import (
    GeneratorError,
    HeadMismatchError,
    InvalidInputError,
    MissingDependencyError,
    ModelNotFoundError,
)
from tts_search.generators.transformers import TransformersGenerator
from tts_search.sprm.config import Readout
from tts_search.sprm.loading import FOLDER
from tts_search.sprm.module import SPRM
from tts_search.testing.conformance import GeneratorConformance

QUESTION = "Using the numbers 4, 6, 9 and 13, make 87."
PLAIN = Sampling(temperature=1.0, top_p=1.0)


class Tiny(GeneratorConformance):
    architecture: Architecture
    readout: Readout
    folder: Path

    def make_generator(self) -> Generator:
        return TransformersGenerator(self.folder, threads=1)


@pytest.fixture(scope="class", autouse=True)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    if isinstance(request.cls, type) and issubclass(request.cls, Tiny):
        folder = tmp_path_factory.mktemp("model")
        request.cls.folder = write_checkpoint(folder, request.cls.architecture, readout=request.cls.readout)


class TestLlama(Tiny):
    architecture = "llama"
    readout = "previous"


class TestQwen2(Tiny):
    architecture = "qwen2"
    readout = "step"


class TestQwen3(Tiny):
    architecture = "qwen3"
    readout = "previous"


class TestOneSlot(Tiny):
    """Everything waits for everything, and nothing is remembered."""

    architecture = "llama"
    readout = "step"

    def make_generator(self) -> Generator:
        return TransformersGenerator(self.folder, threads=1, max_batch=1, prefix_cache_tokens=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("models") / "tiny-qwen2")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[TransformersGenerator]:
    generator = TransformersGenerator(folder, threads=1)
    yield generator
    asyncio.run(generator.aclose())


def ask(
    generator: Generator,
    *seeds: int,
    text: str = QUESTION,
    max_tokens: int = 40,
    sampling: Sampling = PLAIN,
    stop_ids: frozenset[int] | None = None,
) -> Request:
    tokenizer = generator.tokenizer
    return Request(
        prefix=tokenizer.render(text),
        seeds=seeds,
        max_tokens=max_tokens,
        stop_ids=tokenizer.eos_ids if stop_ids is None else stop_ids,
        sampling=sampling,
    )


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(work, 60)

    return asyncio.run(limited())


def reference(folder: Path, prefix: Sequence[int], one: Completion, vocabulary: int) -> tuple[list[float], list[float]]:
    """Log-probabilities and scores of a completion out of one plain forward pass over all of it."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[*prefix, *one.token_ids]])
    with torch.no_grad():
        out = model(ids, output_hidden_states=True)
        logprobs = out.logits[0, len(prefix) - 1 : -1, :vocabulary].log_softmax(-1)
        head = SPRM.from_pretrained(folder)
        logits = head(out.hidden_states[-2][0])
    first = len(prefix) - (head.config.readout == "previous")
    chosen = [logprobs[i, token].item() for i, token in enumerate(one.token_ids)]
    return chosen, logits[first : first + len(one.token_ids)].tolist()


@pytest.mark.parametrize("readout", ["previous", "step"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_and_logprobs_equal_a_plain_forward_pass(
    tmp_path: Path, architecture: Architecture, readout: Readout
) -> None:
    write_checkpoint(tmp_path, architecture, readout=readout)

    async def work() -> None:
        generator = TransformersGenerator(tmp_path, threads=1)
        requests = [ask(generator, 1, 2, 3), ask(generator, 4, text="And now a longer one, please: " + QUESTION)]
        requests.append(replace(requests[0], seeds=(9,)))  # its prefix comes out of the cache
        answers = [
            await asyncio.gather(*map(generator.generate, requests[:2])),
            [await generator.generate(requests[2])],
        ]
        flat = [completions for group in answers for completions in group]
        assert flat[2][0].cached_tokens == len(requests[2].prefix) - 1
        for request, completions in zip(requests, flat, strict=True):
            for one in completions:
                logprobs, scores = reference(tmp_path, request.prefix, one, len(generator.tokenizer))
                assert one.scores == pytest.approx(scores, abs=1e-4)
                assert one.logprobs == pytest.approx(logprobs, abs=1e-4)
        await generator.aclose()

    run(work())


@pytest.mark.parametrize("readout", ["previous", "step"])
def test_ragged_batches_change_nothing(tmp_path: Path, readout: Readout) -> None:
    write_checkpoint(tmp_path, "qwen3", readout=readout)

    async def work() -> None:
        batched = TransformersGenerator(tmp_path, threads=1)
        lonely = TransformersGenerator(tmp_path, threads=1, max_batch=1, prefix_cache_tokens=0)
        requests = [ask(batched, i, i + 50, text="word " * (7 * i), max_tokens=10 + 9 * i) for i in range(6)]

        async def late(i: int) -> Sequence[Completion]:
            await asyncio.sleep(0.01 * i)  # rows join while others are at work, and outlive them
            return await batched.generate(requests[i])

        together = await asyncio.gather(*(late(i) for i in range(6)))
        for request, got in zip(requests, together, strict=True):
            alone = await lonely.generate(request)
            assert [one.token_ids for one in got] == [one.token_ids for one in alone]
            for one, expected in zip(got, alone, strict=True):
                assert one.scores == pytest.approx(expected.scores, abs=1e-4)
                assert one.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        await asyncio.gather(batched.aclose(), lonely.aclose())

    run(work())


def test_more_seeds_than_slots(folder: Path, shared: TransformersGenerator) -> None:
    async def work() -> None:
        narrow = TransformersGenerator(folder, threads=1, max_batch=3)
        request = ask(narrow, *range(10))
        few, many = await asyncio.gather(narrow.generate(request), shared.generate(request))
        assert [one.token_ids for one in few] == [one.token_ids for one in many]
        await narrow.aclose()

    run(work())


def test_sampling_follows_the_distribution(shared: TransformersGenerator) -> None:
    def first_tokens(sampling: Sampling) -> dict[int, float]:
        request = ask(shared, *range(600), max_tokens=1, sampling=sampling)
        tokens = [one.token_ids[0] for one in run(shared.generate(request))]
        return {token: tokens.count(token) / len(tokens) for token in set(tokens)}

    plain = run(shared.generate(ask(shared, *range(600), max_tokens=1)))
    probability = {one.token_ids[0]: math.exp(one.logprobs[0]) for one in plain}
    seen = first_tokens(Sampling(1.0, 1.0))
    for token, share in seen.items():
        expected = probability[token]
        assert abs(share - expected) < 5 * math.sqrt(expected / 600) + 1 / 600
    ranked = sorted(probability, key=lambda token: -probability[token])
    assert set(first_tokens(Sampling(1.0, 1.0, 3))) <= set(ranked[:3])
    assert set(first_tokens(Sampling(1.0, probability[ranked[0]] / 2))) == {ranked[0]}
    assert set(first_tokens(Sampling(0.0))) == {ranked[0]}
    inside = itertools.takewhile(lambda mass: mass < 0.3, itertools.accumulate(probability[t] for t in ranked))
    kept = 1 + sum(1 for _ in inside)
    assert set(first_tokens(Sampling(1.0, 0.3))) <= set(ranked[:kept])


def test_ids_without_a_token_are_never_sampled(shared: TransformersGenerator) -> None:
    completions = run(shared.generate(ask(shared, *range(16), sampling=Sampling(30.0, 1.0))))
    assert max(token for one in completions for token in one.token_ids) < len(shared.tokenizer)


def test_a_request_that_does_not_fit(shared: TransformersGenerator) -> None:
    room = shared.context_tokens - len(ask(shared, 0).prefix)
    assert len(run(shared.generate(ask(shared, 1, max_tokens=room, stop_ids=frozenset())))[0].token_ids) <= room
    with pytest.raises(GeneratorError, match=rf"{shared.context_tokens + 1} tokens.*{shared.context_tokens}"):
        run(shared.generate(ask(shared, 1, max_tokens=room + 1)))
    with pytest.raises(GeneratorError, match="prefix is empty"):
        run(shared.generate(replace(ask(shared, 1), prefix=())))
    with pytest.raises(GeneratorError, match="max_tokens"):
        run(shared.generate(ask(shared, 1, max_tokens=0)))
    with pytest.raises(GeneratorError, match="no token for"):
        run(shared.generate(replace(ask(shared, 1), prefix=(10**6,))))


def test_broken_logits_fail_only_their_request(tmp_path: Path, folder: Path) -> None:
    generator = TransformersGenerator(folder, threads=1)
    cursed = generator.tokenizer.encode("q")[0]
    embedding = generator._worker._decoder._model.get_input_embeddings()  # type: ignore[union-attr]
    embedding.weight[cursed] = float("nan")

    async def work() -> None:
        good = ask(generator, 1, 2)
        bad = replace(good, prefix=(*good.prefix, cursed))
        answers = await asyncio.gather(generator.generate(good), generator.generate(bad), return_exceptions=True)
        assert isinstance(answers[1], GeneratorError)
        assert "NaN" in str(answers[1])
        assert [one.token_ids for one in await generator.generate(good)] == [one.token_ids for one in answers[0]]  # type: ignore[union-attr]
        await generator.aclose()

    run(work())


def test_a_failing_step_fails_requests_and_not_the_generator(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = TransformersGenerator(folder, threads=1)
    decoder: Any = generator._worker._decoder
    whole = decoder._take

    def fails_in_the_middle(rows: Any, *rest: Any) -> None:
        if any(len(row.tokens) == 5 for row in rows):
            raise torch.OutOfMemoryError("pretended")
        whole(rows, *rest)

    async def work() -> None:
        request = ask(generator, 1, 2, stop_ids=frozenset())
        expected = await generator.generate(request)
        monkeypatch.setattr(decoder, "_take", fails_in_the_middle)
        answers = await asyncio.gather(
            generator.generate(request), generator.generate(replace(request, seeds=(3,))), return_exceptions=True
        )
        assert all(isinstance(a, GeneratorError) and "pretended" in str(a) for a in answers)
        monkeypatch.undo()
        assert [c.token_ids for c in await generator.generate(request)] == [c.token_ids for c in expected]
        await generator.aclose()

    run(work())


def test_closing_fails_what_is_in_flight(folder: Path) -> None:
    async def work() -> None:
        generator = TransformersGenerator(folder, threads=1)
        task = asyncio.ensure_future(
            generator.generate(ask(generator, *range(20), max_tokens=400, stop_ids=frozenset()))
        )
        await asyncio.sleep(0.05)
        await generator.aclose()
        with pytest.raises(GeneratorError, match="closed"):
            await task
        with pytest.raises(GeneratorError, match="closed"):
            await generator.generate(ask(generator, 1))

    run(work())


def test_cancelling_stops_the_work(folder: Path) -> None:
    async def work() -> None:
        generator = TransformersGenerator(folder, threads=1)
        counts: list[int] = []
        request = ask(generator, *range(8), max_tokens=400, stop_ids=frozenset())
        begun = asyncio.Event()

        def count(tokens: int) -> None:
            counts.append(tokens)
            begun.set()

        task = asyncio.ensure_future(generator.generate(replace(request, on_tokens=count)))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await generator.generate(ask(generator, 1, max_tokens=2))
        seen = sum(counts)
        await asyncio.sleep(0.1)
        assert sum(counts) == seen < 8 * 400
        assert generator._worker._decoder.idle  # type: ignore[union-attr]
        await generator.aclose()

    run(work())


def test_one_generator_serves_several_event_loops(shared: TransformersGenerator) -> None:
    answers: dict[int, Any] = {}

    def ask_once(i: int) -> None:
        answers[i] = run(shared.generate(ask(shared, i)))

    threads = [threading.Thread(target=ask_once, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[i][0].token_ids for i in range(4)] == [
        one.token_ids for one in run(shared.generate(ask(shared, *range(4))))
    ]


def test_a_dropped_generator_ends_its_thread(folder: Path) -> None:
    generator = TransformersGenerator(folder, threads=1)
    thread = generator._worker._thread
    del generator
    gc.collect()
    deadline = time.monotonic() + 60
    while thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not thread.is_alive()


def test_sampling_defaults_are_the_models_own(shared: TransformersGenerator, folder: Path, tmp_path: Path) -> None:
    assert shared.sampling == Sampling(0.8, 0.9, 50)
    assert shared.name == "tiny-qwen2"
    assert shared.context_tokens == 512
    bare = write_checkpoint(tmp_path, "llama", readout=None)
    (bare / "generation_config.json").unlink()
    generator = TransformersGenerator(bare, context_tokens=100)
    assert generator.sampling == Sampling()
    assert generator.context_tokens == 100
    assert generator.head_config is None
    assert run(generator.generate(ask(generator, 1)))[0].scores is None
    run(generator.aclose())


def test_heads_are_checked(tmp_path: Path, folder: Path) -> None:
    alien = write_head(tmp_path / "alien", hidden_size=96)
    with pytest.raises(HeadMismatchError, match=r"96.*64"):
        TransformersGenerator(folder, head=alien)
    with pytest.raises(ModelNotFoundError, match="no SPRM head"):
        TransformersGenerator(folder, head=tmp_path / "nothing")
    other = TransformersGenerator(folder, head=write_head(tmp_path / "other", readout="step", seed=5))
    assert other.head_config is not None
    assert other.head_config.readout == "step"
    run(other.aclose())


def test_a_nan_head_output_is_left_to_the_scorer(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "llama")
    generator = TransformersGenerator(tmp_path)
    generator._worker._decoder._head.layers[3].bias.data.fill_(float("nan"))  # type: ignore[union-attr]
    completions = run(generator.generate(ask(generator, 1)))
    assert all(math.isnan(score) for score in completions[0].scores)
    run(generator.aclose())


def test_bad_arguments(folder: Path, tmp_path: Path) -> None:
    for wrong in ({"max_batch": 0}, {"threads": 0}, {"context_tokens": 1}, {"context_tokens": 513}, {"dtype": "int9"}):
        with pytest.raises(InvalidInputError):
            TransformersGenerator(folder, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="device"):
        TransformersGenerator(folder, device="abacus")
    for missing in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ModelNotFoundError):
            TransformersGenerator(missing)
    (tmp_path / "config.json").write_text("{}")
    train_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelNotFoundError):
        TransformersGenerator(tmp_path)


def test_missing_torch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tts_search.generators.transformers.decoding", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        TransformersGenerator(folder)


def test_bfloat16(folder: Path) -> None:
    generator = TransformersGenerator(folder, dtype="bfloat16", threads=1)
    assert generator._worker._decoder._model.dtype is torch.bfloat16  # type: ignore[union-attr]
    request = ask(generator, 1, 2)
    for one in run(generator.generate(request)):
        _, scores = reference(folder, request.prefix, one, len(generator.tokenizer))
        apart = [abs(got - expected) for got, expected in zip(one.scores, scores, strict=True)]
        assert sum(apart) / len(apart) < 0.5  # these random weights make much of rounding; fp32 parity is tested above
    run(generator.aclose())


@pytest.mark.parametrize("kind", ["mistral", "qwen2"])
def test_sliding_windows(tmp_path: Path, kind: str) -> None:
    hf = train_tokenizer()
    hf.save_pretrained(tmp_path)
    sizes: dict[str, Any] = {
        "vocab_size": 448,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "sliding_window": 16,
        "eos_token_id": hf.eos_token_id,
    }
    torch.manual_seed(0)
    if kind == "mistral":
        MistralForCausalLM(MistralConfig(head_dim=32, **sizes)).save_pretrained(tmp_path)
    else:
        Qwen2ForCausalLM(Qwen2Config(use_sliding_window=True, max_window_layers=2, **sizes)).save_pretrained(tmp_path)
    write_head(tmp_path / FOLDER)

    async def work() -> None:
        generator = TransformersGenerator(tmp_path, threads=1)
        requests = [ask(generator, i, text="word " * (3 * i)) for i in range(3)]
        for request, completions in zip(
            requests, await asyncio.gather(*map(generator.generate, requests)), strict=True
        ):
            _, scores = reference(tmp_path, request.prefix, completions[0], len(generator.tokenizer))
            assert completions[0].scores == pytest.approx(scores, abs=1e-3)
            longer = replace(request, prefix=(*request.prefix, *completions[0].token_ids[:-1], 5, 6, 7), max_tokens=20)
            further = (await generator.generate(longer))[0]
            assert further.cached_tokens >= len(request.prefix)
            _, scores = reference(tmp_path, longer.prefix, further, len(generator.tokenizer))
            assert further.scores == pytest.approx(scores, abs=1e-3)
        await generator.aclose()

    run(work())
