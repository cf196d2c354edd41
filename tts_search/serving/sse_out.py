"""Objects as the lines of a stream of server-sent events, and as JSON bodies."""

from __future__ import annotations

import json
from typing import Any

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"


def data(value: Any, event: str | None = None) -> bytes:
    """One event."""
    head = b"" if event is None else f"event: {event}\n".encode()
    return head + b"data: " + body(value) + b"\n\n"


def body(value: Any) -> bytes:
    """JSON of one line. Half a character, which UTF-8 cannot hold, becomes a question mark."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
