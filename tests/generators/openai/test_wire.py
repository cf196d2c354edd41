"""Chunks of an answer, as servers write them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tts_search.core.protocols import Request
from tts_search.errors import GeneratorError
from tts_search.generators.openai.wire import Answer, Body
from tts_search.generators.vllm.plugin import CLAMPED, SCALE

COLUMNS = (512, 513)


def chunk(*, usage: dict[str, Any] | None = None, **choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0} | choice] if choice else [], "usage": usage}


def scored(token: int, high: float, low: float) -> dict[str, Any]:
    top = {f"token_id:{token}": -0.5, "token_id:512": high, "token_id:513": low}
    return {"tokens": [f"token_id:{token}"], "token_logprobs": [-0.5], "top_logprobs": [top]}


@pytest.mark.parametrize(("patience", "tokens"), [(300.0, 256), (256.0, 256), (30.5, 30), (0.2, 1)])
@pytest.mark.parametrize("listening", [{}, {"on_tokens": print}, {"on_delta": print}])
def test_where_nobody_listens_chunks_are_long_but_no_silence(
    patience: float, tokens: int, listening: dict[str, Any]
) -> None:
    """A server of a token a second sends one before it would be given up."""
    body = Body(model="m", columns=None, logprobs=True, patience_seconds=patience)
    asked = Request(prefix=(5,), seeds=(1,), max_tokens=9, stop_ids=frozenset({7}), **listening)
    sent = json.loads(body.of(asked, (5,), 1, 9, {}))
    assert sent.get("stream_interval") == (None if listening else tokens)
    assert "stream_interval" not in json.loads(body.of(asked, "text", 1, 9, {}))


def test_ids_that_are_only_spelled_out() -> None:
    answer = Answer("server")
    shown = {"tokens": ["token_id:7", "token_id:11"], "token_logprobs": [-1.0, 1e-9]}
    assert answer.take(chunk(text="ab", logprobs=shown), None) == 2
    assert answer.exact
    assert answer.ids == [7, 11]
    assert answer.logprobs == [-1.0, 0.0]


def test_texts_and_chat_shaped_log_probabilities() -> None:
    answer = Answer("server")
    assert answer.take(chunk(text="ab", logprobs={"content": [{"token": "ab", "logprob": -1.0}]}), None) == 1
    assert answer.take(chunk(text="c"), None) == 1
    assert not answer.exact
    assert (answer.text, answer.received, answer.logprobs) == ("abc", 2, [-1.0])


def test_an_end_without_tokens_leaves_ids_exact() -> None:
    answer = Answer("server")
    answer.take(chunk(text="a", token_ids=[5]), None)
    answer.take(chunk(text="", finish_reason="stop", matched_stop=9), None)
    assert answer.exact
    assert (answer.finish, answer.stop) == ("stop", 9)


@pytest.mark.parametrize(("said", "meant"), [("stop", "stop"), ("eos", "stop"), ("length", "length"), ("x", "x")])
def test_ends_by_other_names(said: str, meant: str) -> None:
    answer = Answer("server")
    answer.take(chunk(text="a", finish_reason=said), None)
    answer.take(chunk(text=""), None)
    assert answer.finish == meant


def test_scores_come_out_of_their_columns() -> None:
    answer = Answer("server")
    answer.take(chunk(token_ids=[7], logprobs=scored(7, -1024.0, -1024.0 - 3 * SCALE)), COLUMNS)
    answer.take(chunk(token_ids=[8], logprobs=scored(8, CLAMPED, -1024.0)), COLUMNS)
    assert answer.rows[0] == 3.0
    assert answer.rows[1] != answer.rows[1], "a value that the server cut off is no score"
    empty = [None, dict.fromkeys(f"token_id:{column}" for column in COLUMNS)]
    for rows in ([{}], empty):
        with pytest.raises(GeneratorError, match=r"server answered without the columns.*vllm.server"):
            answer.take(chunk(token_ids=[9], logprobs={"token_logprobs": [-0.5], "top_logprobs": rows}), COLUMNS)


def test_the_account_covers_all_streams() -> None:
    answer = Answer("server")
    answer.take(chunk(token_ids=[1, 2], usage={"prompt_tokens_details": {"cached_tokens": 64}}), None)
    assert answer.begin(2) == 0
    answer.take(chunk(token_ids=[3]), None)
    answer.take(chunk(usage={"completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 96}}), None)
    assert answer.received == 3
    assert answer.counted == 6
    assert answer.cached_tokens == 64


def test_a_token_without_its_name_has_no_id() -> None:
    answer = Answer("server")
    logprobs = {"tokens": ["token_id:7", None], "token_logprobs": [-0.5, -0.25], "top_logprobs": [{"token_id:7": None}]}
    assert answer.take(chunk(text="ab", logprobs=logprobs), None) == 2
    assert (answer.text, answer.logprobs, answer.exact) == ("ab", [-0.5, -0.25], False)


def test_a_stream_goes_on_behind_all_that_is_known_to_have_come() -> None:
    answer = Answer("server")
    for text in ("three tokens here", " and", " more"):
        answer.take(chunk(text=text), None)
    assert not answer.is_counted
    assert (answer.received, answer.begin(5), answer.received) == (3, 2, 5)
    answer.take(chunk(text=" again", usage={"completion_tokens": 3}), None)
    assert answer.counted == 8
    assert (answer.begin(7), answer.received) == (2, 8), "by the server's account"
    assert answer.counted is None, "which the next stream may not have"
    answer = Answer("server")
    answer.take(chunk(text="a", logprobs={"token_logprobs": [-1.0]}), None)
    assert answer.is_counted
    answer.take(chunk(text=" b"), None)
    assert not answer.is_counted


@pytest.mark.parametrize(
    "raw",
    [{}, {"choices": None}, {"choices": []}, {"choices": [{}]}, {"choices": [{"text": None, "logprobs": None}]},
     {"choices": [{"token_ids": None, "finish_reason": None, "stop_reason": None}], "usage": None},
     {"choices": [{"logprobs": {"tokens": None, "token_logprobs": [None], "top_logprobs": None}}]},
     {"choices": [{"logprobs": {"content": None}}]}, {"choices": [None]},
     {"choices": [{"logprobs": {"tokens": [None], "top_logprobs": [None, {"a": None}], "content": [None]}}]},
     {"usage": {"completion_tokens": None}},
     {"usage": {"completion_tokens": 0, "prompt_tokens_details": None}}],
)  # fmt: skip
def test_null_is_nothing(raw: object) -> None:
    answer = Answer("server")
    answer.take(chunk(text="a", token_ids=[5], logprobs={"token_logprobs": [-1.0]}), None)
    before = (answer.text, answer.ids, answer.exact, answer.logprobs, answer.finish, answer.counted)
    assert answer.take(raw, None) == 0
    assert (answer.text, answer.ids, answer.exact, answer.logprobs, answer.finish, answer.counted) == before


@pytest.mark.parametrize(("said", "meant"), [(-math.inf, -9999.0), (-3.4e38, -9999.0), (1e-7, 0.0), (-2.5, -2.5)])
def test_log_probabilities_are_finite(said: float, meant: float) -> None:
    answer = Answer("server")
    answer.take(chunk(text="a", logprobs={"token_logprobs": [said]}), None)
    answer.take(chunk(text="a", logprobs={"content": [{"logprob": said}]}), None)
    assert answer.logprobs == [meant, meant]


def test_what_is_no_number_stays_none() -> None:
    answer = Answer("server")
    answer.take(chunk(text="a", logprobs={"token_logprobs": [math.nan]}), None)
    assert math.isnan(answer.logprobs[0])


@pytest.mark.parametrize(
    "raw",
    [None, 3, [], {"choices": {}}, {"choices": [7]}, {"choices": [{"token_ids": [-1]}]},
     {"choices": [], "usage": {"completion_tokens": -2}}, {"choices": [{"logprobs": {"token_logprobs": ["x"]}}]}],
)  # fmt: skip
def test_what_is_no_chunk_is_refused(raw: object) -> None:
    with pytest.raises(GeneratorError, match="server sent what is no chunk of a completion"):
        Answer("server").take(raw, None)
