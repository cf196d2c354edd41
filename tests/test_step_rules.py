r"""`step_rule="auto"`: settled from what the model writes, once, and kept in a file that is ours."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tts_search import Completion, Request, Sampling, Searcher
from tts_search.core.step_finding import rule_for, steps_of
from tts_search.segmentation import Contains, Exact, Segmenter, rule_from_json, rule_to_json
from tts_search.step_rules import file
from tts_search.testing import FakeGenerator, FakeScorer
from tts_search.testing.fakes import END, STEP, FakeTokenizer

PART = "First we add the two numbers and see what comes of it"
NEXT = "The sum is forty two, so that the answer must be 42"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TTS_SEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "step_rules.jsonl"


@dataclass
class Habitual:
    """A model that always writes the same text."""

    text: str
    name: str = "habitual"
    context_tokens: int = 4000
    sampling: Sampling = field(default_factory=Sampling)
    head_config: Any = None
    fingerprint: Any = "habitual"
    asked: list[Request] = field(default_factory=list)

    @property
    def tokenizer(self) -> FakeTokenizer:
        return FakeTokenizer(thinks=False)

    async def generate(self, request: Request) -> list[Completion]:
        self.asked.append(request)
        whole = [*self.tokenizer.encode(self.text), END]
        done = next(
            n for n in range(len(whole), -1, -1) if list(request.prefix)[len(request.prefix) - n :] == whole[:n]
        )
        ids = list[int]()
        while len(ids) < request.max_tokens and not (ids and ids[-1] in request.stop_ids):
            ids.append(whole[min(done + len(ids), len(whole) - 1)])
        return [Completion(token_ids=ids, logprobs=[0.0] * len(ids), sampled_tokens=len(ids)) for _ in request.seeds]

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        (f"{PART}.\n\n{NEXT}.\n\nSo 42.", ".\n\n"),
        (f"{PART}:\n\n{NEXT}\n\nSo it is 42!", "\n\n"),
        (f"{PART}.\n\n{PART}:\n\n{NEXT}:\n\n{NEXT}!\n\n{NEXT}:\n\nSo 42.", "\n\n"),
        (f"{PART}.\n{NEXT}.\nSo it is 42.", "\n"),
        (f"1. {PART}\n2. {NEXT}\n3. {NEXT}", "\n"),
        (f"Step 1: {PART}\n\nStep 2: {NEXT}\n\nStep 3: {NEXT}", "\n\n"),
        (f"{PART}.\r\n\r\n{NEXT}.\r\n\r\nSo 42.", ".\r\n\r\n"),
        (f"{PART}\r\n\r\n{NEXT}\r\n\r\nSo it is 42", "\r\n\r\n"),
        ("小明一开始有二十四个苹果。\n\n他给了弟弟三分之一，也就是八个。\n\n答案是二十一。", "。\n\n"),
        ("小明一开始有二十四个苹果。他给了弟弟三分之一，也就是八个。所以最后一共是二十一个。", "。"),
        (f"{PART}. {NEXT}. So it is 42.", None),  # never every full stop
        ("42", None),
    ],
)
def test_what_a_model_writes_between_steps(text: str, ends: str | None) -> None:
    assert rule_for([text] * 4) == (None if ends is None else Contains(ends))
    if ends is not None:
        found = Habitual(text)
        with Searcher(generator=found, scorer=FakeScorer()) as searcher:
            result = searcher.search("Why?", strategy="single")
        assert "".join(step.text for step in result.steps) == text
        assert [step.text for step in result.steps] == steps_of(text, Contains(ends))
        assert (result.step_rule, result.warnings) == (repr(Contains(ends)), ())


def test_several_habits_are_one_rule() -> None:
    chinese = "小明一开始有二十四个苹果。\n\n他给了弟弟三分之一，也就是八个。\n\n答案是二十一。"
    assert rule_for([f"{PART}.\n\n{NEXT}.", f"{NEXT}.\n\n{PART}.", chinese]) == Contains((".\n\n", "。\n\n"))


def test_it_is_settled_once_and_by_no_question(caplog: pytest.LogCaptureFixture) -> None:
    engine = Habitual(f"{PART}\n{NEXT}\n42")
    with Searcher(generator=engine, scorer=FakeScorer(), strategy="single") as searcher:
        results = list(searcher.search_many([f"Why {i}?" for i in range(5)]))
        assert searcher.settings["step_rule"] == "auto"
    fixed = [request for request in engine.asked if request.sampling.temperature == 0]
    assert len(fixed) == 4
    assert {result.step_rule for result in results} == {"Contains(text='\\n')"}
    assert {result.usage.requests for result in results} == {1}, "no question pays for it"
    assert caplog.text.count("finding out what habitual writes between steps") == 1


def test_it_is_for_scorers_of_models_without_a_rule() -> None:
    both: list[dict[str, Any]] = [{"scorer": None}, {"scorer": FakeScorer(), "step_rule": ".\n\n"}]
    for options in both:
        engine = Habitual(f"{PART}\n{NEXT}\n42")
        with Searcher(generator=engine, **options) as searcher:
            assert searcher.search("Why?", strategy="single").step_rule == "Contains(text='.\\n\\n')"
        assert len(engine.asked) == 1
    engine = Habitual(f"{PART}\n{NEXT}\n42")
    with Searcher(generator=engine, scorer=None) as searcher:
        assert searcher.search("Why?", strategy="single", step_rule="auto").step_rule == "Contains(text='\\n')"


def test_a_model_without_habits_is_told_of() -> None:
    with Searcher(generator=Habitual(f"{PART}. {NEXT}."), scorer=FakeScorer()) as searcher:
        result = searcher.search("Why?", strategy="single")
    assert "found no step" in result.warnings[0]
    assert "auto" not in result.warnings[0]
    assert len(result.steps) == 1
    assert result.score == result.steps[0].score


def test_it_is_kept_by_the_fingerprint(cache: Path) -> None:
    def once(text: str, fingerprint: Any, **options: Any) -> tuple[str, int]:
        engine = Habitual(text, fingerprint=fingerprint)
        with Searcher(generator=engine, scorer=FakeScorer(), strategy="single") as searcher:
            return searcher.search("Why?", **options).step_rule, len(engine.asked)

    lines, blank = f"{PART}\n{NEXT}\n42", f"{PART}\n\n{NEXT}\n\n42"
    assert once(lines, "one")[1] == 5
    assert file() == cache
    assert once(lines, "one") == ("Contains(text='\\n')", 1)
    assert once(blank, "two") == ("Contains(text='\\n\\n')", 5)
    assert once(lines, None) == ("Contains(text='.\\n\\n')", 1), "one that cannot be kept is found out when asked for"
    assert once(lines, None, step_rule="auto") == once(lines, None, step_rule="auto") == ("Contains(text='\\n')", 5)


@pytest.mark.parametrize("foreign", [b"my notes\n", b'{"format": "tts-search runs", "version": 1}\n{"a": 1}\n'])
def test_a_file_of_others_is_left_as_it_is(cache: Path, foreign: bytes) -> None:
    cache.parent.mkdir()
    cache.write_bytes(foreign)
    engine = Habitual(f"{PART}\n{NEXT}\n42", fingerprint="one")
    with Searcher(generator=engine, scorer=FakeScorer(), strategy="single") as searcher:
        assert searcher.search("Why?").step_rule == "Contains(text='\\n')"
    assert cache.read_bytes() == foreign


def test_the_released_reading_of_a_step_token_behind_the_tag() -> None:
    vocabulary = FakeTokenizer()
    for rule, ends in (
        (Exact(".\n\n"), [3]),
        (Exact(".\n\n", at_start=True), [1, 3]),
        (Contains(".\n\n", True), [1, 3]),
    ):
        segmenter = Segmenter(vocabulary, rule)
        start = segmenter.start(vocabulary.render("Why?"))
        assert segmenter.scan(start, (STEP, 97, STEP, STEP))[0] == ends
        assert rule_from_json(json.loads(json.dumps(rule_to_json(rule)))) == rule
    generator = FakeGenerator(script=lambda prefix, _: (STEP, 97, STEP, 258, 98, END)[len(prefix) - 5])
    with Searcher(generator=generator, scorer=FakeScorer(), strategy="single") as searcher:
        assert [step.text for step in searcher.search("Why?", step_rule="released").steps] == [".\n\n", "a.\n\n"]


def test_several_texts_end_steps() -> None:
    segmenter = Segmenter(FakeTokenizer(thinks=False), ("\n\n", "\r\n\r\n"))
    ends, _ = segmenter.scan(segmenter.start(), tuple(b"a\r\n\r\nb\n\nc\n\n\n\nd"))
    assert ends == [5, 8, 11]
    assert rule_from_json(rule_to_json(segmenter.rule)) == segmenter.rule
