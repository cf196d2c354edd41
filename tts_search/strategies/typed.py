"""How a strategy is written: as one would type it. Results, tables and logs know it by that."""

from __future__ import annotations

import math
import operator
from dataclasses import fields
from typing import Any, ClassVar

from tts_search.core.protocols import Until
from tts_search.errors import InvalidInputError, shown

MOST = 100_000
_GONE_THROUGH = ("leaves", "subtrees")  # counts that a strategy goes through one by one, whatever the budget
_WANTED = {
    "int": "a whole number of at least 1",
    "float": "a finite number",
    "Until": "step, thought or end",
    "bool": "True or False",
    "": "something else",
}


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
            try:
                value = _fitted(value, kind)
                object.__setattr__(self, field.name, value)
            except (TypeError, ValueError):
                wanted = next(said for name, said in _WANTED.items() if name in kind)
                raise InvalidInputError(
                    f"{field.name} of {type(self).__name__} must be {wanted}, got {shown(value)}"
                ) from None
            if field.name in _GONE_THROUGH and value > MOST:
                raise InvalidInputError(f"{field.name} of {type(self).__name__} may be {MOST:,} at most, got {value:,}")

    def __repr__(self) -> str:
        """`BestOfN(n=8)`."""
        of: Any = self
        told = ((field.name, getattr(self, field.name), field.default) for field in fields(of))
        shown = (f"{name}={value!r}" for name, value, usual in told if value is not None or usual is not None)
        return f"{type(self).__name__}({', '.join(shown)})"


def _fitted(value: Any, kind: str) -> Any:
    """A value as a field of this kind holds it.

    Raises:
        TypeError, ValueError: it is none.
    """
    if "bool" in kind:
        return value if isinstance(value, bool) else _refuse()
    if "Until" in kind:
        return Until(value)
    if isinstance(value, bool) and ("int" in kind or "float" in kind):
        _refuse()
    if "int" in kind:
        count = operator.index(value)
        return count if count >= 1 else _refuse()
    if "float" in kind:
        number = value if isinstance(value, int) else float(value)
        return number if math.isfinite(number) else _refuse()
    return value


def _refuse() -> Any:
    raise ValueError
