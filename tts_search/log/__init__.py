"""The log of searches: every finished completion, so that nothing that was sampled is sampled again."""

from pathlib import Path

from tts_search.log.file import SearchLog

__all__ = ["SearchLog", "beside"]


def beside(results: Path) -> Path:
    """Where the log of the searches lies that a file of results is made of."""
    return results.with_name(f"{results.name}.log")
