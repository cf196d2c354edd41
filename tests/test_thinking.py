"""Thinking tags: told from vocabulary and template, found however they are cut into tokens, never left in an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from tests.checkpoints import train_tokenizer
from tts_search import Completion, Request, Sampling, Searcher, SearchResult
from tts_search.core.protocols import Question
from tts_search.errors import InvalidInputError
from tts_search.export.saved import from_json, to_json
from tts_search.generators.tokenizer import PretrainedTokenizer
from tts_search.segmentation import Phase, Segmenter
from tts_search.testing import FakeScorer
from tts_search.thinking import GPT_OSS, Tag, behind_thoughts, spoken_thought, tags_of, without_thoughts

KIMI = ("◁think▷", "◁/think▷")
HARMONY = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>")
TURN = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' -}}"
    "{%- endfor -%}{{- '<|im_start|>assistant\n' -}}"
)
HARMONY_TURN = (
    "{%- for message in messages -%}{{- '<|start|>user<|message|>' + message['content'] + '<|end|>' -}}{%- endfor -%}"
    "{#- <|channel|>analysis and <|channel|>final -#}{{- '<|start|>assistant' -}}"
)


def tokenizer(folder: Path, *, opens: str = "", mentions: str = "", added: Sequence[str] = (), **own: Any) -> Any:
    """One without thinking tokens of its own, whose template ends the prompt with `opens`."""
    hf = train_tokenizer("merged", thinking=False)
    tokens: Any = [AddedToken(text, special=False, normalized=False) for text in added]
    hf.add_tokens(tokens)
    hf.chat_template = HARMONY_TURN if "<|channel|>" in added else TURN + f"{{#- {mentions} -#}}{opens}"
    hf.save_pretrained(folder)
    return PretrainedTokenizer(folder, **own)


@dataclass
class Writer:
    """A generator that writes one text, and then ends it; what was put in its mouth takes the place of what differs."""

    tokenizer: Any
    text: str
    name: str = "writer"
    context_tokens: int = 4000
    sampling: Sampling = field(default_factory=Sampling)
    head_config: None = None
    cut: Callable[[str], Sequence[int]] | None = None  # how the text is cut into tokens

    def __post_init__(self) -> None:
        (self.end,) = self.tokenizer.eos_ids
        self.ids = [*(self.cut or self.tokenizer.encode)(self.text), self.end]
        self.prompt = len(self.tokenizer.render("Why?"))

    async def generate(self, request: Request) -> list[Completion]:
        done, ids = list(request.prefix)[self.prompt :], list[int]()
        while len(ids) < request.max_tokens and not (ids and ids[-1] in request.stop_ids):
            known = [*done, *ids]
            follows = known == self.ids[: len(known)] and len(known) < len(self.ids)
            ids.append(self.ids[len(known)] if follows else self.end)
        return [Completion(token_ids=ids, logprobs=[-1.0] * len(ids), sampled_tokens=len(ids)) for _ in request.seeds]

    async def aclose(self) -> None:
        pass


def answered(writer: Writer, **options: Any) -> SearchResult:
    with Searcher(generator=writer, scorer=FakeScorer(), step_rule=".\n\n", strategy="single") as searcher:
        return searcher.search("Why?", **options)


@pytest.mark.parametrize(
    ("vocabulary", "template", "tags"),
    [
        (["<think>", "</think>"], "", ("<think>", "</think>")),
        (["<think>"], "", None),
        (["[THINK]", "[/THINK]", "[INST]"], "", ("[THINK]", "[/THINK]")),
        (["<seed:think>", "</seed:think>"], "", ("<seed:think>", "</seed:think>")),
        (["<think:x7>", "</think:x7>"], "", ("<think:x7>", "</think:x7>")),
        (["<thought>", "</thought>"], "", ("<thought>", "</thought>")),
        (["<|START_THINKING|>", "<|END_THINKING|>"], "", ("<|START_THINKING|>", "<|END_THINKING|>")),
        (["<|channel>", "<channel|>"], "", ("<|channel>thought", "<channel|>")),
        ([*HARMONY], "<|channel|>analysis", GPT_OSS),
        (["<thought>", "</thought>", "[THINK]", "[/THINK]"], "... [/THINK]", ("[THINK]", "[/THINK]")),
        (["[THINK]", "[/THINK]", "<think>", "</think>"], "", ("<think>", "</think>")),
        ([], "{{ content.split('</think>')[-1] }}", ("<think>", "</think>")),
        ([], "a ◁think▷ b", KIMI),
        ([], "<|begin_of_thought|> and <|end_of_thought|>", ("<|begin_of_thought|>", "<|end_of_thought|>")),
        (["think", "<", ">", "think>"], "You are a thinking assistant.", None),
    ],
)
def test_tags_are_told_from_vocabulary_and_template(
    vocabulary: list[str], template: str, tags: tuple[str, str] | None
) -> None:
    assert tags_of({token: i for i, token in enumerate(vocabulary)}, template) == tags


@pytest.mark.parametrize("wrong", ["<think>", ("<think>",), ("a", "a"), ("", "b"), (1, 2), 7, ("a", "b", "c")])
def test_tags_that_are_none_are_refused(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="thinking_tags are two different texts"):
        tokenizer(tmp_path, thinking_tags=wrong)
    with pytest.raises(InvalidInputError, match="thinking_tags are two different texts"):
        answered(Writer(tokenizer(tmp_path), "a"), thinking_tags=wrong)


# What the model wrote, what of it is thinking, and the answer. The tags are each test's own.
RESPONSES = [
    ("OPENSo it is.\n\nIt is 9.\nCLOSE\n\nThe answer is 9.", "So it is.\n\nIt is 9.\n", "The answer is 9."),
    ("OPEN\nSo.\n\nCLOSE9", "\nSo.\n\n", "9"),
    ("So it is.\n\nIt is 9.CLOSEThe answer is 9.", "So it is.\n\nIt is 9.", "The answer is 9."),  # it never opens
    ("Let me see. OPENIt is 9.CLOSE9", "It is 9.", "9"),
    ("OPENIt is 8.CLOSE9CLOSE", "It is 8.", "9"),
    ("OPENIt is 8.CLOSE9CLOSEMore", "It is 8.", "9\nMore"),
    ("OPENIt is 8.CLOSE9OPENNo, 7.CLOSE.", "It is 8.", "9."),
    ("OPENIt is 8.CLOSE**9**", "It is 8.", "**9**"),
    ("The answer is 9.", "The answer is 9.", "The answer is 9."),
    ("The answer is 9.CLOSE", "The answer is 9.", "The answer is 9."),
]
TAGS = {
    "one token": (("<think>", "</think>"), ("<think>", "</think>"), {}),
    "of the template": (("<think>", "</think>"), (), {"mentions": "</think>"}),
    "kimi": (KIMI, (), {"mentions": "◁/think▷"}),
    "magistral": (("[THINK]", "[/THINK]"), ("[THINK]", "[/THINK]"), {}),
    "given": (("Thought:", "Answer:"), (), {"thinking_tags": ("Thought:", "Answer:")}),
    "given for tokens": (("<think>", "</think>"), ("<think>", "</think>"), {"thinking_tags": ("<think>", "</think>")}),
}


@pytest.mark.parametrize("kind", TAGS)
@pytest.mark.parametrize(("response", "thinking", "answer"), RESPONSES)
def test_a_thought_is_none_of_the_answer(tmp_path: Path, kind: str, response: str, thinking: str, answer: str) -> None:
    (opening, closing), added, own = TAGS[kind]
    written = response.replace("OPEN", opening).replace("CLOSE", closing)
    for cut in (None, "bytes"):
        words = tokenizer(tmp_path, added=added, **own)
        alone = {piece: i for i, piece in enumerate(words.pieces) if len(piece) == 1}

        def in_bytes(text: str, alone: dict[bytes, int] = alone) -> list[int]:
            return [alone[bytes([byte])] for byte in text.encode()]

        cutter = None if cut is None or added else in_bytes
        result = answered(Writer(words, written, cut=cutter))
        assert (result.thinking, result.answer) == (thinking, answer)
        assert result.stop_reason == "completed"
        assert not [warning for warning in result.warnings if "tags" in warning]
        assert not any(closing in step.text for step in result.steps)
        saved = from_json(to_json(result))
        assert saved.tree is not None
        assert result.tree is not None
        assert [saved.tree.split(node) for node in saved.tree] == [result.tree.split(node) for node in result.tree]


@pytest.mark.parametrize("opens", ["<think>\n", "◁think▷", "[THINK]"])
def test_a_template_that_opens_the_thought(tmp_path: Path, opens: str) -> None:
    closing = f"{opens[0]}/{opens.strip()[1:]}"
    result = answered(Writer(tokenizer(tmp_path, opens=opens), f"So.\n\nIt is 9.{closing}9"))
    assert (result.thinking, result.answer) == ("So.\n\nIt is 9.", "9")
    assert [step.text for step in result.steps] == ["So.\n\n", "It is 9."]
    cut_off = answered(Writer(tokenizer(tmp_path, opens=opens), "So.\n\nIt is 9."), max_tokens=3)
    assert cut_off.tree is not None
    assert closing in cut_off.tree.decode(cut_off.tree.nodes[-1].token_ids), "it is closed in its own words"
    assert cut_off.answer == ""


@pytest.mark.parametrize("tags", [("<think>", "</think>"), KIMI])
def test_a_model_that_thinks_although_the_template_closed_it(tmp_path: Path, tags: tuple[str, str]) -> None:
    opening, closing = tags
    words = tokenizer(tmp_path, opens=f"{opening}\n\n{closing}\n\n")
    for response in (f"{opening}It is 8.{closing}9", f"It is 8.{closing}9"):
        result = answered(Writer(words, response))
        assert (result.thinking, result.answer) == ("It is 8.", "9")
    assert answered(Writer(words, "9")).answer == "9"


@pytest.mark.parametrize(
    ("response", "thinking", "answer"),
    [
        (
            "<|channel|>analysis<|message|>So.\n\n8?<|end|><|start|>assistant<|channel|>final<|message|>9",
            "So.\n\n8?",
            "9",
        ),
        ("<|channel|>final<|message|>9", "", "9"),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>b<|end|><|start|>"
            "assistant<|channel|>final<|message|>9",
            "a<|end|><|start|>assistant<|channel|>commentary<|message|>b",
            "9",
        ),
    ],
)
def test_channels(tmp_path: Path, response: str, thinking: str, answer: str) -> None:
    words = tokenizer(tmp_path, added=HARMONY)
    result = answered(Writer(words, response))
    assert (result.thinking, result.answer) == (thinking, answer)
    cut_off = answered(Writer(words, "<|channel|>analysis<|message|>So so so so"), max_tokens=14)
    assert cut_off.tree is not None
    assert cut_off.tree.decode(cut_off.tree.nodes[-1].token_ids).startswith(GPT_OSS[1])
    assert cut_off.answer == ""


def test_tags_that_nobody_announced_are_seen_and_said(tmp_path: Path) -> None:
    result = answered(Writer(tokenizer(tmp_path), "<think>\nIt is 8.\n\nNo.\n</think>\n\n9"))
    assert (result.thinking, result.answer) == ("\nIt is 8.\n\nNo.\n", "9")
    assert "thinking_tags=('<think>', '</think>')" in result.warnings[-1]
    cut_off = answered(Writer(tokenizer(tmp_path), "<think>\nIt is 8"))
    assert (cut_off.thinking, cut_off.answer) == ("\nIt is 8", "")
    assert "thinking_tags=" in cut_off.warnings[-1]
    told = answered(
        Writer(tokenizer(tmp_path), "<think>\nIt is 8.\n\nNo.\n</think>\n\n9"), thinking_tags=("<think>", "</think>")
    )
    assert (told.answer, [w for w in told.warnings if "tags" in w]) == ("9", [])
    assert (
        answered(Writer(tokenizer(tmp_path, added=["<think>", "</think>"]), "a b"), thinking_tags=None).answer == "a b"
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>a</think>b", ("a", "b")),
        ("<Thinking>\na\n</Thinking>\nb", ("\na\n", "\nb")),
        ("a</think>b", ("a", "b")),
        ("[THINK]a[/THINK]b", ("a", "b")),
        ("◁think▷a◁/think▷b", ("a", "b")),
        ("Sure.\n<think>a</think>b", ("a", "b")),
        ("<think>a", ("a", "")),
        ("<|begin_of_thought|>a<|end_of_thought|>b", ("a", "b")),
        ("<think>a</reasoning>b</think>c", ("a</reasoning>b", "c")),
        ("Sure. <think>a</think>b", ("a", "b")),
        ("analysisWe need 9.assistantfinal9", ("We need 9.", "9")),
        ("analysisWe need 9.", None),
        (f"{GPT_OSS[0]}a{GPT_OSS[1]}b", ("a", "b")),
        ("<|channel|>analysis<|message|>a<|channel|>final<|message|>b", ("a", "b")),
        ("An analysis, and the assistantfinal", None),
        ("b</think>", None),
        ("Models write <think> and then they think.", None),
        ("a < b and b > c", None),
    ],
)
def test_thoughts_in_a_text(text: str, parts: tuple[str, str] | None) -> None:
    found = spoken_thought(text)
    assert (found and (found.thinking, found.answer)) == parts


def test_an_answer_loses_its_thoughts_and_nothing_else() -> None:
    assert without_thoughts("a", "<", ">") == "a"
    assert without_thoughts("a<b>c<d", "<", ">") == "ac"
    assert without_thoughts("a>b>", "<", ">") == "a\nb\n"


@given(
    st.lists(
        st.sampled_from([b"<", b"/", b"</", b"t", b">", b"</t", b"t>", b"a", b"</t>a", b"\n", b">\n"]), max_size=14
    )
)
def test_a_tag_is_found_by_its_text(pieces: list[bytes]) -> None:
    """By definition: a token completes the tag where the tag ends in it, and an engine stops at all such tokens."""
    vocabulary = [b"</", b"t", b">", *pieces]
    tag = Tag((0, 1, 2), vocabulary)
    text = b""
    for i, piece in enumerate(pieces, start=3):
        begin = max(0, len(text) - 3)
        ends = b"</t>" in (text + piece)[begin:]
        assert tag.completed_by(i, piece, text[len(text) - tag.keep :] if tag.keep <= len(text) else text) == ends
        assert not ends or i in tag.ends
        text += piece


class Pieces:
    """A vocabulary of given pieces; of the tags the closing one is `</t>` in three tokens."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = (b"<t", b">", b"</", b"t", b">", b".\n\n", *pieces)
        self.thinking = ((0, 1), (2, 3, 4))

    def encode(self, text: str) -> tuple[int, ...]:
        return (5,)

    def render(self, messages: Question) -> tuple[int, ...]:
        return ()


@given(st.lists(st.integers(0, 9), max_size=30), st.lists(st.integers(0, 30)), st.booleans())
def test_chunks_change_nothing(tokens: list[int], cuts: list[int], on_text: bool) -> None:
    segmenter = Segmenter(Pieces(b"a", b"<t>", b"a</", b"t>\n"), "a<" if on_text else ".\n\n")
    whole = segmenter.scan(segmenter.start(), tokens)
    found, state = list[int](), segmenter.start()
    bounds = [0, *sorted(min(cut, len(tokens)) for cut in cuts), len(tokens)]
    for begin, end in pairwise(bounds):
        ends, state = segmenter.scan(state, tokens[begin:end])
        found += [begin + place for place in ends]
    assert (found, state) == whole
    one, state = list[int](), segmenter.start()
    for place, token in enumerate(tokens, start=1):
        state = segmenter.advance(state, token)
        one += [place] * state.boundary
    assert one == found
    assert state._replace(boundary=False) == whole[1]._replace(boundary=False)


def test_the_end_of_a_prompt(tmp_path: Path) -> None:
    words = tokenizer(tmp_path, mentions="◁/think▷")
    segmenter = Segmenter(words)
    starts = {
        text: segmenter.start(words.encode(text)).phase for text in ("a◁think▷\n", "a◁think▷b◁/think▷\n\n", "a◁think▷b")
    }
    assert list(starts.values()) == [Phase.THINKING, Phase.PLAIN, Phase.BEFORE]


def test_what_follows_the_last_thought() -> None:
    assert behind_thoughts("a</think>9 <think>b</think>22") == "22"
    assert behind_thoughts("a</think>22</think>\n") == "22", "a closing tag at the end means nothing"
    assert behind_thoughts("a</think> \n") == "a</think> \n"
    assert behind_thoughts("22") == "22"


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
        ("<|channel>thought", "<channel|>"),
        ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<unused94>", "<unused95>"),
    ],
)
def test_special_tags_are_heard_in_texts_too(opening: str, closing: str) -> None:
    assert spoken_thought(f"{opening}hm{closing}42") == ("hm", "42", opening, closing)
    assert spoken_thought(f"hm{closing}42") == ("hm", "42", opening, closing)
    assert spoken_thought(f"{opening}hm") == ("hm", "", opening, closing)
