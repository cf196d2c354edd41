"""What is tried again, and when."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from tts_search.generators.openai.waiting import may_pass, retry_after


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None), ({"retry-after": "7"}, 7.0), ({"retry-after": "0.5"}, 0.5), ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25), ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "soon"}, None), ({"retry-after": "nan"}, None), ({"retry-after": "-3"}, None),
        ({"retry-after": "1e999"}, float("inf")), ({"retry-after": "Thu, 99 Foo 9999999999 00:00:00 GMT"}, None),
        ({"retry-after": formatdate(0, usegmt=True)}, 0.0),
    ],
)  # fmt: skip
def test_how_long_a_server_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_server_may_name_a_time() -> None:
    wait = retry_after({"retry-after": formatdate(time.time() + 3600, usegmt=True)})
    assert wait is not None
    assert 3000 < wait <= 3600


@pytest.mark.parametrize(
    ("status", "headers", "again"),
    [
        (408, {}, True), (409, {}, True), (429, {}, True), (500, {}, True), (599, {}, True),
        (400, {}, False), (401, {}, False), (404, {}, False), (422, {}, False),
        (400, {"x-should-retry": "true"}, True), (500, {"x-should-retry": "false"}, False),
        (429, {"retry-after": "120"}, True), (429, {"retry-after": "121"}, False),
        (503, {"retry-after": "121", "x-should-retry": "true"}, False),
    ],
)  # fmt: skip
def test_what_may_be_another_the_next_time(status: int, headers: dict[str, str], again: bool) -> None:
    assert may_pass(status, headers) is again
