"""The objects of `/v1/chat/completions`: a completion, and the chunks of a stream.

Thinking is told under both names that clients know, `reasoning` (vLLM) and `reasoning_content` (DeepSeek, SGLang).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from tts_search.serving.refusals import refusal_of
from tts_search.serving.reply_content import Account, Answer, account, answers, extension, remarks
from tts_search.serving.searches import Search
from tts_search.serving.sse_out import DONE, data
from tts_search.serving.streaming import Told, tell


def completion(search: Search) -> dict[str, Any]:
    """The whole reply of a search that is over."""
    result, ask = search.result, search.plan.ask
    assert result is not None
    given = answers(result, ask)
    warnings = [*search.plan.warnings, *remarks(ask, given)]
    return {
        **_head(search, "chat.completion"),
        "choices": [_choice(index, answer) for index, answer in enumerate(given)],
        "usage": usage(account(result, given)),
        "search": extension(search.id, result, warnings),
    }


async def chunks(search: Search, include_usage: bool | None) -> AsyncIterator[bytes]:
    """The reply as a stream, from the role on; an error in the middle is an object `error`.

    With `include_usage` the account comes in a chunk of its own, and the others have null in its place, as OpenAI's do;
    who says nothing about it finds it in the last chunk with a choice; False leaves it out.
    """
    chunk = partial(_chunk, search, usage=None) if include_usage else partial(_chunk, search)
    yield chunk({"role": "assistant", "content": ""}, search={"id": search.id})
    try:
        async for told in tell(search):
            yield chunk(_delta(told))
        result = await search.wait()
    except Exception as error:
        yield data(refusal_of(error).body) + DONE
        return
    given = answers(result, search.plan.ask)
    for index, answer in enumerate(given[1:], start=1):
        fields = {"role": "assistant", **_reasoning(answer.thinking), "content": answer.text}
        yield chunk(fields, index=index, finish=answer.finish)
    spent = usage(account(result, given))
    warnings = [*search.plan.warnings, *remarks(search.plan.ask, given)]
    last: dict[str, Any] = {"search": extension(search.id, result, warnings)}
    if include_usage is None:
        last["usage"] = spent
    yield chunk({}, finish=given[0].finish, **last)
    if include_usage:
        yield data({**_head(search, "chat.completion.chunk"), "choices": [], "usage": spent})
    yield DONE


def usage(spent: Account) -> dict[str, Any]:
    """The account as OpenAI writes it."""
    return {
        "prompt_tokens": spent.prompt,
        "completion_tokens": spent.sampled,
        "total_tokens": spent.prompt + spent.sampled,
        "prompt_tokens_details": {"cached_tokens": spent.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": spent.hidden,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _head(search: Search, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{search.id.removeprefix('srch_')}",
        "object": kind,
        "created": int(search.created),
        "model": search.plan.model,
        "service_tier": "default",
        "system_fingerprint": None,
    }


def _choice(index: int, answer: Answer) -> dict[str, Any]:
    message = {
        "role": "assistant",
        "content": answer.text,
        **_reasoning(answer.thinking),
        "refusal": None,
        "annotations": [],
    }
    return {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish}


def _chunk(
    search: Search, delta: dict[str, Any], /, *, index: int = 0, finish: str | None = None, **more: Any
) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return data({**_head(search, "chat.completion.chunk"), "choices": [choice], **more})


def _delta(told: Told) -> dict[str, Any]:
    return {"content": told.answer} if told.answer else _reasoning(told.reasoning)


def _reasoning(text: str) -> dict[str, str]:
    return {"reasoning": text, "reasoning_content": text} if text else {}
