"""The OpenAI-compatible generator against a real vLLM server that carries the embedded model's SPRM head.

One server serves the whole file, because it takes long to start.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import time
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("vllm")
pytest.importorskip("aiohttp")

from tests.generators.reference import largest_difference, reference
from tests.generators.vllm import served as vllm_server
from tts_search.api import Searcher
from tts_search.cli import app
from tts_search.core.protocols import Completion, Generator, Request, Sampling
from tts_search.core.result import SearchResult
from tts_search.embedded import MODEL_FOLDER
from tts_search.errors import InvalidInputError
from tts_search.generators.openai import ChatGenerator, OpenAIGenerator
from tts_search.generators.transformers import TransformersGenerator
from tts_search.generators.vllm.plugin import SCORE_LIMIT
from tts_search.strategies.best_of_n import BestOfN
from tts_search.strategies.mcts import MCTS
from tts_search.testing.conformance import GeneratorConformance

QUESTION = "Using the numbers 7, 5, 15 and 11, make 24."
PLAIN = Sampling(temperature=1.0, top_p=1.0)


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    with vllm_server.serving(MODEL_FOLDER) as url:
        yield url


class Served(GeneratorConformance):
    url: str

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _serve(cls, url: str) -> None:
        cls.url = url


class TestIds(Served):
    """Exact to the token, with scores."""

    def make_generator(self) -> Generator:
        return OpenAIGenerator(self.url, tokens="ids")


class TestTexts(Served):
    """What is left where a server takes and shows texts alone."""

    exact = False

    def make_generator(self) -> Generator:
        return OpenAIGenerator(self.url, tokens="text")


class TestChats(Served):
    """What is left where a server answers chats alone."""

    def make_generator(self) -> Generator:
        return ChatGenerator(self.url)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 120))


def clamped(logits: Sequence[float]) -> list[float]:
    """As the engine's columns carry them: beyond the limit, a sigmoid has nothing left to say."""
    return [min(max(logit, -SCORE_LIMIT), SCORE_LIMIT) for logit in logits]


async def closing(generator: Generator, *requests: Request) -> list[Sequence[Completion]]:
    try:
        return [await generator.generate(request) for request in requests]
    finally:
        await generator.aclose()


def request(generator: Generator, *seeds: int, **more: Any) -> Request:
    tokenizer = generator.tokenizer
    settings = {"max_tokens": 60, "stop_ids": tokenizer.eos_ids, "sampling": PLAIN} | more
    return Request(prefix=tokenizer.render(QUESTION), seeds=seeds, **settings)


def test_scores_and_log_probabilities_are_those_of_a_plain_forward_pass(url: str) -> None:
    generator = OpenAIGenerator(url)
    asked = request(generator, *range(6))
    (first, again) = run(closing(generator, asked, asked))
    assert sum(len(one.token_ids) for one in first) > 120
    for one in first:
        expected = reference(MODEL_FOLDER, "float32", asked.prefix, one.token_ids)
        assert largest_difference(one.scores or (), clamped(expected.previous)) <= 2e-4
        assert largest_difference(one.logprobs, expected.logprobs) <= 1e-4
    assert [one.token_ids for one in again] == [one.token_ids for one in first]


def test_greedy_is_the_transformers_generators(url: str) -> None:
    ours, theirs = OpenAIGenerator(url), TransformersGenerator(MODEL_FOLDER, threads=1)
    asked = request(ours, 0, sampling=Sampling(temperature=0.0))
    ((remote,),) = run(closing(ours, asked))
    ((local,),) = run(closing(theirs, asked))
    assert remote.token_ids == local.token_ids
    assert remote.scores == pytest.approx(clamped(local.scores or ()), abs=1e-3)
    assert remote.logprobs == pytest.approx(local.logprobs, abs=1e-3)


@pytest.mark.parametrize("tokens", ["ids", "text"])
@pytest.mark.parametrize("certain", [{"top_k": 1}, {"min_p": 0.999}], ids=repr)
def test_how_tokens_are_drawn_reaches_the_engine(url: str, tokens: Any, certain: dict[str, Any]) -> None:
    generator = OpenAIGenerator(url, tokens=tokens)
    hot = Sampling(temperature=2.0, top_p=1.0)
    only = Sampling(temperature=2.0, top_p=1.0, **certain)
    (sure, unsure) = run(
        closing(generator, *(request(generator, *range(4), max_tokens=12, sampling=s) for s in (only, hot)))
    )
    assert len({tuple(one.token_ids) for one in sure}) == 1
    assert len({tuple(one.token_ids) for one in unsure}) > 1


def test_a_head_read_at_the_step_token_pays_for_its_last_score(url: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(MODEL_FOLDER, tmp_path / "model"))
    config = json.loads((folder / "sprm" / "config.json").read_text())
    (folder / "sprm" / "config.json").write_text(json.dumps(config | {"readout": "step"}))
    generator = OpenAIGenerator(url, tokenizer=folder)
    (step,) = generator.tokenizer.encode(".\n\n")
    asked = request(generator, *range(4), stop_ids=generator.tokenizer.eos_ids | {step})
    for one in run(closing(generator, asked))[0]:
        assert one.scores is not None
        assert not any(map(math.isnan, one.scores))
        assert one.sampled_tokens == len(one.token_ids) + 1 <= asked.max_tokens
        expected = reference(folder, "float32", asked.prefix, one.token_ids).step
        assert largest_difference(one.scores, clamped(expected)) <= 2e-4


def test_the_prefix_cache_is_accounted_for(url: str) -> None:
    generator = OpenAIGenerator(url)
    prefix = generator.tokenizer.render("Using the numbers 2, 3, 4 and 17, make 71. " * 4)
    asked = request(generator, 0)
    asked = Request(prefix=prefix, seeds=(0,), max_tokens=4, stop_ids=asked.stop_ids)
    ((first,), (second,)) = run(closing(generator, asked, asked))
    assert 0 == first.cached_tokens < second.cached_tokens <= len(prefix)


def test_cancelling_stops_the_server(url: str) -> None:
    generator = OpenAIGenerator(url)

    async def work() -> None:
        begun = asyncio.Event()
        endless = request(
            generator, *range(8), max_tokens=400, stop_ids=frozenset({0}), on_tokens=lambda _: begun.set()
        )
        task = asyncio.create_task(generator.generate(endless))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await generator.aclose()

    run(work())
    deadline = time.monotonic() + 120
    while vllm_server.running(url) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert vllm_server.running(url) == 0


def test_what_the_server_refuses_is_said(url: str) -> None:
    generator = OpenAIGenerator(url, context_tokens=4000)
    asked = Request(prefix=(5,) * 600, seeds=(0,), max_tokens=4, stop_ids=frozenset({0}))
    with pytest.raises(InvalidInputError, match=r"/v1/completions answered with status 400: .*512"):
        run(closing(generator, asked))


def test_best_of_n_over_the_wire(url: str) -> None:
    with Searcher(generator=url) as searcher:
        result = searcher.search(QUESTION, strategy="best_of_n", budget=400, seed=1)
    assert result.answer
    assert result.steps
    assert all(step.score is not None and 0 <= step.score <= 1 for step in result.steps)
    assert 0 < result.usage.sampled_tokens <= 400
    assert result.usage.cached_tokens > 0


def test_mcts_over_the_wire(url: str) -> None:
    live: list[int] = []
    with Searcher(generator=url) as searcher:
        result = searcher.search(
            QUESTION,
            strategy=MCTS(children=3),
            budget=500,
            on_progress=lambda progress: live.append(progress.sampled_tokens),
        )
    assert result.answer
    assert 0 < result.usage.sampled_tokens <= 500
    assert max(live) <= 500


def test_best_of_n_over_chats(url: str) -> None:
    with Searcher(generator=f"{url}/chat/completions") as searcher:
        voted = searcher.search(QUESTION, strategy=BestOfN(n=8), seed=1)
        likeliest = searcher.search(QUESTION, strategy=BestOfN(n=8), seed=1, selector="logprob")
        capped = searcher.search(QUESTION, strategy=BestOfN(n=8), seed=1, budget=200)
    with Searcher(generator=url) as searcher:  # the same model, by its own ids
        ids = searcher.generator.tokenizer.encode(voted.answer)
    assert voted.answer
    assert voted.warnings == likeliest.warnings == ()
    assert voted.usage.requests == 8
    assert voted.tree is not None
    counts = [candidate_tokens(voted, index) for index in range(8)]
    assert voted.usage.sampled_tokens == sum(counts)
    assert len(ids) < candidate_tokens(voted, voted.chosen or 0), "the account is the server's, in its tokens"
    chosen = likeliest.candidates[likeliest.chosen or 0]
    assert chosen.mean_logprob == max(candidate.mean_logprob or -math.inf for candidate in likeliest.candidates)
    assert 0 < capped.usage.sampled_tokens <= 200


def candidate_tokens(result: SearchResult, index: int) -> int:
    assert result.tree is not None
    return result.tree.nodes[result.candidates[index].node].token_count


def test_the_command_line_takes_a_url(url: str) -> None:
    solved = CliRunner().invoke(app, ["solve", QUESTION, "--generator", url, "-n", "2", "--json"])
    assert solved.exit_code == 0, solved.output
    assert json.loads(solved.stdout)["answer"]
