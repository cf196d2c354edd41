"""Generators behind HTTP: what answers an OpenAI-compatible `/v1/completions`, and what answers chats alone."""

from tts_search.generators.openai.chat import ChatGenerator, is_chat
from tts_search.generators.openai.generator import OpenAIGenerator

__all__ = ["ChatGenerator", "OpenAIGenerator", "is_chat"]
