"""Reading an endpoint's text as tokens: stops are found when they come, and never where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.checkpoints import train_tokenizer
from tts_search.generators.openai.transcriber import Transcriber, stop_index
from tts_search.generators.tokenizer import PretrainedTokenizer
from tts_search.testing.fakes import STEP, FakeTokenizer

LONG = "the largest of 13 + 9. " * 30
PIECES = ["a", "largest", " 13", ".", "\n", ".\n\n", "</think>", "<|im_end|>", "你", " + ", "</", "think>"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PretrainedTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer().save_pretrained(folder)
    return PretrainedTokenizer(folder)


@example(parts=[".", "\n", "\n"], stops={".\n\n", "."})  # one stop in another, and the longer comes last
@given(
    parts=st.lists(st.sampled_from([*PIECES, LONG, f".\n\n{LONG}"]), max_size=12),
    stops=st.sets(st.sampled_from(PIECES), min_size=1),
)
def test_a_stop_is_seen_as_soon_as_the_text_holds_it(
    tokenizer: PretrainedTokenizer, parts: list[str], stops: set[str]
) -> None:
    transcriber = Transcriber(tokenizer)
    stop_ids = frozenset(tokenizer.encode(stop)[-1] for stop in stops)
    text = ""
    for part in parts:
        before = stop_ids.isdisjoint(tokenizer.encode(text))
        text += part
        seen = transcriber.stopped(text, len(part), stop_ids)
        now = not stop_ids.isdisjoint(tokenizer.encode(text))
        assert now or not seen
        if now and before:
            assert seen


def test_a_stop_that_is_one_only_where_the_text_is_cut_is_none() -> None:
    class Joins(FakeTokenizer):
        def encode(self, text: str) -> tuple[int, ...]:
            return super().encode(text) if len(text) < 400 else tuple(text.encode())

    transcriber, stops = Transcriber(Joins()), frozenset({STEP})
    assert transcriber.stopped("x" * 300 + ".\n\n", 3, stops)
    assert not transcriber.stopped("x" * 500 + ".\n\n", 3, stops)


@given(text=st.text(max_size=40), eos=st.integers(0, 3))
def test_a_prompt_keeps_its_end_of_text_tokens(tokenizer: PretrainedTokenizer, text: str, eos: int) -> None:
    ids = (*tokenizer.encode(text), *sorted(tokenizer.eos_ids) * eos)
    assert Transcriber(tokenizer).write(ids) == text + "<|im_end|>" * eos


def test_whose_text_it_is(tokenizer: PretrainedTokenizer, tmp_path: Path) -> None:
    transcriber = Transcriber(tokenizer)
    ids = tokenizer.encode("That is 22.\n\n")
    assert transcriber.matches(ids, "That is 22.\n\n")
    assert transcriber.matches(ids, "That is 22")  # a hidden stop token
    assert transcriber.matches((*ids, len(tokenizer) + 3), " That is 22.")  # padding ids have no text
    assert transcriber.matches(tokenizer.encode("你")[:1], "\ufffd")
    assert not transcriber.matches(ids, "Something else")


def test_the_first_stop_counts() -> None:
    assert stop_index([3, 5, 7, 5], frozenset({5, 7})) == 1
    assert stop_index([3], frozenset({5})) == 1
