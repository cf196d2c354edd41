"""What of a sampling a server cannot be held to: sent in its own words, refused by name, or warned of once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import write_tokenizer
from tests.generators.openai.asking import ask, request
from tests.generators.openai.misbehaving_server import ByHeart
from tts_search.core.protocols import Sampling
from tts_search.errors import InvalidInputError
from tts_search.generators.openai.drawing import Drawing
from tts_search.generators.openai.troubles import RefusedError

PLAIN = Sampling(temperature=0.7, top_p=0.9)
PICKY = replace(PLAIN, min_p=0.05, repetition_penalty=1.1)
EXTRAS = ("top_k", "min_p", "repetition_penalty")


@pytest.fixture(scope="module")
def picky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that asks for what OpenAI's API has no words for."""
    folder = write_tokenizer(tmp_path_factory.mktemp("picky"))
    own = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.1}
    (folder / "generation_config.json").write_text(json.dumps(own))
    return folder


def told(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in EXTRAS if name in body}


@pytest.mark.parametrize("dialect", ["hosted", "deaf"])
def test_what_changes_nothing_is_not_said(
    serve: Callable[..., ByHeart], dialect: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(dialect)
    ask(server, request(server, sampling=PLAIN), tokenizer=server.folder, tokens="text")
    assert [told(body) for body in server.bodies] == [{}]
    assert not caplog.records


def test_a_server_that_says_nothing_is_sent_what_is_set_and_warned_of_once(
    serve: Callable[..., ByHeart], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve("deaf")
    ask(server, request(server, seeds=3, sampling=PICKY), tokenizer=server.folder, tokens="text")
    assert [told(body) for body in server.bodies] == [{"min_p": 0.05, "repetition_penalty": 1.1}] * 3
    (record,) = caplog.records
    said = record.getMessage()
    assert "whether it honours min_p=0.05 and repetition_penalty=1.1" in said
    assert "sampling={'min_p': 0.0, 'repetition_penalty': 1.0}" in said


@pytest.mark.parametrize("owner", ["vllm", "sglang"])
def test_a_server_that_is_known_to_honour_them_is_told_all_of_them_in_texts_too(
    serve: Callable[..., ByHeart], owner: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve("deaf")
    server.owner = owner
    ask(server, request(server, sampling=PICKY), tokenizer=server.folder, tokens="text")
    ask(server, request(server, sampling=PLAIN), tokenizer=server.folder, tokens="text")
    assert told(server.bodies[0]) == {"top_k": -1, "min_p": 0.05, "repetition_penalty": 1.1}
    assert told(server.bodies[1]) == {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    assert not caplog.records


def test_llama_cpp_has_another_word_for_the_penalty(
    serve: Callable[..., ByHeart], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve("shy")
    server.owner = "llamacpp"
    ask(server, request(server, sampling=PICKY))
    (body,) = server.bodies
    assert (body["top_k"], body["min_p"], body["repeat_penalty"], body["repeat_last_n"]) == (0, 0.05, 1.1, -1)
    assert "repetition_penalty" not in body
    assert not caplog.records


def test_who_shows_ids_is_believed_and_who_does_not_is_not(
    serve: Callable[..., ByHeart], caplog: pytest.LogCaptureFixture
) -> None:
    for dialect, warned in (("ids", 0), ("shy", 1)):
        server = serve(dialect)
        ask(server, request(server, sampling=PICKY))
        assert told(server.bodies[0]) == {"top_k": -1, "min_p": 0.05, "repetition_penalty": 1.1}
        assert len(caplog.records) == warned


def test_a_server_that_refuses_what_the_model_asks_for_goes_without_and_that_is_said(
    serve: Callable[..., ByHeart], picky: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve("hosted")
    (one, two) = ask(server, request(server, seeds=2, sampling=PICKY), tokenizer=picky, tokens="text")
    assert one.token_ids == two.token_ids == server.words
    assert [told(body) for body in server.bodies if told(body)] == [{"min_p": 0.05, "repetition_penalty": 1.1}] * 2
    (record,) = caplog.records
    assert "refuses min_p=0.05 and repetition_penalty=1.1, which the model asks for" in record.getMessage()


def test_a_refusal_that_comes_when_another_has_come_is_no_fault_of_the_request() -> None:
    drawing = Drawing("server", replace(PLAIN, min_p=0.05), None)
    asked = replace(PLAIN, min_p=0.05)
    sent = drawing.fields(asked, ids=False)
    drawing.refuses = True  # by another request's answer, while this one was on its way
    drawing.refused(asked, sent, RefusedError("unknown field min_p"))
    with pytest.raises(RefusedError):
        drawing.refused(asked, drawing.fields(asked, ids=False), RefusedError("another fault"))


@pytest.mark.parametrize("sampling", [replace(PLAIN, top_k=20), replace(PICKY, min_p=0.2)])
def test_what_was_asked_for_by_name_is_not_dropped(
    serve: Callable[..., ByHeart], picky: Path, sampling: Sampling
) -> None:
    server = serve("hosted")
    name = "top_k=20" if sampling.top_k else "min_p=0.2"
    with pytest.raises(InvalidInputError, match=rf"status 400.*{name} is no setting of OpenAI's API.*sampling="):
        ask(server, request(server, sampling=sampling), tokenizer=picky, tokens="text")


def test_what_the_model_asks_for_can_be_taken_back(serve: Callable[..., ByHeart], picky: Path) -> None:
    server = serve("deaf")
    ask(server, request(server, sampling=PLAIN), tokenizer=picky, tokens="text")
    assert told(server.bodies[0]) == {"min_p": 0.0, "repetition_penalty": 1.0}


def test_a_request_with_another_fault_is_refused_for_that(serve: Callable[..., ByHeart], picky: Path) -> None:
    server = serve("hosted")
    server.faults.extend(["400", "400"])
    with pytest.raises(InvalidInputError, match="no: "):
        ask(server, request(server, sampling=PICKY), tokenizer=picky, tokens="text")
    assert [bool(told(body)) for body in server.bodies] == [True, False]
