"""What tells engines, scorers and settings apart in every process, and the keys that are made of it.

A key holds all that decides what an engine returns. What cannot be told is told as different.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from array import array
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import lru_cache
from types import FunctionType
from typing import Any

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

    Functions are told apart by their code, objects by their attributes as far as these are plain, as they were when the
    object was first seen.
    """
    if isinstance(thing, _PLAIN):
        return thing
    try:
        return _identity(thing)
    except BaseException:  # whatever a plug-in's repr or attributes do, they harm no search
        return {"class": f"{type(thing).__module__}.{type(thing).__qualname__}"}


def _identity(thing: Any) -> Any:
    own = getattr(thing, "fingerprint", None)
    if own is not None and not callable(own):
        return own
    if isinstance(thing, type):
        return f"{thing.__module__}.{thing.__qualname__}"
    if isinstance(thing, FunctionType):
        return _function(thing)
    if isinstance(thing, Mapping):
        return {str(name): identity(value) for name, value in thing.items()}
    if isinstance(thing, tuple | list):
        return [identity(value) for value in thing]
    if isinstance(thing, set | frozenset):
        return sorted([identity(value) for value in thing], key=repr)
    kind = f"{type(thing).__module__}.{type(thing).__qualname__}"
    if is_dataclass(thing):
        told = {field.name: getattr(thing, field.name) for field in fields(thing) if field.repr}
        return {"class": kind, **{name: identity(value) for name, value in told.items()}}
    known = _seen.get(id(thing))
    if known is not None and known[0]() is thing:
        return known[1]
    shown = repr(thing)
    plain = {name: value for name, value in getattr(thing, "__dict__", {}).items() if isinstance(value, _PLAIN)}
    found = {"class": kind, **plain} if " at 0x" in shown else {"class": kind, "repr": shown}
    with suppress(TypeError):  # not everything can be referred to weakly
        number = id(thing)
        _seen[number] = (weakref.ref(thing, lambda _: _seen.pop(number, None)), found)
    return found


_seen: dict[int, tuple[weakref.ref[Any], Any]] = {}  # a counter in it makes an object no other one


def _function(function: FunctionType) -> Any:
    code = function.__code__
    constants = [value for value in code.co_consts if isinstance(value, (*_PLAIN, bytes))]
    body = digest(code.co_code, repr((constants, code.co_names)).encode()).hex()
    return {"function": f"{function.__module__}.{function.__qualname__}", "code": body}


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
