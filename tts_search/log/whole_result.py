"""A whole result as bytes and back: what is kept of a search that the clock ended, and that no replay could find again.

The JSON of `export.saved`, with the columns of numbers taken out of it and written as numbers. That module is imported
when it is needed: the libraries under it take as long as all of ours.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence

from tts_search.core.result import SearchResult
from tts_search.log.columns import floats, read_floats


def pack_result(result: SearchResult) -> bytes:
    """The bytes of a result; in its tree the head's logits at step tokens alone, as `columns.only_steps` has them."""
    from tts_search.export.saved import to_json

    saved = json.loads(to_json(result))
    columns = b""
    if result.tree is not None:
        step_ids = result.tree.segmenter.step_ids
        saved["tree"] |= {"prompt": "", "texts": []}  # for human readers: nobody reads them back
        for node, values in zip(result.tree.nodes, saved["tree"]["nodes"], strict=True):
            scores = node.token_scores
            steps = [place for place, token in enumerate(node.ids) if token in step_ids] if scores is not None else []
            values["logprobs"] = len(node.logprobs)
            values["token_scores"] = None if scores is None else steps
            columns += _column(node.logprobs) + _column(
                [scores[place] for place in steps] if scores is not None else []
            )
    text = json.dumps(saved).encode()
    return zlib.compress(len(text).to_bytes(4) + text + columns, 6)


def unpack_result(content: bytes) -> SearchResult:
    """Inverse of `pack_result`."""
    from tts_search.export.saved import from_json

    data = zlib.decompress(content)
    place = 4 + int.from_bytes(data[:4])
    saved = json.loads(data[4:place])
    for values in (saved["tree"] or {}).get("nodes", ()):
        steps = values["token_scores"]
        values["logprobs"], place = _read(data, place, values["logprobs"])
        known, place = _read(data, place, len(steps or ()))
        if steps is not None:
            scores = [math.nan] * len(values["token_ids"])
            for step, score in zip(steps, known, strict=True):
                scores[step] = score
            values["token_scores"] = scores
    return from_json(json.dumps(saved))


def _column(values: Sequence[float]) -> bytes:
    wide, column = floats(values)
    return bytes((wide,)) + column


def _read(data: bytes, place: int, count: int) -> tuple[list[float], int]:
    return read_floats(data, place + 1, count, wide=bool(data[place]))
