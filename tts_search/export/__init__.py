"""What a search leaves behind, in other programs' forms: networkx, JSON, GraphML, the terminal, a plot, an HTML page.

Every function takes a `SearchResult`, or a `Tree` alone. Nothing here runs a search or needs its model: a result read
by `from_json` exports just as the one that was written.
"""

from __future__ import annotations

from pathlib import Path

from tts_search.errors import InvalidInputError
from tts_search.export.figure import plot
from tts_search.export.files import FORMATS
from tts_search.export.graphs import to_graphml, to_networkx
from tts_search.export.page import to_html
from tts_search.export.rows import Source
from tts_search.export.saved import from_json, to_json, tree_from_json
from tts_search.export.text_tree import rich_tree
from tts_search.whole_files import write_atomically

__all__ = [
    "from_json",
    "plot",
    "rich_tree",
    "save",
    "to_graphml",
    "to_html",
    "to_json",
    "to_networkx",
    "tree_from_json",
]


def save(source: Source, path: str | Path) -> Path:
    """Write a search in the form that the path's suffix names; the path is returned.

    `.html` the explorer page, `.json` everything (see `to_json`), `.graphml`, `.png` `.svg` `.pdf` the plot, `.txt` the
    terminal's tree. The file is complete or, if anything fails (a full disk), the old one is untouched.

    Raises:
        InvalidInputError: the suffix is none of these, or the result carries no tree where one is drawn.
        MissingDependencyError: networkx or matplotlib is needed and not installed.
        OSError: the file cannot be written.
    """
    path = Path(path)
    render = FORMATS.get(path.suffix.lower())
    if render is None:
        raise InvalidInputError(
            f"cannot tell a format from the suffix {path.suffix!r} of {path.name!r}: choose from {', '.join(FORMATS)}"
        )
    write_atomically(path, render(source))
    return path
