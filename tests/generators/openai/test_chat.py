"""The generator for chat services, against one that misbehaves; `test_vllm_chat.py` has a real one."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from tests.generators.openai.chat_server import CONTENT, PROMPT_TOKENS, THINKING, ChatByHeart, ask, request
from tests.generators.openai.misbehaving_server import KEY, LOGPROB, at_work
from tts_search.core.protocols import Generator, Sampling
from tts_search.errors import GeneratorError, InvalidInputError, ModelNotFoundError, TTSError
from tts_search.generators.openai.bytes_tokenizer import CLOSE, END, OPEN, BytesTokenizer
from tts_search.generators.openai.cards import Card, only
from tts_search.generators.openai.chat import ChatGenerator, base_of, is_chat
from tts_search.generators.openai.chat_wire import thought_in
from tts_search.generators.openai.shapes import shaped
from tts_search.generators.openai.watch import most_tokens
from tts_search.testing.conformance import GeneratorConformance

pytestmark = pytest.mark.usefixtures("quick")

TOKENIZER = BytesTokenizer()
ALL = len(THINKING) + len(CONTENT) + 1  # with the end of text


@pytest.fixture
def serve() -> Iterator[Callable[..., ChatByHeart]]:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(at_work(ChatByHeart(**settings)))


def ids(thinking: str, answer: str) -> tuple[int, ...]:
    return (OPEN, *TOKENIZER.encode(thinking), CLOSE, *TOKENIZER.encode(answer), END)


class TestConformance(GeneratorConformance):
    """What is left to promise where whole responses come, and nothing else. It knows one answer: no seed counts."""

    seeded = False

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _serve(cls) -> Iterator[None]:
        with at_work(ChatByHeart()) as server:
            cls.server = server
            yield

    def make_generator(self) -> Generator:
        return ChatGenerator(self.server.url)

    def test_different_seeds_differ(self, engine: Any) -> None:
        """It knows one answer."""


SERVED = {"root": "m", "max_model_len": 400}


@pytest.mark.parametrize(
    ("cards", "found"),
    [
        (
            [{"id": "m:high", "parent": "m"} | SERVED, {"id": "m"} | SERVED, {"id": "m:low", "parent": "m"} | SERVED],
            "m",
        ),
        ([{"id": "alias"} | SERVED, {"id": "m"} | SERVED], "alias"),
        ([{"id": "m"} | SERVED, {"id": "adapted", "parent": "m", "root": "adapter"}], None),
        ([{"id": "m"}, {"id": "n"}], None),
        ([], None),
    ],
)
def test_several_names_of_one_model_are_one_model(cards: list[dict[str, Any]], found: str | None) -> None:
    listed = [shaped(Card, card) for card in cards]
    if found is None:
        with pytest.raises(ModelNotFoundError, match=f"serves {len(cards)} models"):
            only("server", listed, listed)
    else:
        assert only("server", listed, listed).id == found


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content", "both", "tags", "closed", "parts"])
def test_thinking_and_answer_are_parted_however_they_come(serve: Callable[..., ChatByHeart], field: str) -> None:
    server = serve(field=field)
    (one,) = ask(server)
    assert one.token_ids == ids("".join(THINKING), "".join(CONTENT))
    assert one.prompt_tokens == PROMPT_TOKENS
    assert one.cached_tokens == 4
    assert one.warnings == ()


def test_the_account_is_the_services_own(serve: Callable[..., ChatByHeart]) -> None:
    for field, thought in (("reasoning", THINKING), ("hidden", THINKING), (None, [])):
        (one,) = ask(serve(field=field))
        assert one.sampled_tokens == len(thought) + len(CONTENT) + 1
        assert one.logprobs == (LOGPROB,) * len(CONTENT)
    server = serve()
    server.faults.append("thinking in the total")
    (one,) = ask(server)
    assert one.sampled_tokens == ALL


@pytest.mark.parametrize("fault", ["no usage", "zero usage"])
def test_without_an_account_tokens_are_estimated_and_that_is_said(
    serve: Callable[..., ChatByHeart], fault: str
) -> None:
    for limit, expected in ((200, range(ALL - 1, 2 * ALL)), (4, (4,))):
        server = serve()
        server.faults.append(fault)
        (one,) = ask(server, request(max_tokens=limit))
        assert one.sampled_tokens in expected
        assert any("estimated" in warning for warning in one.warnings)


def test_odd_chunks_are_read_as_nothing(serve: Callable[..., ChatByHeart]) -> None:
    server = serve()
    server.faults.append("nulls")
    (one,) = ask(server)
    assert one.token_ids == ids("".join(THINKING), "".join(CONTENT))


def test_a_service_that_does_not_stream(serve: Callable[..., ChatByHeart]) -> None:
    server = serve()
    server.faults.append("no stream")
    (one,) = ask(server)
    assert one.token_ids == ids("".join(THINKING), "".join(CONTENT))
    assert one.sampled_tokens == ALL
    server = serve(refuses={"stream": "stream is not supported"})
    (one,) = ask(server)
    assert one.token_ids == ids("".join(THINKING), "".join(CONTENT))
    assert not server.bodies[-1].keys() & {"stream", "stream_options"}


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("", "Text/Event-Stream; Charset=UTF-8"), ("no stream", "Application/JSON"), ("no stream", "APPLICATION/json; x")],
)
def test_a_kind_of_content_has_no_case(serve: Callable[..., ChatByHeart], fault: str, kind: str) -> None:
    server = serve()
    server.kind = kind
    server.faults.append(fault)
    (one,) = ask(server)
    assert one.token_ids == ids("".join(THINKING), "".join(CONTENT))


@pytest.mark.parametrize("limit", [1, 3, len(THINKING), len(THINKING) + 2, ALL])
def test_a_limit_cuts_and_is_never_passed(serve: Callable[..., ChatByHeart], limit: int) -> None:
    for field in ("reasoning", "tags", "hidden", None):
        counts: list[int] = []
        (one,) = ask(serve(field=field), request(max_tokens=limit, on_tokens=counts.append))
        assert one.sampled_tokens == min(limit, sum(counts)) == sum(counts)
        whole = limit >= {"tags": ALL + 2, None: len(CONTENT) + 1}.get(field, ALL)
        assert (one.token_ids[-1] == END) == whole
        assert len(one.token_ids) >= 1


def test_thinking_that_is_not_closed_is_no_answer(serve: Callable[..., ChatByHeart]) -> None:
    (one,) = ask(serve(), request(max_tokens=3))
    assert one.token_ids == (OPEN, *TOKENIZER.encode("".join(THINKING[:3])))
    (one,) = ask(serve(field="tags"), request(max_tokens=3))
    assert one.token_ids == (OPEN, *TOKENIZER.encode("".join(THINKING[:2])))
    (one,) = ask(serve(field="hidden"), request(max_tokens=3))
    assert one.token_ids == (OPEN,)


def test_what_is_said_of_how_tokens_are_drawn(serve: Callable[..., ChatByHeart]) -> None:
    server = serve()
    ask(server, request(seeds=2, sampling=Sampling(temperature=0.3, top_p=0.8, top_k=7)))
    body = server.bodies[0]
    assert (body["temperature"], body["top_p"], body["top_k"], body["max_tokens"]) == (0.3, 0.8, 7, 200)
    assert body["messages"] == [{"role": "user", "content": "Make 87."}]
    assert {body["seed"] for body in server.bodies} == {0, 1}
    assert not body.keys() & {"min_p", "repetition_penalty", "session_id", "n"}
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Make 87."}]
    ask(server, request(messages=turns, tree=5), extra_body={"reasoning_effort": "low"}, session_in_body=True)
    assert server.bodies[-1]["messages"] == turns
    assert server.bodies[-1]["reasoning_effort"] == "low"
    assert server.bodies[-1]["session_id"] == server.sessions[-1] == "5"
    with pytest.raises(InvalidInputError, match="extra_body cannot say 'n'"):
        ask(server, extra_body={"n": 4})
    for value in (math.nan, math.inf, {1, 2}):
        with pytest.raises(InvalidInputError, match="extra_body is no JSON"):
            ask(server, extra_body={"min_p": value})


REFUSALS = {
    "temperature": "Unsupported value: 'temperature' does not support 0.6 with this model. Only the default (1) value",
    "top_p": "top_p: Extra inputs are not permitted",
    "seed": "Unknown parameter: 'seed'.",
    "logprobs": "You are not allowed to request logprobs from this model",
    "stream_options": "stream_options is not supported",
}


@pytest.mark.parametrize("fields", [[field] for field in REFUSALS] + [list(REFUSALS)])
def test_a_field_that_is_refused_is_left_out_from_then_on(
    serve: Callable[..., ChatByHeart], fields: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(refuses={field: REFUSALS[field] for field in fields})
    with caplog.at_level(logging.WARNING):
        completions = ask(server, request(seeds=3))
    for one in completions:
        assert one.token_ids == ids("".join(THINKING), "".join(CONTENT))
    for field in fields:
        assert field not in server.bodies[-1]
        assert caplog.text.count(f"refuses {field}") == 1
        said = any(f"takes no {field}" in warning for warning in completions[-1].warnings)
        assert said == (field != "stream_options"), "what nobody asked for is nobody's loss"
    assert server.statuses.count(200) == 1 + 3  # the list of models, and each response
    assert ("logprobs" in fields) == (completions[0].logprobs is None)


FLAGGED = "Invalid prompt: it was flagged: which max_tokens has a seed at room TEMPERATURE in a stream of logprobs?"


@pytest.mark.parametrize("blames", ["messages", "messages[0].content", "prompt", "None", "", None])
def test_a_question_that_is_refused_teaches_nothing(
    serve: Callable[..., ChatByHeart], blames: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Its words, which a refusal repeats, may be names of fields."""
    server = serve(refuses={"messages": FLAGGED.replace("TEMPERATURE", "temperature")})
    server.blames = blames
    with pytest.raises(InvalidInputError, match="flagged"):
        ask(server, request(messages=FLAGGED.partition("flagged: ")[2]))
    assert len(server.bodies) == 1
    assert caplog.text == ""


@pytest.mark.parametrize("blames", ["seed", "body.seed", "request", "None", None])
def test_a_field_may_be_blamed_in_many_ways(serve: Callable[..., ChatByHeart], blames: str | None) -> None:
    words = "seed is refused, where temperature and stream are not" if blames and "seed" in blames else "no seed here"
    server = serve(refuses={"seed": words})
    server.blames = blames
    (one,) = ask(server)
    assert one.warnings == (f"{server.url} takes no seed: its own way was taken",)
    assert {"temperature", "stream"} <= server.bodies[-1].keys()


def test_a_reasoning_models_limit_has_another_name(serve: Callable[..., ChatByHeart]) -> None:
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    server = serve(refuses={"max_tokens": words, "temperature": REFUSALS["temperature"]})
    (one,) = ask(server)
    assert one.token_ids[-1] == END
    assert server.bodies[-1]["max_completion_tokens"] == 200
    assert not server.bodies[-1].keys() & {"max_tokens", "temperature"}


@pytest.mark.parametrize(("longest", "asked"), [(150, 150), (20, 20)])
def test_a_limit_of_the_services_own_is_found_out(serve: Callable[..., ChatByHeart], longest: int, asked: int) -> None:
    server = serve()
    server.longest = longest
    (one,) = ask(server, request(max_tokens=200))
    assert server.bodies[-1]["max_tokens"] == asked
    assert one.token_ids[-1] == END


def test_what_the_context_leaves_is_asked_for(serve: Callable[..., ChatByHeart]) -> None:
    server = serve()
    server.context = 120
    (one,) = ask(server, request(max_tokens=200))
    assert server.bodies[-1]["max_tokens"] == 120 - PROMPT_TOKENS
    assert one.token_ids[-1] == END
    server.context = 16  # too small for the question: the first refusal tells
    with pytest.raises(InvalidInputError, match="maximum context length is 16 tokens"):
        ask(server, request(max_tokens=200))


def test_a_context_that_is_known_is_left_to_the_service(serve: Callable[..., ChatByHeart]) -> None:
    server = serve()
    server.context = 400  # as its list of models says
    (one,) = ask(server, request(max_tokens=400))
    assert one.token_ids[-1] == END
    assert len(server.bodies) == 1
    assert "max_tokens" not in server.bodies[0]


def test_a_response_cut_by_the_services_own_limit_says_so(serve: Callable[..., ChatByHeart]) -> None:
    server = serve()
    server.context = PROMPT_TOKENS + 6
    (one,) = ask(server, request(max_tokens=300), context_tokens=300)
    assert one.token_ids[-1] != END
    assert one.sampled_tokens == 6
    assert any("limit of its own, after 6 tokens where 300" in warning for warning in one.warnings)


@pytest.mark.parametrize("words", ["Invalid 'temperature': must be between 0 and 2.", "not to my taste"])
def test_other_refusals_are_told(serve: Callable[..., ChatByHeart], words: str) -> None:
    with pytest.raises(InvalidInputError, match=r"/v1/chat/completions answered with status 400: "):
        ask(serve(refuses={"messages": words}))


@pytest.mark.parametrize("fault", ["cut", "silence", "error event"])
def test_a_cut_stream_is_asked_for_again_and_paid_for(serve: Callable[..., ChatByHeart], fault: str) -> None:
    server = serve()
    server.faults.extend([fault, fault])
    (one,) = ask(server, timeout_seconds=0.3)
    assert one.token_ids == ids("".join(THINKING), "".join(CONTENT))
    came = most_tokens("".join(THINKING[:2]))
    assert [body["max_tokens"] for body in server.bodies] == [200, 200 - came, 200 - 2 * came]
    assert one.sampled_tokens == ALL + 2 * came
    server.faults.extend([fault] * 2)
    with pytest.raises(GeneratorError, match="asked again 1 times, now given up"):
        ask(server, timeout_seconds=0.3, max_retries=1)


@pytest.mark.parametrize("shown", [True, False])
def test_what_was_cut_is_counted_on_the_safe_side(serve: Callable[..., ChatByHeart], shown: bool) -> None:
    """By log-probabilities where each token has one; a chunk of text may be several tokens."""
    server = serve(field=None)
    server.content = ["First, 13 + 9 = 22.\n\n", "Now 22 + 65 = 87, ", "it is", " 87", "."]
    server.faults.append("cut")
    counts: list[int] = []
    (one,) = ask(server, request(max_tokens=90, on_tokens=counts.append), logprobs=shown)
    came = 2 if shown else most_tokens("".join(server.content[:2]))
    assert [body["max_tokens"] for body in server.bodies] == [90, 90 - came]
    assert one.sampled_tokens == came + 6 == sum(counts)


def test_where_nothing_may_be_left_nothing_is_asked_for_again(serve: Callable[..., ChatByHeart]) -> None:
    server = serve(field=None)
    server.content = ["one two three", " four", " five", " six"]
    server.faults.append("cut")
    (one,) = ask(server, request(max_tokens=3), logprobs=False)
    assert one.sampled_tokens == 3
    assert END not in one.token_ids, "cut off at its limit"
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0), ("It is", 2), (" largest number", 4), ("13 + 9 = 22.\n\n", 13), ("naïve 你好", 6),
        ("over " * 50, 51), ("\\boxed{87}", 7),
    ],
)  # fmt: skip
def test_as_many_tokens_as_a_text_can_have(text: str, tokens: int) -> None:
    assert most_tokens(text) == tokens


def test_a_stream_aborted_by_the_service_is_asked_for_again(serve: Callable[..., ChatByHeart]) -> None:
    server = serve()
    server.faults.append("aborted")
    (one,) = ask(server)
    assert one.token_ids[-1] == END
    assert len(server.bodies) == 2


def test_what_is_withheld_is_said(serve: Callable[..., ChatByHeart]) -> None:
    server = serve()
    server.faults.append("filtered")
    (one,) = ask(server)
    assert any("content filter" in warning for warning in one.warnings)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("garbage", "no JSON"),
        ("strange chat", "no chunk of a chat completion"),
        ("web page", "text/html instead of a stream"),
        ("called", "tool_calls"),
        ("too many", "does not honour max_tokens"),
        ("endless", "does not honour max_tokens"),
    ],
)
def test_nothing_is_guessed(serve: Callable[..., ChatByHeart], fault: str, message: str) -> None:
    server = serve()
    server.faults.append(fault)
    with pytest.raises(GeneratorError, match=message):
        ask(server)
    assert server.left.wait(5) or fault != "endless"


@pytest.mark.parametrize(
    ("status", "kind"), [("401", GeneratorError), ("404", ModelNotFoundError), ("429", GeneratorError)]
)
def test_errors_show_no_key(serve: Callable[..., ChatByHeart], status: str, kind: type[TTSError]) -> None:
    server = serve()
    server.faults.extend([status] * 2)
    with pytest.raises(kind, match=f"/v1/chat/completions answered with status {status}") as caught:
        ask(server, api_key=KEY, max_retries=1)
    assert KEY not in str(caught.value)
    assert server.keys == {f"Bearer {KEY}"}


def test_the_model_is_named_where_there_are_several(serve: Callable[..., ChatByHeart]) -> None:
    server = serve()
    server.dialect = "hosted"
    with pytest.raises(ModelNotFoundError, match="serves 2 models"):
        ChatGenerator(server.url)
    assert ChatGenerator(server.url, model="other").name == "other"
    assert ChatGenerator(server.url, model=str(server.folder)).context_tokens == 400


@pytest.mark.parametrize(
    ("url", "base", "chat"),
    [
        ("http://h/v1/chat/completions", "http://h/v1", True),
        (" https://h/v1/chat/completions/?api-version=2 ", "https://h/v1?api-version=2", True),
        ("http://h/v1/", "http://h/v1", False),
        ("http://h/v1/completions", "http://h/v1/completions", False),
    ],
)
def test_a_url_says_that_it_is_a_chats(url: str, base: str, chat: bool) -> None:
    assert base_of(url) == base
    assert is_chat(url) == chat


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>a</think>b", ("a", "b", True)),
        ("\n <think>a", ("a", "", False)),
        ("a</think>b", ("a", "b", True)),
        ("plain", None),
        ("Tags are <think> and </think>.", None),
        ("<think></think>b</think>", ("", "b</think>", True)),
    ],
)
def test_tags_in_a_text(text: str, parts: tuple[str, str, bool] | None) -> None:
    assert thought_in(text, ("<think>", "</think>")) == parts
    assert thought_in(text, "auto") == parts
    assert thought_in(text, None) is None
    assert thought_in(text.replace("think>", "THINKING>"), "auto") == (
        None if parts is None else tuple(p.replace("think>", "THINKING>") if isinstance(p, str) else p for p in parts)
    )


def test_a_thought_behind_some_words() -> None:
    """Where no tags are given; a service whose tags are given writes them in front."""
    assert thought_in("Let me see. <think>a\nb</think>c", "auto") == ("a\nb", "c", True)
    assert thought_in("analysisWe need 9.\nOr 8.assistantfinal9", "auto") == ("We need 9.\nOr 8.", "9", True)
    assert thought_in("Let me see. <think>a\nb", "auto") is None
