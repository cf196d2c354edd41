"""Tells a request's `on_delta` of each sample's tokens as they come: in order, each once, and none behind its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tts_search.core.protocols import Request

OnDelta = Callable[[int, tuple[int, ...]], None]
"""Called with the index of a seed, and the ids that have come for it since the last call."""


class Listener:
    """What one sample's tokens are told to."""

    def __init__(self, on_delta: OnDelta, sample: int, stop_ids: frozenset[int]) -> None:
        self._on_delta = on_delta
        self._sample = sample
        self._stop_ids = stop_ids
        self._told = 0
        self._ended = False

    def hear(self, ids: Sequence[int]) -> None:
        """All ids of the sample so far."""
        new: list[int] = []
        for token in ids[self._told :]:
            if self._ended:
                break
            new.append(token)
            self._ended = token in self._stop_ids
        self._told += len(new)
        if new:
            self._on_delta(self._sample, tuple(new))


def listeners(request: Request) -> dict[int, list[Listener]]:
    """The listeners of each seed, of which there may be several; none where nobody listens."""
    on_delta: OnDelta | None = request.on_delta
    found: dict[int, list[Listener]] = {}
    if on_delta is not None:
        for index, seed in enumerate(request.seeds):
            found.setdefault(seed, []).append(Listener(on_delta, index, request.stop_ids))
    return found
