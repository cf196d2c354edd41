"""LiteLLM: `openai/NAME` with an `api_base`, plain and streamed."""

import os
from importlib.metadata import version

import litellm

TURNS = [{"role": "user", "content": "Using the numbers 7, 5, 15 and 11, make 24."}]
given = {"model": "openai/embedded", "api_base": os.environ["OPENAI_BASE_URL"], "api_key": "none", "messages": TURNS}
reply = litellm.completion(**given, seed=1)
assert reply.choices[0].message.content and reply.usage.completion_tokens > 0
assert reply.choices[0].message.reasoning_content
text = reasoning = ""
for chunk in litellm.completion(**given, seed=1, stream=True, stream_options={"include_usage": True}):
    for choice in chunk.choices:
        text += choice.delta.content or ""
        reasoning += getattr(choice.delta, "reasoning_content", None) or ""
assert text == reply.choices[0].message.content and "paths" in reasoning
strong = litellm.completion(**{**given, "model": "openai/embedded:high"}, extra_body={"search": {"budget": 900}})
assert strong.usage.completion_tokens <= 900
try:
    litellm.completion(**{**given, "model": "openai/nobody"})
except litellm.NotFoundError:
    pass
else:
    raise AssertionError("an unknown model was answered")
print(f"litellm {version('litellm')}: completion, stream with reasoning, search in extra_body, errors")
