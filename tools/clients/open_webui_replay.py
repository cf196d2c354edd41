"""What Open WebUI 0.12 sends, sent again: the model list, a streamed turn of a conversation, a title."""

import json
import os

import httpx

TITLE = (
    "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.\n"
    "### Chat History:\nUSER: hi"
)
HISTORY = [
    {"role": "system", "content": "You are helpful."},
    {"role": "user", "content": "Using the numbers 3, 4, 5 and 6, make 18."},
    {"role": "assistant", "content": "3 + 4 + 5 + 6 = 18"},
    {"role": "user", "content": [{"type": "text", "text": "Using the numbers 7, 5, 15 and 11, make 24."}]},
]
with httpx.Client(
    base_url=os.environ["OPENAI_BASE_URL"] + "/", timeout=120, headers={"authorization": "Bearer none"}
) as http:
    models = http.get("models").raise_for_status().json()["data"]
    name = models[0]["id"]
    body = {"model": name, "messages": HISTORY, "stream": True, "stream_options": {"include_usage": True}}
    with http.stream("POST", "chat/completions", json=body) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        told = [line.removeprefix("data: ") for line in reply.iter_lines() if line.startswith("data: ")]
    assert told[-1] == "[DONE]"
    chunks = [json.loads(line) for line in told[:-1]]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert any(delta.get("reasoning_content") for delta in deltas) and any(delta.get("content") for delta in deltas)
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]] == [
        "stop"
    ]
    assert chunks[-1]["usage"]["completion_tokens"] > 0
    title = {
        "model": name,
        "messages": [{"role": "user", "content": TITLE}],
        "stream": False,
        "max_completion_tokens": 50,
    }
    made = http.post("chat/completions", json=title).raise_for_status().json()
    assert isinstance(made["choices"][0]["message"]["content"], str)
print(f"Open WebUI's requests: {len(models)} models, a turn in {len(chunks)} chunks with reasoning, a title")
