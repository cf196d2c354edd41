"""Plug-ins of other people's packages, found by the entry points that those packages declare.

In a plug-in's pyproject.toml:

    [project.entry-points."tts_search.scorers"]
    my-prm = "my_package.rewards:MyPRM"

Knows names and how to import what they stand for; it knows nothing of what plug-ins do.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from tts_search.errors import InvalidInputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

SCORERS = "tts_search.scorers"
STRATEGIES = "tts_search.strategies"
GENERATORS = "tts_search.generators"


def installed(group: str) -> list[str]:
    """The names that installed packages offer in a group."""
    return sorted({entry.name for entry in _declared(group)})


def load(group: str, name: str, own: Collection[str]) -> Any:
    """Import what an installed package offers under `name`.

    Args:
        group: one of the groups above.
        name: the entry point's name.
        own: the names that this package has itself, for the error message.

    Raises:
        InvalidInputError: no package offers the name, several do, or it cannot be imported.
    """
    kind = group.rpartition(".")[2].removesuffix("s").replace("strategie", "strategy")
    found = list(_declared(group).select(name=name))
    if not found:
        raise InvalidInputError(
            f"unknown {kind} {name!r}: choose from {', '.join((*own, *installed(group)))}, or pass an object"
        )
    if len(found) > 1:
        packages = ", ".join(sorted(entry.dist.name if entry.dist else "?" for entry in found))
        raise InvalidInputError(f"{kind} {name!r} is offered by several packages ({packages}): pass an object instead")
    try:
        return found[0].load()
    except Exception as error:  # an import runs the plug-in's code, which raises what it likes
        package = found[0].dist.name if found[0].dist else "?"
        raise InvalidInputError(
            f"{kind} {name!r} of the package {package} cannot be imported from {found[0].value}: "
            f"{type(error).__name__}: {error}"
        ) from error


def instantiate(found: Any, kind: type, label: str) -> Any:
    """An object of the given protocol: `found` itself, or what it makes if it is a class or function without arguments.

    `label` is how error messages call it.

    Raises:
        InvalidInputError: it is no such object and makes none.
    """
    if isinstance(found, type) or not isinstance(found, kind):
        if not callable(found):
            raise InvalidInputError(f"{label} is no {kind.__name__} and makes none: it is {found!r}")
        found = found()
    if not isinstance(found, kind):
        missing = [name for name in vars(kind) if not name.startswith("_") and not hasattr(found, name)]
        raise InvalidInputError(f"{label} is no {kind.__name__}: it has no {', '.join(missing)}")
    return found


def _declared(group: str) -> EntryPoints:
    """What installed packages declare; importing the reader of their files takes longer than most of this package."""
    from importlib.metadata import entry_points

    return entry_points(group=group)
