"""One stream of events: in order, on the loop's thread, with the answer's text as it comes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.searches import scripted
from tts_search import BestOfN, Request, Searcher, StepBeamSearch
from tts_search.core.events import Answering, Chosen, Event, Failed, Finished, Grown, Sampled, Started
from tts_search.core.protocols import Completion
from tts_search.core.text_stream import TextStream
from tts_search.errors import GeneratorError
from tts_search.testing import FakeGenerator, FakeScorer
from tts_search.testing.fakes import CLOSE, END


class Streaming(FakeGenerator):
    async def generate(self, request: Request) -> list[Completion]:
        completions = await super().generate(request)
        if request.on_delta is not None:
            for sample, completion in enumerate(completions):
                for token in completion.token_ids:
                    request.on_delta(sample, (token,))
        return completions


def watched(generator: FakeGenerator, **options: Any) -> tuple[list[Event], Any, set[str]]:
    heard: list[Event] = []
    threads: set[str] = set()

    def on_event(event: Event) -> None:
        heard.append(event)
        threads.add(threading.current_thread().name)

    with Searcher(generator=generator, scorer=FakeScorer(), max_tokens=100, answer_tokens=20) as searcher:
        result = searcher.search("Why?", on_event=on_event, **options)
    return heard, result, threads


@pytest.mark.parametrize("strategy", [BestOfN(n=4), StepBeamSearch(width=2, branching=2)])
def test_they_tell_the_whole_search_in_order(strategy: Any) -> None:
    heard, result, threads = watched(FakeGenerator(), strategy=strategy)
    assert isinstance(heard[0], Started)
    assert isinstance(heard[-1], Finished)
    assert heard[-1].result is result
    assert threads == {"tts-search"}
    grown = [node.index for event in heard if isinstance(event, Grown) for node in event.nodes]
    assert grown == list(range(1, len(result.tree)))
    tokens = [event.sampled_tokens for event in heard if isinstance(event, Sampled)]
    assert tokens == sorted(tokens)
    assert tokens[-1] == result.usage.sampled_tokens
    (chosen,) = [event for event in heard if isinstance(event, Chosen)]
    assert chosen.node.index == result.candidates[result.chosen].node
    assert chosen.score == result.score
    assert "".join(event.text for event in heard if isinstance(event, Answering)) == result.answer


def test_an_answer_comes_as_it_is_sampled_and_one_voted_on_at_once() -> None:
    script = scripted(97, CLOSE, 32, 98, 99, 32, 100, END)
    heard, result, _ = watched(Streaming(script=script), strategy=BestOfN(n=2))
    assert [event.text for event in heard if isinstance(event, Answering)] == ["b", "c", " d"]
    assert result.answer == "bc d"
    heard, result, _ = watched(Streaming(script=script), strategy=BestOfN(n=2), selector="majority")
    assert [event.text for event in heard if isinstance(event, Answering)] == ["bc d"]


def test_a_failure_is_the_last_that_is_heard() -> None:
    class Dead(FakeGenerator):
        async def generate(self, request: Request) -> list[Completion]:
            raise RuntimeError("gone")

    heard: list[Event] = []
    with Searcher(generator=Dead(), scorer=FakeScorer()) as searcher, pytest.raises(GeneratorError):
        searcher.search("Why?", on_event=heard.append)
    assert [type(event) for event in heard] == [Started, Failed]


def test_a_character_that_is_cut_is_told_whole() -> None:
    text = "né 你 "
    told: list[str] = []
    stream = TextStream(lambda ids: bytes(ids).decode("utf-8", "replace"), told.append)
    for byte in text.encode():
        stream.feed([byte])
    stream.close(text.strip())
    assert "".join(told) == "né 你"
    assert "\ufffd" not in "".join(told)
