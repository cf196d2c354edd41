"""Thinking tags that are control tokens, which servers leave out of texts: asked for where that is known, else said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from tests.checkpoints import train_tokenizer
from tests.generators.openai.chat_server import ChatByHeart
from tests.generators.openai.misbehaving_server import at_work, by_heart
from tts_search import Searcher, SearchResult
from tts_search.generators.openai import ChatGenerator, OpenAIGenerator
from tts_search.generators.tokenizer import PretrainedTokenizer


@pytest.fixture(scope="module", params=[True, False], ids=["control", "plain"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tags")
    hf = train_tokenizer("merged", thinking=False)
    tags: Any = [AddedToken(tag, special=request.param, normalized=False) for tag in ("[THINK]", "[/THINK]")]
    hf.add_tokens(tags)
    hf.save_pretrained(place)
    return place


def searched(folder: Path, owner: str | None, writes: str) -> tuple[SearchResult, dict[str, Any]]:
    tokenizer = PretrainedTokenizer(folder)
    words = (*tokenizer.encode(writes), *tokenizer.eos_ids)
    with by_heart(folder, tokenizer.render("Why?"), words, "deaf") as server:
        server.owner = owner
        generator = OpenAIGenerator(server.url, model="by-heart", tokenizer=folder, tokens="text", logprobs=False)
        with Searcher(generator=generator) as searcher:
            return searcher.search("Why?", strategy="single", max_tokens=100), server.bodies[0]


@pytest.mark.parametrize("owner", [None, "vllm", "sglang", "llamacpp"])
def test_servers_are_asked_to_write_them_or_their_silence_is_said(folder: Path, owner: str | None) -> None:
    is_control = PretrainedTokenizer(folder).thinks_in_control_tokens
    asked = is_control and owner in ("vllm", "sglang")
    bare, body = searched(folder, owner, "It is 8.\n\nNo, 9. 9")
    assert body.get("skip_special_tokens") is (False if asked else None)
    said = [warning for warning in bare.warnings if "control tokens, which its server leaves out" in warning]
    assert len(said) == (is_control and not asked)
    told, _ = searched(folder, owner, "[THINK]It is 8.\n\nNo, 9.[/THINK]9")
    assert (told.thinking, told.answer) == ("It is 8.\n\nNo, 9.", "9")
    assert told.warnings == ()


@pytest.mark.parametrize("owner", [None, "vllm", "sglang", "openai"])
def test_chats_are_asked_to_write_them(owner: str | None) -> None:
    with at_work(ChatByHeart()) as server:
        server.owner = owner
        with Searcher(generator=ChatGenerator(server.url)) as searcher:
            result = searcher.search("Why?", strategy="single", max_tokens=100)
    asked = owner in ("vllm", "sglang")
    # This one refuses what it does not know, and is asked again without.
    assert [body.get("skip_special_tokens") for body in server.bodies] == ([False, None] if asked else [None])
    assert result.answer.endswith("87}.")
    assert result.warnings == ()
