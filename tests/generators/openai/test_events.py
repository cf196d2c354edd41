"""Events out of bytes: whatever the packets, the same events; whatever the server, bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_search.generators.openai.sse import MOST_BYTES, MOST_IDLE_LINES, EventDecoder, FloodError

lines = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20).map(str.encode)
events = st.lists(st.lists(lines, min_size=1, max_size=3), max_size=5)
fillings = st.sampled_from([b"", b": still here", b"event: x", b"id: 7", b"retry: 10", b"nonsense"])


@given(events=events, end=st.sampled_from([b"\n", b"\r\n"]), data=st.data())
def test_events_do_not_depend_on_packets(events: list[list[bytes]], end: bytes, data: st.DataObject) -> None:
    space = data.draw(st.sampled_from([b"data: ", b"data:"])) if all(
        not line.startswith(b" ") for event in events for line in event
    ) else b"data: "  # fmt: skip
    stream = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    for event in events:
        filling = data.draw(fillings)
        stream += (filling + end if filling else b"") + b"".join(space + line + end for line in event) + end
    decoder, found, rest = EventDecoder(), [], stream
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        found += decoder.feed(rest[:size])
        rest = rest[size:]
    found += decoder.feed(b"\n")  # a last carriage return waits for what comes behind it
    assert found == [b"\n".join(event) for event in events]


def feed(decoder: EventDecoder, block: bytes, times: int) -> None:
    for _ in range(times):
        decoder.feed(block)


def test_an_event_of_any_use_passes_and_a_longer_one_does_not() -> None:
    decoder, piece = EventDecoder(), b"x" * 2**16
    decoder.feed(b"data: ")
    for _ in range(MOST_BYTES // 2**16 - 1):
        decoder.feed(piece)
    (event,) = decoder.feed(b"\n\n")
    assert len(event) > MOST_BYTES - 2**17
    assert decoder.feed(b"data: short\n\n") == [b"short"], "the next begins anew"
    with pytest.raises(FloodError, match="event of more than"):
        feed(decoder, piece, MOST_BYTES // 2**16 + 2)


def test_a_stream_of_many_events_may_be_longer_than_one() -> None:
    decoder, event = EventDecoder(), b"data: " + b"x" * 2**20 + b"\n\n"
    assert sum(len(decoder.feed(event)) for _ in range(40)) == 40


@pytest.mark.parametrize("line", [b"data: x\n", b"data:" + b"x" * 2**15 + b"\n"])
def test_an_event_of_many_lines_has_an_end_too(line: bytes) -> None:
    block = line * (2**16 // len(line))
    with pytest.raises(FloodError, match="event of more than"):
        feed(EventDecoder(), block, 2 * MOST_BYTES // len(block))


@pytest.mark.parametrize("line", [b"\n", b": still here\n", b"event: ping\n\n"])
def test_fillings_have_an_end(line: bytes) -> None:
    decoder = EventDecoder()
    for _ in range(3):
        decoder.feed(line * (MOST_IDLE_LINES // 2 - 1))
        assert decoder.feed(b"data: x\n\n") == [b"x"]
    with pytest.raises(FloodError, match="in a row without data"):
        decoder.feed(line * (MOST_IDLE_LINES + 1))
