"""A generator behind HTTP: anything that answers an OpenAI-compatible `/v1/completions`."""

from tts_search.generators.openai.generator import OpenAIGenerator

__all__ = ["OpenAIGenerator"]
