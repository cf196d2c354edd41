"""Strategies as people write them: a name, or a call such as `MCTS(children=4)`. Read, never evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass, replace
from functools import partial
from typing import Any, cast

from tts_search import discovery
from tts_search.core.protocols import Strategy
from tts_search.errors import InvalidInputError
from tts_search.strategies.beam import StepBeamSearch
from tts_search.strategies.best_first import BestFirst
from tts_search.strategies.best_of_n import BestOfN
from tts_search.strategies.dvts import DVTS
from tts_search.strategies.mcts import MCTS
from tts_search.strategies.repeat import Repeat
from tts_search.written import bind, read_call

EFFORTS: Mapping[str, int] = {"low": 2, "medium": 8, "high": 32}  # Best-of-k (paper, section 4.1)
STRATEGIES: Mapping[str, Strategy] = {
    "best_of_n": BestOfN(),
    "single": BestOfN(n=1),
    "beam": StepBeamSearch(),
    "dvts": DVTS(),
    "mcts": MCTS(),
    "best_first": BestFirst(),
}
OWN: Mapping[str, Any] = {
    **STRATEGIES,
    **{name: BestOfN(n=n) for name, n in EFFORTS.items()},
    **{kind.__name__: kind for kind in (BestOfN, StepBeamSearch, DVTS, MCTS, BestFirst, Repeat)},
}
"""What is known by name without looking through installed packages, which takes some 10 ms."""


def read_strategy(text: str, *, find: Callable[[str], Any] | None = None, others: str = "") -> Strategy:
    """The strategy that a text means.

    `"mcts"`, `"high"` (an effort), `"MCTS(children=2)"`, `"mcts(children=2)"`, `"Repeat(BestOfN(n=4))"`, and the names
    of installed plug-ins, with settings where they are classes or functions that make a strategy.

    Args:
        text: what somebody wrote; it may come from anywhere.
        find: asked first for what a name stands for; None where it does not know.
        others: what else may be written, for the message about an unknown name.

    Raises:
        InvalidInputError: an unknown name (the message lists those there are), an unknown setting (likewise), a value
            that a setting does not take, no such text at all, or a plug-in that cannot be imported.
    """
    make = partial(_make, find or (lambda _: None), others)
    if "(" not in text:
        return make(text.strip(), (), {})
    try:
        return read_call(text, make)
    except InvalidInputError as error:
        raise InvalidInputError(f"strategy {error if text[:99] in str(error) else f'{text}: {error}'}") from error


def _make(
    find: Callable[[str], Any], others: str, name: str, places: Sequence[Any], names: Mapping[str, Any]
) -> Strategy:
    found: Any = find(name)
    if found is None:
        found = OWN.get(name)
    if found is None:
        known = [*STRATEGIES, *EFFORTS]
        plugins = discovery.installed(discovery.STRATEGIES)
        if name not in plugins:
            written = "settings as in MCTS(children=4)"
            raise InvalidInputError(
                f"unknown strategy {name[:200]!r}: choose from {', '.join((*known, *plugins))}{others}, with {written}"
            )
        found = discovery.load(discovery.STRATEGIES, name, known)
    kind: Any = type(found) if is_dataclass(found) and not isinstance(found, type) else found
    if kind is not found and (places or names):  # of a name that stands for settings, some are to be others
        found = replace(cast(Any, found), **bind(kind, name, places, names, partly=True).arguments)
    elif isinstance(found, type) or places or names:
        found = bind(kind, name, places, names).make()
    if not callable(found):
        raise InvalidInputError(f"{name} is no strategy: it must be a function of a tree that yields Expands")
    return cast(Strategy, found)
