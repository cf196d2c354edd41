"""A client of a server needs neither torch nor transformers: importing them takes a second of the processor each."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("aiohttp")

CODE = """
import sys
from tts_search import Searcher
from tts_search.embedded import MODEL_FOLDER
from tts_search.generators.openai import ChatGenerator, OpenAIGenerator
known = {"model": "m", "context_tokens": 512}
for generator in (
    OpenAIGenerator("http://127.0.0.1:9/v1", tokenizer=MODEL_FOLDER, head=None, **known),
    ChatGenerator("http://127.0.0.1:9/v1", **known),
):
    with Searcher(generator=generator, system="Be brief."):
        generator.tokenizer.render("Make 24.")
print(sorted({"torch", "transformers", "vllm", "openai", "rich", "matplotlib"} & sys.modules.keys()))
"""


def test_a_client_of_a_server_imports_little() -> None:
    found = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
