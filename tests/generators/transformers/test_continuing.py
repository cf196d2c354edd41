"""Going on from what was read before: the same tokens with and without a memory, and no work done twice."""

import asyncio
import itertools
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkpoints import write_checkpoint
from tts_search.core.protocols import Completion, Request, Sampling
from tts_search.errors import GeneratorError
from tts_search.generators.transformers import TransformersGenerator
from tts_search.generators.transformers.decoding import Job


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("models") / "tiny-qwen2")


@pytest.fixture(scope="module")
def forgetful(folder: Path) -> Iterator[TransformersGenerator]:
    """One thing at a time, and nothing is remembered."""
    generator = TransformersGenerator(folder, threads=1, max_batch=1, prefix_cache_tokens=0)
    yield generator
    asyncio.run(generator.aclose())


def ask(prefix: Sequence[int], *seeds: int, max_tokens: int = 8) -> Request:
    return Request(
        prefix=prefix,  # type: ignore[arg-type]
        seeds=seeds,
        max_tokens=max_tokens,
        stop_ids=frozenset(),
        sampling=Sampling(1.0, 1.0),
    )


def same(got: Sequence[Completion], expected: Sequence[Completion]) -> None:
    assert [one.token_ids for one in got] == [one.token_ids for one in expected]
    for one, other in zip(got, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert one.scores == pytest.approx(other.scores, abs=1e-4)


Move = tuple[int, int, int, int]
"""Which earlier sequence to go on from, after how many of its tokens, how many seeds, how many tokens."""

MOVES = st.tuples(st.integers(0, 99), st.integers(1, 99), st.integers(1, 4), st.integers(1, 9))


@settings(max_examples=20)
@given(
    rounds=st.lists(st.lists(MOVES, min_size=1, max_size=3), min_size=1, max_size=4),
    size=st.sampled_from([None, 0, 7, 40, 200]),
    slots=st.integers(1, 5),
)
def test_a_memory_changes_nothing(
    folder: Path, forgetful: TransformersGenerator, rounds: list[list[Move]], size: int | None, slots: int
) -> None:
    async def work() -> None:
        generator = TransformersGenerator(folder, threads=1, max_batch=slots, prefix_cache_tokens=size)
        cache = decoder(generator)._prefixes
        known: list[tuple[int, ...]] = [tuple(range(20, 50))]
        seed = itertools.count()
        for moves in rounds:
            requests = []
            for which, length, seeds, tokens in moves:
                prefix = known[which % len(known)]
                prefix = prefix[: 1 + length % len(prefix)]
                requests.append(ask(prefix, *itertools.islice(seed, seeds), max_tokens=tokens))
            for request, got in zip(requests, await asyncio.gather(*map(generator.generate, requests)), strict=True):
                same(got, await forgetful.generate(request))
                known += [(*request.prefix, *one.token_ids) for one in got]
                assert size != 0 or all(one.cached_tokens == 0 for one in got)
            assert cache.tokens <= (cache.max_tokens or 0)
        await generator.aclose()

    asyncio.run(asyncio.wait_for(work(), 60))


def decoder(generator: TransformersGenerator) -> Any:
    return generator._worker._decoder


def test_a_step_costs_what_the_step_costs(folder: Path) -> None:
    """Of a path that goes on, nothing is copied, only new tokens are kept, and one token runs before the next."""

    async def work() -> None:
        generator = TransformersGenerator(folder, threads=1)
        parts = decoder(generator)
        copied, kept = count_tokens(parts._prefixes, "read"), count_tokens(parts._slots, "read")
        path = tuple(range(20, 60))
        for step in range(12):
            (one,) = await generator.generate(ask(path, step))
            assert one.cached_tokens == (len(path) - 1 if step else 0)
            path = (*path, *one.token_ids)
        await until(lambda: parts.idle)  # a result is delivered before it is kept
        assert sum(copied) == 0
        assert parts._prefixes.tokens == len(path) - 1  # the last one has not run
        assert sum(kept) == 1 + len(path) - 1  # one to know the size of a token
        # Four ways on from here, and then on from the third of them: its tokens move into the first slot.
        four = await generator.generate(ask(path, 1, 2, 3, 4))
        await generator.generate(ask((*path, *four[2].token_ids), 5))
        assert 0 < sum(copied) < 8
        await generator.aclose()

    asyncio.run(asyncio.wait_for(work(), 60))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def count_tokens(owner: Any, name: str) -> list[int]:
    """Replace a method that reads keys and values by one that also counts their tokens."""
    counts: list[int] = []
    method = getattr(owner, name)

    def counting(*args: Any) -> Any:
        states = method(*args)
        counts.append(states[0][0].shape[2])
        return states

    setattr(owner, name, counting)
    return counts


def test_the_memory_holds_a_path_as_long_as_the_context(folder: Path) -> None:
    generator = TransformersGenerator(folder, threads=1)
    for seed in (1, 2):  # a result is delivered before it is kept
        asyncio.run(generator.generate(ask((20, 21, 22), seed)))
    assert decoder(generator)._prefixes.max_tokens >= generator.context_tokens
    asyncio.run(generator.aclose())


def test_slots_at_rest_hold_no_more_than_may_be_remembered(folder: Path) -> None:
    async def work() -> None:
        generator = TransformersGenerator(folder, threads=1, prefix_cache_tokens=300)
        slots = decoder(generator)._slots
        await generator.generate(ask((20, 21, 22), 1))
        await generator.generate(ask((20, 21, 22), *range(20)))
        await until(lambda: slots.tokens == 0)
        await generator.generate(ask((20, 21, 22), 1))
        await generator.generate(ask((20, 21, 22), 2))
        assert 0 < slots.tokens <= 300
        await generator.aclose()

    asyncio.run(asyncio.wait_for(work(), 60))


def test_what_a_broken_row_leaves_harms_no_other(folder: Path) -> None:
    """A short row takes the slot of one that was NaN, beside a longer one: what its mask hides must be finite."""
    generator = TransformersGenerator(folder, threads=1)
    parts = decoder(generator)  # its thread waits for work all the while
    parts._model.get_input_embeddings().weight[7] = float("nan")
    results: list[Any] = []

    def submit(request: Request) -> None:
        parts.submit(Job(request, array("q", request.prefix), frozenset(), results.append))

    def finish() -> Any:
        while not parts.idle:
            parts.step()
        return results.pop()

    long, short = ask(range(20, 90), 1, max_tokens=20), ask((20, 21), 1, 2, max_tokens=3)
    submit(long)
    alone = finish()
    submit(short)
    expected = finish()
    submit(long)
    submit(ask((7, *range(20, 60)), 1, 2, 3))
    parts.step()
    assert "NaN" in str(results.pop())
    submit(short)
    same(finish(), alone)
    same(results.pop(), expected)
    asyncio.run(generator.aclose())


def test_a_broken_request_is_read_once_and_not_remembered(folder: Path) -> None:
    async def work() -> None:
        generator = TransformersGenerator(folder, threads=1, max_batch=2)
        weights = decoder(generator)._model.get_input_embeddings().weight
        whole = weights[7].clone()
        weights[7] = float("nan")
        forward, calls = decoder(generator)._forward, []
        decoder(generator)._forward = lambda *args: (calls.append(1), forward(*args))[1]
        broken = ask((20, 21, 7, 22), *range(9))
        with pytest.raises(GeneratorError, match="NaN"):
            await generator.generate(broken)
        await generator.generate(ask((30, 31), 1, max_tokens=1))  # behind which the other is gone
        assert len(calls) == 2
        weights[7] = whole
        await generator.generate(broken)
        await generator.aclose()

    asyncio.run(asyncio.wait_for(work(), 60))


class Joined(Sequence[int]):
    """A prefix that is no tuple."""

    def __init__(self, *parts: Sequence[int]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        return tuple(itertools.chain(*self._parts))[index]


def test_any_sequence_is_a_prefix(forgetful: TransformersGenerator) -> None:
    expected = asyncio.run(forgetful.generate(ask((20, 21, 22, 23), 1)))
    for prefix in (Joined((20, 21), [22, 23]), range(20, 24), [20, 21, 22, 23], array("i", range(20, 24))):
        same(asyncio.run(forgetful.generate(ask(prefix, 1))), expected)


@pytest.mark.parametrize("wrong", [1.5, "a", None, 10**30])
def test_what_is_no_token_id_is_named(forgetful: TransformersGenerator, wrong: Any) -> None:
    with pytest.raises(GeneratorError, match="cannot be a token id"):
        asyncio.run(forgetful.generate(ask((20, wrong), 1)))


def test_tokens_are_reported_as_they_come(folder: Path) -> None:
    generator = TransformersGenerator(folder, threads=1, max_batch=2)
    deltas: dict[int, list[int]] = {}
    request = Request(
        prefix=(20, 21),
        seeds=(5, 6, 7),
        max_tokens=9,
        stop_ids=frozenset({30}),
        on_delta=lambda sample, ids: deltas.setdefault(sample, []).extend(ids),
    )
    completions = asyncio.run(generator.generate(request))
    assert [tuple(deltas[i]) for i in range(3)] == [one.token_ids for one in completions]
    asyncio.run(generator.aclose())
