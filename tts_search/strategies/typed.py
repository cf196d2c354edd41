"""How a strategy is written: as one would type it. Results, tables and logs know it by that."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


class Typed:
    """A dataclass whose `repr` leaves out what is None by default and stayed so; make it with `repr=False`."""

    __slots__ = ()

    def __repr__(self) -> str:
        """`BestOfN(n=8)`."""
        of: Any = self
        told = ((field.name, getattr(self, field.name), field.default) for field in fields(of))
        shown = (f"{name}={value!r}" for name, value, usual in told if value is not None or usual is not None)
        return f"{type(self).__name__}({', '.join(shown)})"
