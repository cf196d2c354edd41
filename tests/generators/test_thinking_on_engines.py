"""Thoughts in tags on engines at work: transformers, vLLM, and a server of vLLM's asked in ids, in texts and in chats.

Each model writes one text by heart (`tests/scripted.py`). Whatever the form of its thought, it is none of the answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from typer.testing import CliRunner

from tests.checkpoints import train_tokenizer
from tests.generators.conftest import in_process
from tests.scripted import write_scripted
from tests.test_thinking import HARMONY, HARMONY_TURN, TURN
from tts_search import Searcher, SearchResult
from tts_search.cli import app
from tts_search.generators.tokenizer import PretrainedTokenizer
from tts_search.testing import FakeScorer

QUESTION = "Why?"
THOUGHT = "So it is.\n\nIt is 8.\n\nNo, 9."


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a model writes, with TEXT for the thought; what its tokenizer and template have; what a user says of it."""

    writes: str
    added: tuple[str, ...] = ()  # tokens of the vocabulary
    control: bool = False  # which servers leave out of texts
    opens: str = ""  # how the template ends
    mentions: str = ""  # somewhere in it
    tags: Any = "auto"
    unannounced: bool = False


THINK = ("<think>", "</think>")
CHANNELS = "<|channel|>analysis<|message|>TEXT<|end|><|start|>assistant<|channel|>final<|message|>9"
FORMS = {
    "kimi": Form(writes="◁think▷TEXT◁/think▷9", mentions="◁/think▷"),
    "kimi that nobody announced": Form(writes="◁think▷TEXT◁/think▷9", unannounced=True),
    "nobody announced": Form(writes="<think>TEXT</think>9", unannounced=True),
    "magistral": Form(writes="[THINK]TEXT[/THINK]9", added=("[THINK]", "[/THINK]")),
    "control tokens": Form(writes="[THINK]TEXT[/THINK]9", added=("[THINK]", "[/THINK]"), control=True),
    "gpt-oss": Form(writes=CHANNELS, added=HARMONY, control=True),
    "the template opens": Form(writes="TEXT</think>\n\n9", added=THINK, opens="<think>\n"),
    "the template opens in texts": Form(writes="TEXT</think>\n\n9", opens="<think>\n"),
    "nothing opens": Form(writes="TEXT</think>\n\n9", added=THINK),
    "words in front": Form(writes="Let me see. <think>TEXT</think>9", added=THINK),
    "the template closed": Form(writes="<think>TEXT</think>9", added=THINK, opens="<think>\n\n</think>\n\n"),
    "the template closed, nothing opens": Form(
        writes="TEXT</think>9", added=THINK, opens="<think>\n\n</think>\n\n"
    ),
    "the template closed in texts": Form(writes="◁think▷TEXT◁/think▷9", opens="◁think▷\n\n◁/think▷\n\n"),
    "said": Form(writes="Thought:TEXTAnswer:9", tags=("Thought:", "Answer:")),
}  # fmt: skip


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("scripted")

    def make(name: str) -> Path:
        folder, form = root / name.replace(" ", "-"), FORMS[name]
        if not folder.exists():
            hf = train_tokenizer("merged", thinking=False)
            added: Any = [AddedToken(text, special=form.control, normalized=False) for text in form.added]
            hf.add_tokens(added)
            own = HARMONY_TURN if form.added == HARMONY else TURN + f"{{#- {form.mentions} -#}}{form.opens}"
            hf.chat_template = own
            hf.save_pretrained(folder)
            words = PretrainedTokenizer(folder)
            script = words.encode(form.writes.replace("TEXT", THOUGHT))
            write_scripted(folder, hf, len(words.render(QUESTION)), script)
        return folder

    return make


def check(form: Form, result: SearchResult) -> None:
    assert (result.thinking.strip(), result.answer) == (THOUGHT, "9")
    assert result.stop_reason == "completed"
    texts = "".join(step.text for step in result.steps)
    assert [step.text.strip()[-6:] for step in result.steps[:2]] == ["it is.", " is 8."]
    assert form.unannounced or not texts.endswith("9"), "the answer is no step"
    assert [("thinking_tags=(" in warning) for warning in result.warnings] == [True] * form.unannounced


def searched(form: Form, model: str | Path, generator: Any, **more: Any) -> SearchResult:
    settings: dict[str, Any] = {"scorer": FakeScorer(), "step_rule": ".\n\n", "thinking_tags": form.tags, **more}
    with Searcher(model, generator=generator, **settings) as searcher:
        return searcher.search(QUESTION, strategy="single")


@pytest.mark.parametrize("name", FORMS)
def test_transformers(scripted: Callable[[str], Path], name: str) -> None:
    check(FORMS[name], searched(FORMS[name], scripted(name), "transformers"))


def test_a_thought_that_is_cut_off_is_no_answer(scripted: Callable[[str], Path]) -> None:
    for name in FORMS:
        if not FORMS[name].unannounced and name not in ("nothing opens", "the template closed, nothing opens"):
            result = searched(FORMS[name], scripted(name), "transformers", max_tokens=16, answer_tokens=1)
            assert "it is" not in result.answer, name


def test_tags_from_the_command_line(scripted: Callable[[str], Path]) -> None:
    words = ["solve", QUESTION, "-m", str(scripted("said")), "--generator", "transformers", "-n", "1", "--json"]
    plain = json.loads(CliRunner().invoke(app, words).stdout)
    assert plain["answer"].startswith("Thought:"), "nobody can tell"
    told = json.loads(CliRunner().invoke(app, [*words, "--thinking-tags", "Thought:", "Answer:"]).stdout)
    assert (told["thinking"], told["answer"]) == (THOUGHT, "9")


def searched_on_vllm(form: Form, model: Path) -> SearchResult:
    engine_args = {"dtype": "float32", "max_model_len": 256, "kv_cache_gib": 0.02, "enforce_eager": True}
    with in_process():
        return searched(form, model, "vllm", engine_args=engine_args)


@pytest.fixture(scope="module")
def fresh() -> Iterator[Executor]:
    """A process of its own: vLLM counts the threads of its process once, and other engines' tests change them."""
    pytest.importorskip("vllm")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("name", ["kimi", "gpt-oss", "the template closed", "said"])
def test_vllm(scripted: Callable[[str], Path], fresh: Executor, name: str) -> None:
    check(FORMS[name], fresh.submit(searched_on_vllm, FORMS[name], scripted(name)).result())


def test_a_server_of_control_tokens(scripted: Callable[[str], Path]) -> None:
    """Such a server leaves the tags out of texts, unless it is asked to write them."""
    pytest.importorskip("vllm")
    pytest.importorskip("aiohttp")
    from tests.generators.vllm.served import serving
    from tts_search.generators.openai import ChatGenerator, OpenAIGenerator

    form = FORMS["gpt-oss"]
    with serving(scripted("gpt-oss")) as url:
        for kind in ("ids", "text"):
            check(form, searched(form, "embedded", OpenAIGenerator(url, tokens=kind)))
        check(form, searched(form, "embedded", ChatGenerator(url)))
        # Behind a router nobody knows who answers, so that the tags are missing; what is left is known.
        named = {"model": str(scripted("gpt-oss")), "context_tokens": 200}
        unnamed = OpenAIGenerator(url, tokens="text", tokenizer=scripted("gpt-oss"), **named)
        for blind in (unnamed, ChatGenerator(url, **named)):
            result = searched(form, "embedded", blind)
            assert (result.thinking.strip(), result.answer) == (THOUGHT, "9")
