"""The objects of `/v1/responses`: a response, and the numbered events of a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from tts_search.serving.refusals import refusal_of
from tts_search.serving.reply_content import account, answers, extension
from tts_search.serving.responses_fields import ResponsesRequest
from tts_search.serving.searches import Search
from tts_search.serving.sse_out import data
from tts_search.serving.streaming import tell


def response(search: Search, asked: ResponsesRequest) -> dict[str, Any]:
    """The whole reply of a search that is over."""
    result = search.result
    assert result is not None
    answer = answers(result, search.plan.ask)[0]
    spent = account(result, [answer])
    output = [_reasoning(search, answer.thinking)] if answer.thinking else []
    output.append(_message(search, answer.text, "completed" if answer.finish == "stop" else "incomplete"))
    return {
        **_head(search, asked, "completed" if answer.finish == "stop" else "incomplete"),
        "incomplete_details": None if answer.finish == "stop" else {"reason": "max_output_tokens"},
        "output": output,
        "usage": {
            "input_tokens": spent.prompt,
            "input_tokens_details": {"cached_tokens": spent.cached},
            "output_tokens": spent.sampled,
            "output_tokens_details": {"reasoning_tokens": spent.hidden},
            "total_tokens": spent.prompt + spent.sampled,
        },
        "search": extension(search.id, result, search.plan.warnings),
    }


async def events(search: Search, asked: ResponsesRequest) -> AsyncIterator[bytes]:
    """The reply as a stream: an item of reasoning, then the message, then the response as a whole."""
    number = -1

    def event(kind: str, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        return data({"type": kind, "sequence_number": number, **fields}, event=kind)

    head = _head(search, asked, "in_progress")
    yield event("response.created", response=head)
    yield event("response.in_progress", response=head)
    item = _reasoning(search, "")
    where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    yield event("response.output_item.added", output_index=0, item={**item, "content": [], "status": "in_progress"})
    thinking = text = ""
    message = _message(search, "", "in_progress")
    place = {"item_id": message["id"], "output_index": 1, "content_index": 0}

    def thought() -> list[bytes]:
        return [
            event("response.reasoning_text.done", **where, text=thinking),
            event("response.output_item.done", output_index=0, item=_reasoning(search, thinking)),
            event("response.output_item.added", output_index=1, item={**message, "content": []}),
            event("response.content_part.added", **place, part=_part("")),
        ]

    begun = False
    try:
        async for told in tell(search):
            if told.reasoning and not begun:
                thinking += told.reasoning
                yield event("response.reasoning_text.delta", **where, delta=told.reasoning)
            if told.answer:
                if not begun:
                    begun = True
                    for line in thought():
                        yield line
                text += told.answer
                yield event("response.output_text.delta", **place, delta=told.answer, logprobs=[])
        await search.wait()
    except Exception as error:
        refusal = refusal_of(error)
        why = {"code": refusal.code or "server_error", "message": refusal.message}
        yield event("response.failed", response={**head, "status": "failed", "error": why})
        return
    if not begun:
        for line in thought():
            yield line
    whole = response(search, asked)
    status = whole["status"]
    yield event("response.output_text.done", **place, text=text, logprobs=[])
    yield event("response.content_part.done", **place, part=_part(text))
    yield event("response.output_item.done", output_index=1, item=_message(search, text, status))
    whole["output"] = [_reasoning(search, thinking), _message(search, text, status)]
    yield event(f"response.{status}", response=whole)


def _head(search: Search, asked: ResponsesRequest, status: str) -> dict[str, Any]:
    reasoning = asked.reasoning
    return {
        "id": f"resp_{_bare(search)}",
        "object": "response",
        "created_at": int(search.created),
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": asked.metadata or {},
        "model": search.plan.model,
        "output": [],
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "reasoning": {
            "effort": reasoning.effort if reasoning else None,
            "mode": (reasoning.mode if reasoning else None) or "standard",
            "summary": None,
        },
        "service_tier": "default",
        "store": False,
        "temperature": asked.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": "none",
        "tools": [],
        "top_p": asked.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": asked.user,
    }


def _bare(search: Search) -> str:
    return search.id.removeprefix("srch_")


def _reasoning(search: Search, text: str) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text}] if text else []
    return {"id": f"rs_{_bare(search)}", "type": "reasoning", "summary": [], "content": content, "status": "completed"}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _message(search: Search, text: str, status: str) -> dict[str, Any]:
    return {
        "id": f"msg_{_bare(search)}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [_part(text)],
    }
