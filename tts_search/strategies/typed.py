"""How a strategy is written: as one would type it. Results, tables and logs know it by that."""

from __future__ import annotations

import operator
from dataclasses import fields
from typing import Any, ClassVar

from tts_search.errors import InvalidInputError, shown


class Typed:
    """A dataclass whose `repr` leaves out what is None by default and stayed so; make it with `repr=False`."""

    __slots__ = ()
    continues_paths: ClassVar[bool] = True  # those that only begin at the root say so

    def check_counts(self) -> None:
        """Refuse counts that are no whole numbers (NaN is below nothing); numpy's become ints.

        Raises:
            InvalidInputError: there is one.
        """
        of: Any = self
        for field in fields(of):
            value: Any = getattr(self, field.name)
            if "int" not in str(field.type) or (value is None and "None" in str(field.type)):
                continue
            try:
                if isinstance(value, bool):
                    raise TypeError
                object.__setattr__(self, field.name, operator.index(value))  # pyright: ignore[reportArgumentType]
            except TypeError:
                raise InvalidInputError(
                    f"{field.name} of {type(self).__name__} must be a whole number, got {shown(value)}"
                ) from None

    def __repr__(self) -> str:
        """`BestOfN(n=8)`."""
        of: Any = self
        told = ((field.name, getattr(self, field.name), field.default) for field in fields(of))
        shown = (f"{name}={value!r}" for name, value, usual in told if value is not None or usual is not None)
        return f"{type(self).__name__}({', '.join(shown)})"
