"""What tells engines, scorers and settings apart in every process, and the keys that are made of it.

A key holds all that decides what an engine returns. What cannot be told is told as different.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import lru_cache, partial
from threading import Lock, RLock
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from uuid import uuid4

from tts_search.confidential import is_confidential, without_secrets
from tts_search.core.protocols import Generator, Request
from tts_search.core.tree import Trajectory
from tts_search.log.frames import KEY_BYTES

_NOT_IN_KEYS = {"prefix", "seeds", "stop_ids", "tree", "on_tokens", "on_delta", "on_completion", "messages"}
_PLAIN = (str, int, float, bool, type(None))


def digest(*parts: bytes) -> bytes:
    """A key of some parts, each counted with its length."""
    found = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        found.update(len(part).to_bytes(8))
        found.update(part)
    return found.digest()


def digest_of(value: Any) -> bytes:
    """A key of plain JSON values, whatever the order of their names."""
    return digest(json.dumps(value, sort_keys=True, ensure_ascii=True).encode())


def identity(thing: Any) -> Any:
    """What an object is, as plain JSON values: its own `fingerprint`, or its class with what it was made of.

    Functions are told apart by their code and what they hold (defaults, closures, plain globals), objects by their
    attributes, as they were when they were first seen. What cannot be told, or lies too deep, is told as different from
    everything else. Values under names such as `api_key` are told by a digest.
    """
    return _Telling().of(thing)


_DEPTH, _LENGTH = 6, 2000
_seen: dict[int, tuple[weakref.ref[Any], Any]] = {}  # a counter in it makes an object no other one
_LOCKS = (type(Lock()), type(RLock()))


class _Telling:
    """Of one object, and of all that it holds."""

    def __init__(self) -> None:
        self._within: list[int] = []
        self._by_place = False  # whether something was told by where it stands

    def of(self, thing: Any) -> Any:
        if isinstance(thing, _PLAIN):
            return thing
        known = _seen.get(id(thing))
        if known is not None and known[0]() is thing:
            return known[1]
        if id(thing) in self._within or len(self._within) > _DEPTH:
            self._by_place = True
            known_above = id(thing) in self._within
            return {"again": self._within.index(id(thing))} if known_above else _unknown(thing)
        self._within.append(id(thing))
        own = None
        try:
            own = _fingerprint(thing)
            found = self._told(thing) if own is None else self._named(own) if isinstance(own, Mapping) else own
        except BaseException:  # whatever a plug-in's repr or attributes do, they harm no search
            found = _unknown(thing)
        self._within.pop()
        if own is None and not is_dataclass(thing) and not (self._by_place and self._within):
            with suppress(TypeError):  # not everything can be referred to weakly
                number = id(thing)
                _seen[number] = (weakref.ref(thing, lambda _: _seen.pop(number, None)), found)
        return found

    def _told(self, thing: Any) -> Any:
        if isinstance(thing, BuiltinFunctionType) and not isinstance(thing.__self__, ModuleType | None):
            return {"method": thing.__name__, "of": self.of(thing.__self__)}
        if isinstance(thing, ModuleType):
            return thing.__name__
        if isinstance(thing, type | BuiltinFunctionType):
            return f"{thing.__module__}.{thing.__qualname__}"
        if isinstance(thing, FunctionType):
            return self._function(thing)
        if isinstance(thing, MethodType):
            return {"method": self.of(thing.__func__), "of": self.of(thing.__self__)}
        if isinstance(thing, partial):
            return {"partial": self.of(thing.func), "args": self.of(thing.args), "names": self.of(thing.keywords)}
        if isinstance(thing, Mapping):
            return self._named(thing)
        if isinstance(thing, tuple | list):
            return [self.of(value) for value in thing]
        if isinstance(thing, set | frozenset):
            return sorted([self.of(value) for value in thing], key=repr)
        return self._object(thing)

    def _named(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        told = {str(name): self.of(value) for name, value in values.items()}
        return {name: _kept(value) if is_confidential(name) else value for name, value in told.items()}

    def _function(self, function: FunctionType) -> Any:
        code = function.__code__
        constants = [value for value in code.co_consts if isinstance(value, (*_PLAIN, bytes))]
        body = digest(code.co_code, repr((constants, code.co_names)).encode()).hex()
        holds = {
            "constants": [_constant(value) for value in code.co_consts if not isinstance(value, (*_PLAIN, bytes))],
            "defaults": self.of(function.__defaults__ or ()),
            "by name": self.of(function.__kwdefaults__ or {}),
            "closure": {
                name: self.of(_content(cell))
                for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True)
            },
            "globals": {
                name: value
                for name in sorted(_names(code))
                if isinstance(value := function.__globals__.get(name), _PLAIN) and value is not None
            },
        }
        held = {name: value for name, value in holds.items() if value}
        told = {"function": f"{function.__module__}.{function.__qualname__}", "code": body}
        return {**told, "holds": _digested(held)} if held else told

    def _object(self, thing: Any) -> Any:
        kind = f"{type(thing).__module__}.{type(thing).__qualname__}"
        if isinstance(thing, _LOCKS):  # they decide nothing
            return {"class": kind}
        if is_dataclass(thing):
            told = {field.name: getattr(thing, field.name) for field in fields(thing) if field.repr}
            return {"class": kind, **self._named(told)}
        shown = repr(thing)
        if " at 0x" not in shown:
            return {"class": kind, "repr": without_secrets(shown, _kept_text), **_contents(thing)}
        held = _attributes(thing)
        if held is None:
            return _unknown(thing)
        return {"class": kind, **{name: _short(value) for name, value in self._named(held).items()}}


def _fingerprint(thing: Any) -> Any:
    own = None if isinstance(thing, type) else getattr(thing, "fingerprint", None)
    return None if callable(own) else own


def _unknown(thing: Any) -> Any:
    """Told as different from everything else, in this process and in every other."""
    return {"class": f"{type(thing).__module__}.{type(thing).__qualname__}", "unknown": uuid4().hex}


def _attributes(thing: Any) -> dict[str, Any] | None:
    """What an object holds under names, None where nobody can tell."""
    slots = {name for kind in type(thing).__mro__ for name in _slots(kind) if hasattr(thing, name)}
    if not hasattr(thing, "__dict__") and not any("__slots__" in kind.__dict__ for kind in type(thing).__mro__):
        return None
    return {**{name: getattr(thing, name) for name in sorted(slots)}, **getattr(thing, "__dict__", {})}


def _slots(kind: type) -> Sequence[str]:
    found = kind.__dict__.get("__slots__", ())
    names = (found,) if isinstance(found, str) else tuple(found)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _contents(thing: Any) -> dict[str, str]:
    """Of numbers in a row (an array's `repr` leaves most of them out)."""
    try:
        return {"contents": digest(memoryview(thing).tobytes()).hex()}
    except TypeError:
        return {}


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):  # of a function within
        inner = [_constant(one) for one in value.co_consts]
        return digest(value.co_code, repr((inner, value.co_names)).encode()).hex()
    if isinstance(value, frozenset):  # in another order in every process
        return sorted(map(repr, value))
    return repr(value)


def _names(code: CodeType) -> set[str]:
    return {
        *code.co_names,
        *(name for value in code.co_consts if isinstance(value, CodeType) for name in _names(value)),
    }


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return "nothing"


def _kept(told: Any) -> Any:
    return told if told is None or isinstance(told, bool) else _digested(told)


def _kept_text(value: str) -> str:
    return f"<{digest(value.encode('utf-8', 'replace')).hex()}>"


def _short(told: Any) -> Any:
    """A long list is told by a digest: it would stand in the log with the settings of every call."""
    if isinstance(told, _PLAIN):
        return told
    return told if len(json.dumps(told)) <= _LENGTH else _digested(told)


def _digested(told: Any) -> Any:
    found = {"digest": digest_of(told).hex()}
    return found if is_told(told) else {**found, "unknown": uuid4().hex}


def is_told(told: Any) -> bool:
    """Whether an identity will be the same in another process."""
    if isinstance(told, dict):
        return "unknown" not in told and all(map(is_told, told.values()))
    return not isinstance(told, list) or all(map(is_told, told))


def identity_of_engine(generator: Generator) -> dict[str, Any]:
    """What a log must know of an engine: nothing of how fast it is, everything that decides what it returns."""
    head = generator.head_config
    return {"name": generator.name, "engine": identity(generator), "head": None if head is None else repr(head)}


@lru_cache(maxsize=64)
def _ids(ids: frozenset[int]) -> bytes:
    return array("q", sorted(ids)).tobytes()


def completion_keys(request: Request, engine: bytes, step_ids: frozenset[int]) -> Callable[[int], bytes]:
    """The key of each seed's completion.

    `engine` is the digest of the engine's identity. `step_ids`: the tokens at which the head's logits are kept.
    """
    settings = {field.name: getattr(request, field.name) for field in fields(request) if field.name not in _NOT_IN_KEYS}
    shared = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in (engine, _ids(request.stop_ids), _ids(step_ids), repr(settings).encode()):
        shared.update(len(part).to_bytes(8))
        shared.update(part)
    shared.update(array("q", tuple(request.prefix)).tobytes())

    def of(seed: int) -> bytes:
        key = shared.copy()
        key.update(seed.to_bytes(16, signed=True))
        return key.digest()

    return of


def trajectory_key(trajectory: Trajectory, scorer: bytes, *, only_new: bool) -> bytes:
    """The key of a path's step scores; `scorer` is the digest of the scorer's identity."""
    question = trajectory.question if isinstance(trajectory.question, str) else list(map(dict, trajectory.question))
    return digest(
        scorer,
        json.dumps(question, sort_keys=True).encode(),
        array("q", trajectory.prompt_ids).tobytes(),
        array("q", trajectory.token_ids).tobytes(),
        array("q", trajectory.step_ends).tobytes(),
        bytes((only_new,)),
    )
