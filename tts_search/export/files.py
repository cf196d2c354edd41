"""The forms a search can be saved in, by suffix."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tts_search.errors import InvalidInputError
from tts_search.export.figure import import_matplotlib, plot
from tts_search.export.graphs import import_networkx, to_graphml
from tts_search.export.page import to_html
from tts_search.export.rows import Source
from tts_search.export.saved import to_json
from tts_search.export.text_tree import LEGEND, to_text


def check_writable(path: Path) -> None:
    """Refuse what `save` could not write: to be called before a long search.

    Raises:
        InvalidInputError: the suffix names no form, the folder is not there or cannot be written to, or the path is a
            folder itself, or a file that is no search that was saved.
        MissingDependencyError: the library that draws this form is not installed.
    """
    form, folder = path.suffix.lower(), path.absolute().parent
    if form not in FORMATS:
        raise InvalidInputError(f"{str(path)!r} names no known form: end it in {', '.join(FORMATS)}")
    if path.is_dir():
        raise InvalidInputError(f"{str(path)!r} is a folder: name a file in it")
    if not folder.is_dir():
        raise InvalidInputError(f"there is no folder {str(path.parent)!r}")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InvalidInputError(f"the folder {str(path.parent)!r} cannot be written to: {error.strerror}") from error
    if form in _NEEDED:
        _NEEDED[form]()
    if not is_replaceable(path):
        raise InvalidInputError(
            f"{str(path)!r} is there already and is no search that was saved: it is left as it was; name another file, "
            "or move it away"
        )


def is_replaceable(path: Path) -> bool:
    """Whether nothing is there, or nothing but a search that was saved: a person's file is not to be written over."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return not data.strip() or _MARKS[path.suffix.lower()] in data


def _image(kind: str) -> Callable[[Source], bytes]:
    def render(source: Source) -> bytes:
        buffer = io.BytesIO()
        plot(source).savefig(buffer, format=kind, dpi=160, metadata={"Software" if kind == "png" else "Creator": SIGN})
        return buffer.getvalue()

    return render


SIGN = "tts-search"
_MARKS: Mapping[str, bytes] = {  # what every file of a form has in it, and hardly another's
    ".html": b"<title>Search explorer</title>",
    ".json": b'"format":"tts-search"',
    ".graphml": b'attr.name="mean_logprob"',
    ".txt": LEGEND.encode(),
    **dict.fromkeys((".png", ".svg", ".pdf"), SIGN.encode()),
}
FORMATS: Mapping[str, Callable[[Source], bytes]] = {
    ".html": lambda source: to_html(source).encode(),
    ".json": lambda source: to_json(source).encode(),
    ".graphml": lambda source: to_graphml(source).encode(),
    ".png": _image("png"),
    ".svg": _image("svg"),
    ".pdf": _image("pdf"),
    ".txt": lambda source: to_text(source).encode("utf-8", "replace"),
}
_NEEDED: Mapping[str, Callable[[], object]] = {
    ".graphml": import_networkx,
    **dict.fromkeys((".png", ".svg", ".pdf"), import_matplotlib),
}
