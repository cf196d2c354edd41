"""The `openai` package: sync, async, streaming, responses, errors, retries left as they are."""

import asyncio

import openai

PUZZLE = "Using the numbers 7, 5, 15 and 11, make 24."
TURNS = [{"role": "user", "content": PUZZLE}]
client = openai.OpenAI()
names = [model.id for model in client.models.list()]
model = names[0]

reply = client.chat.completions.create(model=model, messages=TURNS, seed=1)
message = reply.choices[0].message
assert message.content and reply.choices[0].finish_reason == "stop", reply
assert message.model_extra["reasoning_content"] == message.model_extra["reasoning"] != ""
assert reply.usage.completion_tokens_details.reasoning_tokens > 0
assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
assert reply.model_extra["search"]["strategy"].startswith("BestOfN")

beam = client.chat.completions.create(
    model=model, messages=TURNS, seed=1, extra_body={"search": {"strategy": "beam", "budget": 600}}
)
assert "Beam" in beam.model_extra["search"]["strategy"] and beam.usage.completion_tokens <= 600
single = client.chat.completions.create(model=model, messages=TURNS, reasoning_effort="none", temperature=0)
assert single.usage.completion_tokens < reply.usage.completion_tokens
several = client.chat.completions.create(model=f"{model}:high", messages=TURNS, n=3)
assert 1 <= len(several.choices) <= 3 and len({choice.message.content for choice in several.choices}) == len(
    several.choices
)

text, reasoning, usage, roles = "", "", None, []
for chunk in client.chat.completions.create(
    model=model, messages=TURNS, seed=1, stream=True, stream_options={"include_usage": True}
):
    usage = chunk.usage or usage
    for choice in chunk.choices:
        roles += [choice.delta.role] if choice.delta.role else []
        text += choice.delta.content or ""
        reasoning += (choice.delta.model_extra or {}).get("reasoning_content") or ""
assert (text, roles) == (message.content, ["assistant"]), (text, message.content)
assert usage.completion_tokens == reply.usage.completion_tokens and "paths" in reasoning

response = client.responses.create(model=model, input=PUZZLE, reasoning={"effort": "low"})
assert response.output_text and response.status == "completed" and response.usage.output_tokens > 0
with client.responses.stream(model=model, input=PUZZLE) as stream:
    kinds = [event.type for event in stream]
    assert stream.get_final_response().output_text
assert "response.output_text.delta" in kinds and kinds[-1] == "response.completed", kinds

for wrong, error in (
    ({"model": "nobody"}, openai.NotFoundError),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError),
    ({"extra_body": {"search": {"budget": -1}}}, openai.BadRequestError),
):
    try:
        client.chat.completions.create(**{"model": model, "messages": TURNS, **wrong})
    except error as refused:
        assert refused.body["message"], refused
    else:
        raise AssertionError(wrong)


async def together() -> int:
    """Sixteen at once, of which some leave."""
    async with openai.AsyncOpenAI() as many:
        asked = [many.chat.completions.create(model=model, messages=TURNS, seed=seed) for seed in range(16)]
        replies = await asyncio.gather(*asked)
        stream = await many.chat.completions.create(model=f"{model}:xhigh", messages=TURNS, stream=True)
        async for _ in stream:
            break
        await stream.close()
    return sum(bool(one.choices[0].message.content) for one in replies)


assert asyncio.run(together()) == 16
print(f"openai {openai.__version__}: {len(names)} models, chat, streams, responses, 16 at once, refusals as exceptions")
