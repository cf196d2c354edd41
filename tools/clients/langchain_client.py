"""LangChain's ChatOpenAI: invoke, stream, batch; content as parts."""

from importlib.metadata import version

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

PUZZLE = "Using the numbers 7, 5, 15 and 11, make 24."
chat = ChatOpenAI(model="embedded", seed=1, stream_usage=True)
reply = chat.invoke([HumanMessage([{"type": "text", "text": PUZZLE}])])
assert reply.content and reply.usage_metadata["output_tokens"] > 0, reply
assert reply.usage_metadata["output_token_details"]["reasoning"] > 0
parts = list(chat.stream(PUZZLE))
whole = parts[0]
for part in parts[1:]:
    whole += part
assert whole.content == reply.content and whole.usage_metadata["total_tokens"] > 0, whole
assert len(chat.batch([PUZZLE] * 4)) == 4
strong = ChatOpenAI(model="embedded", reasoning_effort="high", extra_body={"search": {"budget": 900}})
answer = strong.invoke([SystemMessage("Answer shortly."), HumanMessage(PUZZLE)])
assert answer.usage_metadata["output_tokens"] <= 900
responses = ChatOpenAI(model="embedded", use_responses_api=True).invoke(PUZZLE)
assert responses.text
print(f"langchain-openai {version('langchain-openai')}: invoke, stream with usage, batch, effort, responses")
