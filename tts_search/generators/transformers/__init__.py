"""transformers as a generator: continuous batching over a slotted key-value cache, prefixes kept."""

from tts_search.generators.transformers.generator import TransformersGenerator

__all__ = ["TransformersGenerator"]
