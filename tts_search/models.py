"""From a model's name to a folder on disk: the embedded model, a local folder, or a repository on the hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from tts_search.embedded import MODEL_FOLDER
from tts_search.errors import ModelNotFoundError

EMBEDDED = "embedded"
_SAMPLED = 1 << 20  # bytes at each end of a weight file
_PIECE, _PARTS = 4096, 1024  # bytes read at three places of every tensor; parts of a file that names none


def model_folder(name: str | Path, *, weights: bool = True, also: Sequence[str] = ()) -> Path:
    """The folder of a model.

    Args:
        name: `"embedded"`, a folder, or the id of a Hugging Face repository, which is downloaded (or found in its
        cache).
        weights: False for one whose weights are elsewhere; its config, tokenizer and SPRM head are downloaded alone.
        also: patterns of further files to download.

    Raises:
        ModelNotFoundError: no such folder, and no such repository within reach.
    """
    if name == EMBEDDED:
        return MODEL_FOLDER
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if folder.is_dir():
        raise ModelNotFoundError(f"{str(folder)!r} is no model folder: it has no config.json")
    if folder.is_file():
        raise ModelNotFoundError(f"{str(folder)!r} is a file, and a model is a folder: name the one that holds it")
    if isinstance(name, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise ModelNotFoundError(
            f"there is no model folder at {str(name)!r}: give an existing folder, or a hub id like 'org/model'"
        )
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.model", "*.txt", "*.jinja", "score_module.pt", "sprm/*", *also]
    patterns += ["*.safetensors"] if weights else []
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # offline, unknown, gated: the hub raises a class for each
        raise ModelNotFoundError(
            f"the model {name!r} is not there: no folder here has that name, and the hub did not give such a model "
            f"({type(error).__name__}). Check the name and the network, or pass the path of a local copy"
        ) from error


def model_name(name: str | Path) -> str:
    """What to call a model in results: its hub id, `"embedded"`, or the name of its folder."""
    return Path(name).expanduser().resolve().name if Path(name).expanduser().is_dir() else str(name)


def weights_of(folder: Path) -> str:
    """A digest of a folder's weight files (sizes, beginnings, ends): one that was trained on is another model."""
    return _digest(folder, _weight_files(folder))


def _weight_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".bin", ".pt"))


def contents_of(folder: Path) -> str:
    """A digest of what a folder's weight files hold: of every tensor its place and some of its bytes.

    Training changes nearly every number of a tensor that it changes at all.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in _weight_files(folder):
        digest.update(f"{file.relative_to(folder)} {file.stat().st_size}".encode())
        with file.open("rb") as content:
            for begin, end in _tensors(content, file):
                for place in (begin, (begin + end) // 2, max(begin, end - _PIECE)):
                    content.seek(place)
                    digest.update(content.read(_PIECE))
    return digest.hexdigest()


def _tensors(content: BinaryIO, file: Path) -> list[tuple[int, int]]:
    """Where each tensor of a safetensors file begins and ends; even parts of any other file, its ends included."""
    if file.suffix == ".safetensors":
        length = int.from_bytes(content.read(8), "little")
        header = json.loads(content.read(length))
        places = [tuple(one["data_offsets"]) for name, one in sorted(header.items()) if name != "__metadata__"]
        return [(0, 8 + length), *[(8 + length + begin, 8 + length + end) for begin, end in places]]
    size = file.stat().st_size
    return [(size * i // _PARTS, size * (i + 1) // _PARTS) for i in range(_PARTS)]


def digest_files(folder: Path, names: Iterable[str]) -> str:
    """A digest of those of the named files that are in the folder."""
    return _digest(folder, [folder / name for name in names if (folder / name).is_file()])


def _digest(folder: Path, files: Iterable[Path]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        size = file.stat().st_size
        with file.open("rb") as content:
            digest.update(f"{file.relative_to(folder)} {size}".encode() + content.read(_SAMPLED))
            content.seek(max(0, size - _SAMPLED))
            digest.update(content.read())
    return digest.hexdigest()
