"""What a text scorer reads of a checkpoint besides its weights: config, tokenizer, and how it was trained.

Runs no code of its own, and carries out no pickle.

Text scorers need a tokenizer's chat template, special tokens and character offsets, which the contract of
`tts_search.core.protocols.Tokenizer` leaves out; so they get the Hugging Face object itself.
"""

from __future__ import annotations

import json
import pickletools
import zipfile
from pathlib import Path
from typing import Any

from tts_search.errors import MissingDependencyError, ModelNotFoundError
from tts_search.models import model_folder

_FILES = ("README.md", "training_args.bin", "reward_head.pt")


def reward_folder(name: str | Path, *, weights: bool = True) -> Path:
    """The folder of a reward model, downloaded if need be with what tells its family, and with `weights`.

    Raises:
        ModelNotFoundError: no such folder, and no such repository within reach.
    """
    if base_of(Path(name).expanduser()) is not None:
        return Path(name).expanduser()
    folder = model_folder(name, weights=weights, also=_FILES)
    if weights and not Path(name).expanduser().is_dir() and not any(folder.glob("*.safetensors")):
        return model_folder(name, weights=weights, also=(*_FILES, "pytorch_model*.bin"))  # read as plain tensors
    return folder


_TASKS = {"TOKEN_CLS": "ForTokenClassification", "SEQ_CLS": "ForSequenceClassification"}


def base_of(folder: Path) -> str | None:
    """What an adapter in a folder (PEFT) stands on, a folder or a hub id; None where there is a whole model."""
    if (folder / "config.json").is_file() or not (folder / "adapter_config.json").is_file():
        return None
    return str(_json(folder / "adapter_config.json").get("base_model_name_or_path"))


def context_tokens(config: dict[str, Any]) -> int:
    """How many tokens a model reads, by its config; no limit where that names none."""
    return config.get("max_position_embeddings") or 1 << 30


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a model folder; of an adapter's, its base's, with the architecture of the adapter's task."""
    if (base := base_of(folder)) is None:
        return _json(folder / "config.json")
    task = _TASKS.get(str(_json(folder / "adapter_config.json").get("task_type")))
    config = read_config(model_folder(base, weights=False))
    return config | ({"architectures": [task]} if task else {})


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(f"{str(file.parent)!r} has no readable {file.name}: {error}") from error


def load_tokenizer(folder: Path) -> Any:
    """The fast Hugging Face tokenizer of a model folder.

    Raises:
        ModelNotFoundError: there is none.
    """
    try:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingDependencyError("reward models need transformers: pip install transformers") from error
    if (base := base_of(folder)) is not None and not (folder / "tokenizer_config.json").is_file():
        folder = model_folder(base, weights=False)
    # The class for a model type may replace what tokenizer.json says, so it is for folders without that file.
    kind: Any = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    try:
        return kind.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # transformers raises a different class for each missing file
        raise ModelNotFoundError(f"no readable tokenizer in {str(folder)!r}: {error}") from error


def title(folder: Path) -> str | None:
    """The first heading of a checkpoint's model card, None where there is none."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as card:
            lines = card.read(_MOST_CARD).splitlines()
    except OSError:
        return None
    return next((line[2:].strip() for line in lines if line.startswith("# ")), None)


def names_of(folder: Path, name: str) -> list[str]:
    """What a checkpoint is called: as it was asked for, and as it calls itself wherever it was copied to."""
    own = (read_config(folder).get("_name_or_path"), title(folder))
    return [name, *(known for known in own if isinstance(known, str) and known)]


_MOST_CARD, _MOST_ARGUMENTS = 2**16, 2**20  # characters, bytes


def training_argument(folder: Path, name: str) -> str | None:
    """A text among the arguments that a trainer leaves in `training_args.bin`, None where there is none.

    The file is a pickle: its instructions are read and none is carried out.
    """
    try:
        with zipfile.ZipFile(folder / "training_args.bin") as archive:
            member = next(info for info in archive.infolist() if info.filename.endswith("data.pkl"))
            if member.file_size > _MOST_ARGUMENTS:
                return None
            return _text_behind(archive.read(member), name)
    except (OSError, zipfile.BadZipFile, StopIteration, ValueError, NotImplementedError, RuntimeError):
        return None


def _text_behind(pickle: bytes, key: str) -> str | None:
    """The text that a pickle puts on its stack right behind the text `key`: an attribute's value behind its name."""
    memo: dict[int, str | None] = {}
    last: str | None = None
    found = False
    for instruction, argument, _ in pickletools.genops(pickle):
        if "PUT" in instruction.name or instruction.name == "MEMOIZE":
            memo[len(memo) if argument is None else int(argument)] = last
            continue
        text = argument if "UNICODE" in instruction.name else None
        if "GET" in instruction.name:
            text = memo.get(int(argument or 0))
        if found:
            return text if isinstance(text, str) else None
        last = text if isinstance(text, str) else None
        found = last == key
    return None
