r"""Segmentation: lossless, the same in any chunks, and the same on tokenizers that have `.\n\n` and that have not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkpoints import TOKENIZER_KINDS, write_tokenizer
from tests.smollm2 import find_smollm2
from tts_search.errors import InvalidInputError
from tts_search.generators.tokenizer import PretrainedTokenizer
from tts_search.segmentation import (
    Contains,
    Exact,
    Phase,
    Segmenter,
    StepRule,
    TokenIds,
    Vocabulary,
    as_rule,
    rule_from_json,
    rule_to_json,
)

PROPERTY = settings(max_examples=60)
STEP = ".\n\n"
RULES = (Contains(STEP), Contains("\n\n"), Exact(STEP), Exact("\n\n"), Contains("So"), Contains("aa"))

# What a model writes: words, and now and then whatever a step token is made of.
WORDS = st.sampled_from(["So", "add", "13", "= 22", "a", "naïve", "你好", " ", "!", "(x)", "\t", "  "])
BREAKS = st.sampled_from([STEP, "\n\n", "\n", ".", ".\n", "\n\n\n", STEP + STEP])
TEXT = st.lists(st.one_of(WORDS, BREAKS, st.text(max_size=3))).map("".join)

SENTENCE = st.lists(
    st.sampled_from(["First", "we", "add", "13", "and", "9", "to", "see", "it"]), min_size=2, max_size=8
)
PARAGRAPH = st.lists(SENTENCE, min_size=1, max_size=3).map(lambda many: ". ".join(" ".join(words) for words in many))
PROSE = st.lists(PARAGRAPH, min_size=1, max_size=5).map(STEP.join)


@pytest.fixture(scope="module")
def vocabularies(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> dict[str, PretrainedTokenizer]:
    root = tmp_path_factory.mktemp("tokenizers")
    plain = {f"{kind} plain": write_tokenizer(root / f"{kind} plain", kind, thinking=False) for kind in TOKENIZER_KINDS}
    folders: dict[str, Path] = plain | {str(kind): write_tokenizer(root / kind, kind) for kind in TOKENIZER_KINDS}
    if real := find_smollm2(pytestconfig):
        folders["smollm2"] = real
    return {kind: PretrainedTokenizer(place) for kind, place in folders.items()}


@pytest.fixture
def merged(vocabularies: dict[str, PretrainedTokenizer]) -> PretrainedTokenizer:
    return vocabularies["merged"]


def text_of(vocabulary: Vocabulary, ids: Sequence[int]) -> bytes:
    return b"".join(vocabulary.pieces[i] for i in ids)


def steps(vocabulary: Vocabulary, text: str, rule: Any = STEP, prompt: str = "") -> list[str]:
    """The texts of the finished steps of a response, each from its predecessor's end."""
    segmenter = Segmenter(vocabulary, rule)
    ids = vocabulary.encode(text)
    ends, _ = segmenter.scan(segmenter.start(vocabulary.encode(prompt)), ids)
    return [text_of(vocabulary, ids[a:b]).decode() for a, b in zip((0, *ends), ends, strict=False)]


@PROPERTY
@given(TEXT, st.sampled_from(RULES), st.booleans())
def test_nothing_is_lost_and_every_end_is_a_candidate(
    vocabularies: dict[str, PretrainedTokenizer], text: str, rule: StepRule, opened: bool
) -> None:
    for vocabulary in vocabularies.values():
        segmenter = Segmenter(vocabulary, rule)
        start = segmenter.start(vocabulary.encode("<think>") if opened and vocabulary.thinking else ())
        ids = vocabulary.encode(text)
        ends, _ = segmenter.scan(start, ids)
        assert ends == sorted(set(ends))
        assert all(1 <= end <= len(ids) for end in ends)
        assert all(ids[end - 1] in segmenter.step_ids for end in ends)
        cuts = [0, *ends, len(ids)]
        parts = [text_of(vocabulary, ids[a:b]) for a, b in pairwise(cuts)]
        assert b"".join(parts) == text_of(vocabulary, ids)


@PROPERTY
@given(TEXT, st.sampled_from(RULES), st.lists(st.integers(0, 60)))
def test_chunks_change_nothing(
    vocabularies: dict[str, PretrainedTokenizer], text: str, rule: StepRule, cuts: list[int]
) -> None:
    for vocabulary in vocabularies.values():
        segmenter = Segmenter(vocabulary, rule)
        ids = vocabulary.encode(text)
        whole, end = segmenter.scan(segmenter.start(), ids)
        found: list[int] = []
        state = segmenter.start()
        bounds = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
        for a, b in pairwise(bounds):
            ends, state = segmenter.scan(state, ids[a:b])
            found += [a + position for position in ends]
        assert found == whole
        if ids:
            assert state == end


@PROPERTY
@given(PROSE, st.booleans())
def test_prose_has_the_same_steps_on_every_tokenizer(
    vocabularies: dict[str, PretrainedTokenizer], prose: str, finished: bool
) -> None:
    text = prose + STEP * finished
    expected = [part + STEP for part in text.split(STEP)[:-1]]
    for vocabulary in vocabularies.values():
        assert steps(vocabulary, text) == expected


class Pieces:
    """A vocabulary of given pieces that never writes a step token in one, so that every rule is found on the text."""

    thinking = None

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    def encode(self, text: str) -> tuple[int, ...]:
        return ()


def ends_on_the_text(pieces: Sequence[bytes], pattern: bytes) -> list[int]:
    """By definition: a token that completes the pattern ends a step, unless nothing lies between it and the last."""
    text, last = b"", 0
    ends: list[int] = []
    for position, piece in enumerate(pieces, start=1):
        before, text = len(text), text + piece
        found = text.rfind(pattern, max(0, before - len(pattern) + 1))
        if found >= 0:
            ends += [position] * (found > last)
            last = len(text)
    return ends


PIECE = st.lists(st.sampled_from(b"a.\n"), max_size=4).map(bytes)


@settings(max_examples=300)
@given(st.lists(PIECE, max_size=30), st.sampled_from([STEP, "aa", ".a.", "\n", "aa\n\n."]))
def test_the_text_decides_where_no_token_does(pieces: list[bytes], pattern: str) -> None:
    segmenter = Segmenter(Pieces(*pieces), pattern)
    assert segmenter.text_mode
    ends, _ = segmenter.scan(segmenter.start(), range(len(pieces)))
    assert ends == ends_on_the_text(pieces, pattern.encode())
    completing = {
        i
        for i, piece in enumerate(pieces)
        if any(pattern.encode() in pattern.encode()[:cut] + piece for cut in range(len(pattern)))
    }
    assert segmenter.step_ids == completing, "an engine stops wherever a step can end, and nowhere else"


@pytest.mark.parametrize(
    ("pieces", "ends"),
    [
        ([b"a", STEP, b"b", STEP], [2, 4]),  # a step of one token, and of one byte
        ([b"ab", b".", b"\n", b"\n", b"c", b".\n", b"\n"], [4, 7]),
        ([b"a", STEP, STEP, b"b", STEP], [2, 5]),
        ([b"a", STEP, b".\n\nb.\n\n"], [2, 3]),  # a token that holds a step of its own
        ([b"a.\n\nb.\n\n", STEP], [1]),
        ([b"a", b".\n\nb", b".\n\n"], [2]),  # what follows the text in its token belongs to the step token
        ([b".\n\na", STEP], []),
        ([b".", b"\n", b"\n", b"a", b".\n\n"], [5]),
        ([b"a", b".\n", b"\n\n", b"\n", b".\n\n", b"b.\n\n"], [3, 5, 6]),
    ],
)
def test_steps_on_the_text_by_hand(pieces: list[bytes | str], ends: list[int]) -> None:
    raw = [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
    segmenter = Segmenter(Pieces(*raw), STEP)
    assert segmenter.scan(segmenter.start(), range(len(raw)))[0] == ends == ends_on_the_text(raw, STEP.encode())


def test_matches_that_overlap_are_a_run() -> None:
    segmenter = Segmenter(Pieces(b"aa", b"a", b"b"), "aa")
    assert segmenter.scan(segmenter.start(), (2, 0, 1, 0, 2, 0))[0] == [2, 6]


def test_a_step_of_one_token_is_a_step(vocabularies: dict[str, PretrainedTokenizer]) -> None:
    for vocabulary in vocabularies.values():
        assert steps(vocabulary, f"So{STEP}a{STEP}b{STEP}") == [f"So{STEP}", f"a{STEP}", f"b{STEP}"]
        assert steps(vocabulary, f"a{STEP}") == [f"a{STEP}"]


def test_which_tokenizers_need_the_text(vocabularies: dict[str, PretrainedTokenizer]) -> None:
    for kind, vocabulary in vocabularies.items():
        for rule in (Contains(STEP), Exact(STEP)):
            segmenter = Segmenter(vocabulary, rule)
            assert segmenter.text_mode == (not kind.startswith("merged"))
            assert len(segmenter.step_ids) < 100, "an engine checks every token against these"


def test_a_full_stop_alone_ends_no_step(vocabularies: dict[str, PretrainedTokenizer]) -> None:
    for vocabulary in vocabularies.values():
        assert steps(vocabulary, "One. Two. Three.\nFour. Five") == []


def test_only_the_first_of_a_run_counts(vocabularies: dict[str, PretrainedTokenizer]) -> None:
    for vocabulary in vocabularies.values():
        found = steps(vocabulary, f"First it is{STEP}{STEP}{STEP}Then it is{STEP}")
        assert len(found) == 2
        assert found[0] == "First it is" + STEP
        assert "".join(found) == f"First it is{STEP}{STEP}{STEP}Then it is{STEP}"


def test_none_at_the_very_beginning(vocabularies: dict[str, PretrainedTokenizer]) -> None:
    for vocabulary in vocabularies.values():
        assert steps(vocabulary, STEP) == []
        assert steps(vocabulary, STEP + STEP) == []
        assert steps(vocabulary, f"{STEP}{STEP}Now it is{STEP}") == [f"{STEP}{STEP}Now it is{STEP}"]
        if vocabulary.thinking:
            assert len(steps(vocabulary, f"<think>{STEP}Now it is{STEP}")) == 1


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
def test_only_the_thinking_part_is_segmented(vocabularies: dict[str, PretrainedTokenizer], kind: str) -> None:
    vocabulary = vocabularies[kind]
    thinking, answer = f"So it is{STEP}It is 9{STEP}yes", f"The answer{STEP}is 9{STEP}"
    inside = [f"So it is{STEP}", f"It is 9{STEP}"]
    assert steps(vocabulary, f"<think>{thinking}</think>{answer}") == ["<think>" + inside[0], inside[1]]
    assert steps(vocabulary, f"\n<think>{thinking}</think>{answer}") == ["\n<think>" + inside[0], inside[1]]
    assert steps(vocabulary, f"{thinking}</think>{answer}", prompt="Why?<think>\n") == inside
    assert steps(vocabulary, f"<think>{thinking}") == ["<think>" + inside[0], inside[1]], "never closed"
    assert steps(vocabulary, f"<think></think>{answer}") == []


def test_responses_that_do_not_think_are_segmented_whole(vocabularies: dict[str, PretrainedTokenizer]) -> None:
    response = f"So it is{STEP}It is 9{STEP}"
    for vocabulary in vocabularies.values():
        assert steps(vocabulary, response) == [f"So it is{STEP}", f"It is 9{STEP}"]
        assert steps(vocabulary, response, prompt="Why?<think>\n\n</think>\n\n") == [
            f"So it is{STEP}",
            f"It is 9{STEP}",
        ]


def test_tags_further_up_in_the_prompt_say_nothing(merged: PretrainedTokenizer) -> None:
    segmenter = Segmenter(merged)
    for prompt in ("What does <think> mean?\nassistant\n", "<think>a</think>b\nuser\nc\nassistant\n", ""):
        assert segmenter.start(merged.encode(prompt)).phase is Phase.BEFORE
    assert segmenter.start(merged.encode("<think>a</think>b\nassistant\n<think>\n")).phase is Phase.THINKING
    assert segmenter.start(merged.encode("Why?<think>\n\n</think>\n\n")).phase is Phase.PLAIN


def test_rules(vocabularies: dict[str, PretrainedTokenizer], merged: PretrainedTokenizer) -> None:
    text = "It is so.\n\nIt is 9!\n\nIt is\n\nAnd (a).\n\nit"
    ends_with = ["so.\n\n", "9!\n\n", "is\n\n", "(a).\n\n"]
    for vocabulary in vocabularies.values():
        for rule, expected in ((Contains("\n\n"), ends_with), (Contains(STEP), [ends_with[0], ends_with[3]])):
            found = steps(vocabulary, text, rule)
            assert len(found) == len(expected)
            assert all(step.endswith(end) for step, end in zip(found, expected, strict=True))
    (step,) = merged.encode(STEP)
    assert Segmenter(merged, Exact(STEP)).step_ids == {step}
    assert Segmenter(merged, Contains(STEP)).step_ids >= {step}
    assert Segmenter(merged, TokenIds(frozenset({step}))).step_ids == {step}
    assert Segmenter(merged, {step}).step_ids == {step}
    assert Segmenter(merged, [step, step]).step_ids == {step}
    assert Segmenter(merged, lambda piece: piece == STEP).step_ids == {step}
    assert steps(merged, text, lambda piece: piece.startswith("!")) == ["It is so.\n\nIt is 9!\n\n"]
    assert steps(merged, "one Wait two Wait three", "Wait") == ["one Wait", " two Wait"]


def test_a_text_that_no_token_holds_is_found_anyway(vocabularies: dict[str, PretrainedTokenizer]) -> None:
    for vocabulary in vocabularies.values():
        segmenter = Segmenter(vocabulary, "\n---\nNext:")
        assert segmenter.text_mode
        text = "one two\n---\nNext: three four\n---\nNext: five"
        ids = vocabulary.encode(text)
        ends, _ = segmenter.scan(segmenter.start(), ids)
        assert len(ends) == 2
        assert text_of(vocabulary, ids[: ends[0]]).startswith(b"one two\n---\nNext:")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("", "empty"),
        (Contains(""), "empty"),
        (Exact(""), "empty"),
        (frozenset(), "non-empty"),
        (TokenIds(frozenset()), "non-empty"),
        ([10**6], "1000000"),
        ({-1}, "-1"),
        (["a"], "a step rule is"),
        (5, "a step rule is"),
        (None, "a step rule is"),
        (lambda piece: False, "no step would end"),
    ],
)
def test_rules_that_cannot_work(merged: PretrainedTokenizer, rule: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Segmenter(merged, rule)


def test_ids_outside_the_vocabulary_are_no_steps(merged: PretrainedTokenizer) -> None:
    segmenter = Segmenter(merged)
    ends, _ = segmenter.scan(segmenter.start(), (*merged.encode("9"), 10**6, *merged.encode(STEP), -1))
    assert ends == [3]


@pytest.mark.parametrize("outside", [-1, 0])
def test_ids_at_the_edges_of_the_vocabulary(merged: PretrainedTokenizer, outside: int) -> None:
    size = len(merged.pieces)
    assert Segmenter(merged, {0, size - 1}).step_ids == {0, size - 1}
    wrong = outside or size
    with pytest.raises(InvalidInputError, match=f"below {size}, got .{wrong}."):
        Segmenter(merged, {0, wrong})
    assert Segmenter(merged).piece(wrong) == b""
    assert Segmenter(merged).piece(size - 1) == merged.pieces[size - 1]


def test_tags_where_they_mean_nothing(merged: PretrainedTokenizer) -> None:
    """White space in front of the opening tag is no step; a closing tag without an opening one ends the thinking."""
    assert steps(merged, f"<think>{STEP}So{STEP}") == [f"<think>{STEP}So{STEP}"]
    assert steps(merged, f"\n<think>{STEP}So{STEP}") == [f"\n<think>{STEP}So{STEP}"]
    assert steps(merged, f"So</think>it{STEP}is{STEP}") == []
    assert steps(merged, f"So{STEP}it</think>is{STEP}") == [f"So{STEP}"]
    assert steps(merged, f"So</think>it{STEP}", prompt="Why?<think></think>") == [], "though the template closed it"
    assert steps(merged, f"Well, <think>So{STEP}it</think>is{STEP}") == [f"Well, <think>So{STEP}"]
    assert steps(merged, f"<think>So</think>it{STEP}<think>is{STEP}") == [], "an answer stays an answer"
    assert steps(merged, f"<think>So{STEP}", prompt="Why?<think></think>") == [f"<think>So{STEP}"]
    assert Segmenter(merged).start(merged.encode("Why?</think>")).phase is Phase.PLAIN


@given(
    st.one_of(
        st.text(min_size=1).map(Contains),
        st.text(min_size=1).map(Exact),
        st.frozensets(st.integers(0, 10**6), min_size=1).map(TokenIds),
    )
)
def test_rules_survive_json(rule: StepRule) -> None:
    assert rule_from_json(json.loads(json.dumps(rule_to_json(rule)))) == rule
    assert as_rule(rule) == rule


@pytest.mark.parametrize("value", [None, 7, "x", {}, {"contains": 7}, {"ids": "x"}, {"ids": ["x"]}, {"step": "x"}])
def test_json_that_is_no_rule(value: Any) -> None:
    with pytest.raises(InvalidInputError):
        rule_from_json(value)


def test_a_function_has_no_json() -> None:
    with pytest.raises(InvalidInputError, match="callable"):
        rule_to_json(str.isspace)
