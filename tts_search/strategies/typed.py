"""How a strategy is written: as one would type it. Results, tables and logs know it by that."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ClassVar

from tts_search.core.protocols import Until
from tts_search.errors import InvalidInputError, shown

MOST = 100_000
_GONE_THROUGH = ("leaves", "subtrees")  # counts that a strategy goes through one by one, whatever the budget


class Typed:
    """A dataclass whose `repr` leaves out what is None by default and stayed so; make it with `repr=False`."""

    __slots__ = ()
    continues_paths: ClassVar[bool] = True  # those that only begin at the root say so

    def check(self) -> None:
        """Refuse by name what is no value of its field: NaN is below nothing, and so passes any other look.

        Counts are whole numbers of at least 1, other numbers finite, and yes is neither; numpy's become Python's.

        Raises:
            InvalidInputError: there is such a value.
        """
        of: Any = self
        for field in fields(of):
            value, kind = getattr(self, field.name), str(field.type)
            if value is None and "None" in kind:
                continue
            wanted, fitted = next(known for name, known in _KINDS.items() if name in kind)
            try:
                value = fitted(value)
            except (TypeError, ValueError):
                raise InvalidInputError(
                    f"{field.name} of {type(self).__name__} must be {wanted}, got {shown(value)}"
                ) from None
            object.__setattr__(self, field.name, value)
            if field.name in _GONE_THROUGH and value > MOST:
                raise InvalidInputError(f"{field.name} of {type(self).__name__} may be {MOST:,} at most, got {value:,}")

    def __repr__(self) -> str:
        """`BestOfN(n=8)`."""
        of: Any = self
        told = ((field.name, getattr(self, field.name), field.default) for field in fields(of))
        shown = (f"{name}={value!r}" for name, value, usual in told if value is not None or usual is not None)
        return f"{type(self).__name__}({', '.join(shown)})"


def _truth(value: Any) -> bool:
    return value if isinstance(value, bool) else _refuse()


def _count(value: Any) -> int:
    count = _refuse() if isinstance(value, bool) else operator.index(value)
    return count if count >= 1 else _refuse()


def _finite(value: Any) -> float:
    number = _refuse() if isinstance(value, bool) else value if isinstance(value, int) else float(value)
    return number if math.isfinite(number) else _refuse()


def _refuse() -> Any:
    raise ValueError


_KINDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {  # by what stands in the field's annotation
    "bool": ("True or False", _truth),
    "Until": ("step, thought or end", Until),
    "int": ("a whole number of at least 1", _count),
    "float": ("a finite number", _finite),
    "": ("anything", lambda value: value),
}
