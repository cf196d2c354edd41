"""The log of searches: every finished completion, so that nothing that was sampled is sampled again."""

from tts_search.log.file import SearchLog

__all__ = ["SearchLog"]
