"""A completion as bytes and back, to the last bit: columns of numbers, each as narrow as it can be.

A token costs its id (1 to 3 bytes by the vocabulary) and its log-probability: 4 bytes, where it is a number of single
precision, as engines' are, else 8. Of the head's logits only those at tokens that can end a step are kept, because no
other means anything (`Completion.scores`).
"""

from __future__ import annotations

import io
import json
import math
import sys
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tts_search.core.protocols import Completion
from tts_search.log.numbers import read_number, write_number

_WIDE_LOGPROBS, _WIDE_SCORES, _HAS_SCORES, _PACKED = 1, 2, 4, 8
_WIDTH_SHIFT, _WIDTHS = 4, 7
_MORE = 128  # JSON behind the counts: what most engines' completions have no need of


class Kept(NamedTuple):
    """A completion, and when it was there: seconds of search since its question was begun."""

    completion: Completion
    seconds: float


def only_steps(completion: Completion, step_ids: frozenset[int]) -> Completion:
    """The completion as it comes out of a log: the head's logits at step tokens alone, NaN elsewhere."""
    if completion.scores is None:
        return completion
    pairs = zip(completion.token_ids, completion.scores, strict=True)
    return replace(completion, scores=tuple([score if token in step_ids else math.nan for token, score in pairs]))


def pack(completion: Completion, seconds: float, step_ids: frozenset[int]) -> bytes:
    """The bytes of a completion whose logits off `step_ids` are left out."""
    ids = completion.token_ids
    width = (max(ids).bit_length() + 7) // 8 or 1
    flags = width << _WIDTH_SHIFT
    columns = [_planes(array("I", ids), width)]
    wide, column = floats(() if completion.logprobs is None else completion.logprobs)
    flags |= _WIDE_LOGPROBS * wide
    columns.append(column)
    if completion.scores is not None:
        pairs = zip(ids, completion.scores, strict=True)
        wide, column = floats([score for token, score in pairs if token in step_ids])
        flags |= _HAS_SCORES | _WIDE_SCORES * wide
        columns.append(column)
    body = b"".join(columns)
    packed = zlib.compress(body, 6)
    if len(packed) < len(body):
        flags, body = flags | _PACKED, packed
    counts = (len(ids), completion.sampled_tokens - len(ids), completion.cached_tokens, round(seconds * 1000))
    head = b"".join([write_number(max(0, count)) for count in counts])
    if more := _more(completion):
        text = json.dumps(more).encode()
        flags, head = flags | _MORE, head + write_number(len(text)) + text
    return bytes((flags,)) + head + body


def _more(completion: Completion) -> dict[str, Any]:
    """What a completion has that the columns do not tell, as plain JSON values."""
    count, logprobs = len(completion.token_ids), completion.logprobs
    more: dict[str, Any] = {}
    if completion.sampled_tokens < count:  # of an engine whose ids are not its tokens
        more["sampled"] = completion.sampled_tokens
    if logprobs is None or len(logprobs) != count:
        more["logprobs"] = None if logprobs is None else len(logprobs)
    if completion.prompt_tokens is not None:
        more["prompt"] = completion.prompt_tokens
    if completion.warnings:
        more["warnings"] = completion.warnings
    return more


def unpack(data: bytes, step_ids: frozenset[int]) -> Kept:
    """Inverse of `pack`."""
    flags, file = data[0], io.BytesIO(data)
    file.seek(1)
    numbers = [read_number(file) for _ in range(4)]
    count, more, cached, milliseconds = [number or 0 for number in numbers]
    told: dict[str, Any] = json.loads(file.read(read_number(file) or 0)) if flags & _MORE else {}
    body = file.read()
    body = zlib.decompress(body) if flags & _PACKED else body
    width = flags >> _WIDTH_SHIFT & _WIDTHS
    ids = _numbers("I", body[: count * width], width).tolist()
    place = count * width
    given = told.get("logprobs", count)
    logprobs, place = read_floats(body, place, given or 0, wide=bool(flags & _WIDE_LOGPROBS))
    scores: Sequence[float] | None = None
    if flags & _HAS_SCORES:
        steps = [token in step_ids for token in ids]
        known, place = read_floats(body, place, sum(steps), wide=bool(flags & _WIDE_SCORES))
        values = iter(known)
        scores = tuple([next(values) if step else math.nan for step in steps])
    completion = Completion(
        token_ids=tuple(ids),
        logprobs=None if given is None else tuple(logprobs),
        scores=scores,
        sampled_tokens=told.get("sampled", count + more),
        prompt_tokens=told.get("prompt"),
        cached_tokens=cached,
        warnings=tuple(told.get("warnings", ())),
    )
    return Kept(completion, milliseconds / 1000)


def floats(values: Sequence[float]) -> tuple[bool, bytes]:
    """Whether they need 8 bytes each, and their bytes, plane by plane: what is alike stands together."""
    try:
        narrow = array("f", values)
        wide = any(a != b and not (math.isnan(a) and math.isnan(b)) for a, b in zip(values, narrow, strict=True))
    except OverflowError:
        narrow, wide = array("f"), True
    return wide, _planes(array("d", values), 8) if wide else _planes(narrow, 4)


def read_floats(body: bytes, place: int, count: int, *, wide: bool) -> tuple[list[float], int]:
    """`count` numbers that begin at `place`, and the place behind them."""
    width = 8 if wide else 4
    end = place + count * width
    return _numbers("d" if wide else "f", body[place:end], width).tolist(), end


def _planes(numbers: array[Any], width: int) -> bytes:
    """The low `width` bytes of each number: the lowest of all, then the next, and so on."""
    if sys.byteorder == "big":
        numbers.byteswap()
    data, size = numbers.tobytes(), numbers.itemsize
    return b"".join([data[place::size] for place in range(width)])


def _numbers(kind: str, planes: bytes, width: int) -> array[Any]:
    """Inverse of `_planes`."""
    numbers = array(kind)
    size, count = numbers.itemsize, len(planes) // width
    data = bytearray(size * count)
    for place in range(width):
        data[place::size] = planes[place * count : (place + 1) * count]
    numbers.frombytes(bytes(data))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
