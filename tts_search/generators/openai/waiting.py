"""When a request that failed is worth another attempt, and how long its server asks to wait. It reads headers alone.

The rules are those of OpenAI's own client, which servers are written for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz

MOST_SECONDS = 120.0
"""A server that asks to wait longer is not asked again."""


def may_pass(status: int, headers: Mapping[str, str]) -> bool:
    """Whether what a server answered may be another the next time: it says so, or the status does."""
    wait = retry_after(headers)
    if wait is not None and wait > MOST_SECONDS:
        return False
    said = headers.get("x-should-retry")
    return said == "true" or (said != "false" and (status in (408, 409, 429) or status >= 500))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, by a number or by a date; None where it does not ask."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        return None if math.isnan(seconds) or seconds < 0 else seconds
    date = parsedate_tz(headers.get("retry-after"))
    try:
        return None if date is None else max(0.0, mktime_tz(date) - time.time())
    except (ValueError, OverflowError):
        return None
