"""vLLM as a generator, with the SPRM head in the engine. vLLM's own processes read `plugin`, and nothing else here."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tts_search.generators.vllm.generator import VLLMGenerator

__all__ = ["VLLMGenerator"]


def __getattr__(name: str) -> Any:
    if name == "VLLMGenerator":
        from tts_search.generators.vllm.generator import VLLMGenerator

        return VLLMGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
