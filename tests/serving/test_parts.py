"""Parts of the server by themselves: cutting at stops, tickets and turns, errors in OpenAI's form."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_search.errors import (
    GeneratorError,
    InvalidInputError,
    ScorerError,
    SearchCancelledError,
    StrategyError,
)
from tts_search.selection.votes import up_to
from tts_search.serving.admission import Admission, Ticket
from tts_search.serving.keys import Key
from tts_search.serving.limits import Limits
from tts_search.serving.refusals import RefusedError, refusal_of
from tts_search.serving.reply_content import Cut
from tts_search.serving.sse_out import body, data


def by_characters(text: str, stops: list[str]) -> tuple[str, bool]:
    for end in range(len(text) + 1):
        if found := [len(stop) for stop in stops if text[:end].endswith(stop)]:
            return text[: end - max(found)], True
    return text, False


STOPS = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)


@settings(max_examples=500)
@given(st.text("ab", max_size=12), STOPS, st.lists(st.integers(0, 12), max_size=6))
def test_a_text_is_cut_the_same_however_it_comes(text: str, stops: list[str], cuts: list[int]) -> None:
    expected, stopped = by_characters(text, stops)
    places = [0, *sorted(min(place, len(text)) for place in cuts), len(text)]
    stream, told = Cut(stops), ""
    for begin, end in pairwise(places):
        told += stream.feed(text[begin:end])
        assert expected.startswith(told)  # never more than is known to be in front of a stop
    told += stream.close()
    assert (told, stream.ended) == (expected, stopped)
    assert up_to(text, stops) == (expected, stopped)


STEPS = st.lists(st.tuples(st.sampled_from(["enter", "leave"]), st.integers(0, 5), st.integers(0, 200)), max_size=40)


@given(STEPS, st.integers(1, 3), st.integers(0, 3))
def test_the_books_of_the_queue_balance(steps: list[tuple[str, int, int]], concurrency: int, waiting: int) -> None:
    async def play() -> None:
        limits = Limits(concurrency=concurrency, waiting=waiting, promised_tokens=500)
        admission, keys = Admission(limits), [Key(str(i)) for i in range(3)]
        tickets: list[Ticket] = []
        for what, which, tokens in steps:
            if what == "enter":
                full = admission.running == concurrency and admission.waiting >= waiting
                if full or (admission.promised and admission.promised + tokens > 500):
                    with pytest.raises(RefusedError):
                        admission.enter(keys[which % 3], tokens)
                else:
                    tickets.append(admission.enter(keys[which % 3], tokens))
            elif tickets:
                ticket = tickets.pop(which % len(tickets))
                ticket.leave(tokens)
                ticket.leave(tokens)
            states = [ticket.state for ticket in tickets]
            assert (states.count("running"), states.count("waiting")) == (admission.running, admission.waiting)
            assert admission.running <= concurrency
            assert admission.waiting <= waiting
            assert admission.running == concurrency or not admission.waiting
            assert admission.promised == sum(ticket.tokens for ticket in tickets)
            for key in keys:
                own = [ticket.tokens for ticket in tickets if ticket.key is key]
                assert (key.running, key.promised) == (len(own), sum(own))

    asyncio.run(play())


def test_turns_go_around_the_keys_and_within_one_by_arrival() -> None:
    async def play() -> list[str]:
        admission = Admission(Limits(concurrency=1, waiting=10))
        first = admission.enter(Key("z"), 0)
        keys = {name: Key(name) for name in "abc"}
        tickets = {name: admission.enter(keys[name[0]], 0) for name in ("a1", "a2", "a3", "b1", "b2", "c1")}
        order: list[str] = []
        first.leave()
        while waiting := [name for name, ticket in tickets.items() if ticket.state == "running"]:
            order += waiting
            tickets[waiting[0]].leave()
        return order

    assert asyncio.run(play()) == ["a1", "b1", "c1", "a2", "b2", "a3"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInputError("budget must be a whole number"), 400),
        (StrategyError("asked for n=0"), 400),
        (SearchCancelledError("closed"), 503),
        (GeneratorError("died at /srv/models"), 500),
        (ScorerError("NaN from http://user:password@host"), 500),
        (RuntimeError("a bug in /usr/lib"), 500),
        (RefusedError(429, "busy", retry_after=0.2), 429),
    ],
)
def test_an_error_has_a_status_and_tells_of_the_server_nothing(error: Exception, status: int) -> None:
    refusal = refusal_of(error)
    assert refusal.status == status
    assert set(refusal.body["error"]) == {"message", "type", "param", "code"}
    if status == 500:
        assert str(error) not in str(refusal.body)
    if status in (429, 503):
        assert int(refusal.headers["retry-after"]) >= 1


@pytest.mark.parametrize("value", [{"a": "\ud800"}, {"\ud800": 1}, "é你"])
def test_any_text_is_a_body_and_one_line(value: Any) -> None:
    assert b"\n" not in body(value)
    body(value).decode()
    assert data("a\n\nb", event="x") == b'event: x\ndata: "a\\n\\nb"\n\n'


@pytest.mark.parametrize("setting", [{"concurrency": 0}, {"waiting": -1}, {"request_seconds": 0}, {"body_bytes": 0}])
def test_a_limit_out_of_range_is_refused(setting: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(setting))):
        Limits(**setting)
