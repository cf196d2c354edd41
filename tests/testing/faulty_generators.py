"""Generators with one fault each, and the one test of the suite that must notice it."""

from __future__ import annotations

import dataclasses
import itertools
import math
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from tests.testing.bent_generators import (
    ONE,
    SINGLE,
    STOPPED,
    TOGETHER,
    Bent,
    Cancelled,
    Closing,
    Crowded,
    Late,
    Overflowing,
    Whole,
    asks,
    each,
    empty,
    last,
    longer,
    other,
    refused,
    set_to,
    shifted,
    short_logprobs,
    short_scores,
    shouted,
    stopless,
    tokenizer,
    undercounted,
    unread,
    with_first,
)
from tests.testing.suites import PlugIn
from tts_search.core.protocols import Request
from tts_search.errors import GeneratorError
from tts_search.sprm.config import SPRMConfig
from tts_search.testing.conformance import GeneratorConformance
from tts_search.testing.fakes import FakeGenerator, FakeTokenizer

HEAD = SPRMConfig(hidden_size=1)


def row(what: str, fails: str | None, make: Callable[[], object], options: Mapping[str, Any] | None = None) -> PlugIn:
    return PlugIn(suite=GeneratorConformance, what=what, fails=fails, make=make, options=options or {})


def bent(what: str, fails: str | None, when: Callable[[Request], bool], bend: Any, **options: Any) -> PlugIn:
    return row(what, fails, lambda: Bent(when=when, bend=bend, **options))


def headed(what: str, fails: str | None, when: Callable[[Request], bool], bend: Any) -> PlugIn:
    return bent(what, fails, when, bend, head_config=HEAD, scores=True)


def piece(size: int) -> Callable[[Request], bool]:
    return asks(0, temperature=0, max_tokens=size)


DESCRIBES, ROUND_TRIP, RENDERS = "test_describes_itself", "test_tokenizer_round_trip", "test_renders_questions"
PER_SEED, EQUAL = "test_one_completion_per_seed", "test_equal_seeds_give_equal_tokens"
GREEDY, STOP = "test_greedy_ignores_seeds", "test_stop_id_ends_a_completion"
CONCURRENT, PROGRESS = "test_concurrent_requests", "test_reports_progress"
CANCELLING, OVERFLOW = "test_cancelling_frees_the_engine", "test_context_overflow_is_an_error"
REFUSED = "test_what_cannot_be_gone_on_with_is_refused"
PIECES, CLOSING = "test_continuing_in_pieces_is_the_same", "test_closing_twice_is_harmless"
PIECES_OF = {size: f"{PIECES}[{size}]" for size in (1, 2, 5)}

FAULTY = [
    row("no name", DESCRIBES, lambda: Bent(name="")),
    row("its context is known too late", DESCRIBES, Late),
    row("nothing ends a response", DESCRIBES, tokenizer(eos_ids=frozenset())),
    row("no text is some", f"{ROUND_TRIP}[empty]", tokenizer(read=lambda text: text or "?")),
    row("the end is stripped", f"{ROUND_TRIP}[steps]", tokenizer(read=str.rstrip)),
    row("accents apart", f"{ROUND_TRIP}[scripts]", tokenizer(read=lambda text: unicodedata.normalize("NFD", text))),
    row("other line breaks", f"{ROUND_TRIP}[code]", tokenizer(read=lambda text: text.replace("\r\n", "\n"))),
    row("pieces that are not the text", f"{ROUND_TRIP}[steps]",
        tokenizer(pieces=[*FakeTokenizer().pieces[:-1], b"."])),
    row("a prompt without the question", RENDERS, tokenizer(render=lambda _: "Hello")),
    row("messages are another prompt", RENDERS, tokenizer(render=shouted)),
    bent("a completion too few", PER_SEED, ONE, lambda answers: answers[:-1]),
    bent("an empty completion", PER_SEED, ONE, last(empty)),
    bent("fewer tokens sampled than returned", PER_SEED, ONE, last(undercounted), thinks=False),
    bent("more sampled than allowed", PER_SEED, ONE, last(set_to(sampled_tokens=25))),
    bent("goes on behind a stop", PER_SEED, ONE, last(longer), thinks=False),
    bent("swallows the stop token", PER_SEED, ONE, last(stopless), thinks=False),
    bent("a log-probability too few", PER_SEED, ONE, last(short_logprobs)),
    bent("a log-probability of 0", PER_SEED, ONE, last(with_first(-math.inf))),
    bent("a log-probability above 0", PER_SEED, ONE, last(with_first(0.5))),
    headed("a score too few", PER_SEED, ONE, last(short_scores)),
    headed("scores for some", "test_single_token", SINGLE, last(set_to(scores=None))),
    bent("less than nothing cached", PER_SEED, ONE, last(set_to(cached_tokens=-1))),
    bent("more cached than asked", PER_SEED, ONE, last(set_to(cached_tokens=999))),
    row("scores without a head", PER_SEED, lambda: Bent(scores=True)),
    row("a head without scores", PER_SEED, lambda: Bent(head_config=HEAD)),
    bent("two tokens for one", "test_single_token", SINGLE, each(longer)),
    bent("the second of two equal seeds differs", EQUAL, asks(5, 6, 7, 5), last(other)),
    bent("a seed alone gives something else", EQUAL, asks(6), each(other)),
    row("no seed counts", "test_different_seeds_differ",
        lambda: Bent(ask=lambda request: dataclasses.replace(request, seeds=(0,) * len(request.seeds)))),
    bent("seeds count where nothing is drawn", GREEDY, asks(1, 2, 3, temperature=0), last(other)),
    bent("a stop, and no log-probability", STOP, STOPPED, last(short_logprobs)),
    bent("another text before a stop", STOP, STOPPED, last(other)),
    bent("one of many in flight too few", CONCURRENT, TOGETHER, lambda answers: answers[:-1]),
    row("answers of many in flight are mixed up", CONCURRENT, Crowded),
    row("no progress", PROGRESS, lambda: Bent(ask=lambda request: dataclasses.replace(request, on_tokens=None))),
    row("an engine out of step when cancelled", CANCELLING, Cancelled),
    row("an error when cancelled", CANCELLING, lambda: Cancelled(error=RuntimeError("a race"))),
    row("the prompt is cut", OVERFLOW, Overflowing),
    row("another error for too long", OVERFLOW, lambda: Overflowing(error=ValueError("300 is too long"))),
    row("too long, without a number", OVERFLOW, lambda: Overflowing(error=GeneratorError("too long"))),
    row("out of step when too long", OVERFLOW, lambda: Overflowing(error=GeneratorError("300"), stumbles=True)),
    *(bent(f"pieces of {size} go elsewhere", name, piece(size), each(other)) for size, name in PIECES_OF.items()),
    headed("other scores in pieces", PIECES_OF[2], piece(2), each(shifted(2e-3))),
    headed("no scores in pieces", PIECES_OF[2], piece(2), each(set_to(scores=None))),
    bent("pieces without log-probabilities", PIECES_OF[2], piece(2), each(short_logprobs)),
    bent("an empty piece", PIECES_OF[2], piece(2), each(empty)),
    row("goes on where it cannot", REFUSED, lambda: Whole(error=None)),
    row("another error for going on", REFUSED, lambda: Whole(error=ValueError("no"))),
    row("out of step when asked to go on", REFUSED, lambda: Whole(stumbles=True)),
    row("closing twice is an error", CLOSING, lambda: Closing(again=GeneratorError("closed before"))),
    row("answers when closed", CLOSING, lambda: Closing(late=None)),
    row("another error when closed", CLOSING, lambda: Closing(late=RuntimeError("no engine"))),
]  # fmt: skip


def unseeded() -> FakeGenerator:
    count = itertools.count()
    return Bent(
        ask=lambda request: dataclasses.replace(
            request, seeds=tuple(seed + 10**6 * next(count) for seed in request.seeds)
        )
    )


def inexact() -> FakeGenerator:
    count = itertools.count(ord("A"))
    return Bent(
        when=lambda request: request.sampling.temperature == 0,
        bend=each(lambda one: dataclasses.replace(one, token_ids=(next(count), *one.token_ids[1:]))),
    )


SOUND = [
    row("as it should be", None, Bent),
    row("unseeded, and says so", None, unseeded, {"seeded": False}),
    row("inexact, and says so", None, inexact, {"exact": False}),
    row("another answer in a crowd, and says so", None, Crowded, {"exact": False}),
    row("a space in front", None, tokenizer(read=lambda text: f" {text}")),
    row("no chat template", None, tokenizer(render=refused)),
    headed("as it should be, with a head", None, ONE, each(lambda one: one)),
    headed("scores rounded otherwise", None, piece(2), each(shifted(5e-4))),
    headed("a score that cannot be read", None, piece(2), each(unread)),
    row("whole responses alone", None, Whole),
    bent("no log-probabilities", None, lambda _: True, each(set_to(logprobs=None))),
    row("a prompt that opens no thinking", None, lambda: Bent(thinks=False)),
]
