"""What a server allows: at once, a request, a key. All of it is set where the server is started."""

from __future__ import annotations

from dataclasses import dataclass

from tts_search.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Defaults are safe for a stranger's machine; a client's usual timeout is 600 s.

    `concurrency` searches run at once, `waiting` more may wait for their turn, and all their budgets together are no
    more than `promised_tokens`. `request_tokens` caps the budget of one request, `request_seconds` its search. Of what
    is over, `kept` searches, and no more than `kept_tokens` of sampled text, can be looked at for `kept_seconds`.
    An engine that dies is opened anew `restarts` times in a row, None for as long as it takes.
    `linger_seconds`: how long a search goes on whose client left before it heard anything, for a retry to join it.
    """

    concurrency: int = 64
    waiting: int = 256
    promised_tokens: int | None = None
    request_tokens: int | None = None
    request_seconds: float = 540.0
    body_bytes: int = 2 << 20
    messages: int = 1000
    kept: int = 128
    kept_tokens: int = 4_000_000
    kept_seconds: float = 1800.0
    keep_alive_seconds: float = 15.0
    linger_seconds: float = 0.6
    drain_seconds: float = 30.0
    restarts: int | None = 3

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            least = (
                0 if name in ("waiting", "kept", "kept_tokens", "linger_seconds", "drain_seconds", "restarts") else 1
            )
            if name in ("keep_alive_seconds", "request_seconds", "kept_seconds"):
                least = 0.01
            if value is not None and not value >= least:
                raise InvalidInputError(f"{name} must be at least {least}, got {value!r}")
