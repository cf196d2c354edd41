"""What a command may write over: nothing that it reads, and nothing that is another's. It writes nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tts_search.errors import InvalidInputError


def check_apart(out: Path, *inputs: Path) -> None:
    """Refuse to write to a file that is read, by whatever path or link.

    Raises:
        InvalidInputError: `out` is one of the inputs, or no file can be made there.
    """
    if not out.absolute().parent.is_dir():
        raise InvalidInputError(f"--out {out}: there is no folder {out.parent}")
    if out.is_dir():
        raise InvalidInputError(f"--out {out} is a folder: name a file in it")
    for given in inputs:
        if out.resolve() == given.resolve() or (out.exists() and given.exists() and out.samefile(given)):
            raise InvalidInputError(f"--out {out} is {given}, which is read: name another file to write")


def check_folder(out: Path, log: str, names: Sequence[str]) -> None:
    """Refuse a folder in which files of these names are not of an earlier run, which leaves its log beside them.

    Whose a log is, the one who opens it sees.

    Raises:
        InvalidInputError: there is such a file, and no log; or no folder can be made there.
    """
    if next((place for place in (out, *out.absolute().parents) if place.exists()), out).is_file():
        raise InvalidInputError(f"--out {out} cannot be made: a file stands in its place")
    if (out / log).is_file() and (out / log).stat().st_size:
        return
    if taken := [name for name in names if (out / name).exists()]:
        raise InvalidInputError(
            f"{out / taken[0]} is there already, and no {log} of an earlier run beside it: move it away, or name "
            "another folder with --out"
        )
