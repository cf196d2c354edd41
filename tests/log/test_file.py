"""The file: whole records or none, whoever is killed; foreign and damaged files are left as they were."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tts_search.errors import InvalidInputError, TTSError
from tts_search.log import SearchLog
from tts_search.log.file import HEADER
from tts_search.log.frames import KEY_BYTES
from tts_search.log.index import OffsetIndex
from tts_search.log.numbers import write_number

KEYS = [bytes((i,)) * KEY_BYTES for i in range(20)]
CONTENTS = [bytes((i,)) * (i * 13) for i in range(20)]


def write(path: Path) -> None:
    with SearchLog(path) as log:
        for key, content in zip(KEYS, CONTENTS, strict=True):
            log.add(b"g", key, content)


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.log"
    write(path)
    before = path.read_bytes()
    with SearchLog(path) as log:
        assert len(log) == 20
        assert [log.get(b"g", key) for key in KEYS] == CONTENTS
        assert log.get(b"v", KEYS[3]) is None, "another kind is another record"
        log.add(b"g", KEYS[3], b"other")
        log.add(b"v", KEYS[3], b"scores")
        assert log.get(b"g", KEYS[3]) == CONTENTS[3], "a key keeps what it has"
        assert log.get(b"v", KEYS[3]) == b"scores"
    assert path.read_bytes().startswith(before), "nothing that was written is written over"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 3000))
def test_cut_off_anywhere_it_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.log"
    path.unlink(missing_ok=True)
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    with SearchLog(path, write=False) as log:
        known = [key for key in KEYS if log.get(b"g", key) is not None]
    assert path.read_bytes() == whole[:cut], "reading mends nothing"
    assert known == KEYS[: len(known)]
    write(path)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"{}\n", b"tts-search log 2\n", b"\x00", HEADER[:-1] + b"\r\n"])
def test_what_is_not_ours_is_refused_and_left(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="no log of searches"):
        SearchLog(path)
    assert path.read_bytes() == content


def write_as_before(path: Path) -> None:
    """A log whose frames have no check of their length, as they had once."""
    bodies = [b"g" + key + content for key, content in zip(KEYS, CONTENTS, strict=True)]
    frames = [write_number(len(body)) + body + zlib.crc32(body).to_bytes(4) for body in bodies]
    path.write_bytes(HEADER + b"".join(frames))


@pytest.mark.parametrize("make", [write, write_as_before])
def test_any_wrong_bit_is_refused_and_left(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    make(path)
    whole = path.read_bytes()
    frames = len(HEADER) + 600  # of every length that a number of one byte and of two says
    places = [*range(len(HEADER), frames), *range(frames, len(whole), 7), *range(len(whole) - 300, len(whole))]
    for place in places:
        for bit in range(8):
            content = bytearray(whole)
            content[place] ^= 1 << bit
            path.write_bytes(content)
            for writes in (True, False):
                with pytest.raises(InvalidInputError, match="damaged at byte"):
                    SearchLog(path, write=writes)
            assert path.read_bytes() == content


@pytest.mark.parametrize("make", [write, write_as_before])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(min_size=1, max_size=300).filter(lambda text: not text.startswith("\x01")))
@example(text="my notes that somebody appended to it by mistake\n")
@example(text="e")
@example(text="\x00" * 4096)  # as after a loss of power
def test_what_was_written_behind_it_is_refused_and_left(
    make: Callable[[Path], None], text: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.log"
    path.unlink(missing_ok=True)
    make(path)
    content = path.read_bytes() + text.encode()
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="damaged at byte"):
        SearchLog(path)
    assert path.read_bytes() == content


def test_a_log_as_it_was_written_before_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    write_as_before(path)
    before = path.read_bytes()
    with SearchLog(path) as log:
        assert [log.get(b"g", key) for key in KEYS] == CONTENTS
        log.add(b"v", KEYS[3], b"scores")
    with SearchLog(path) as log:
        assert [record.content for record in log] == [*CONTENTS, b"scores"]
    assert path.read_bytes().startswith(before)


def test_a_file_that_is_cut_off_while_it_is_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    write(path)
    with SearchLog(path, write=False) as log:
        os.truncate(path, len(HEADER) + 5)
        with pytest.raises(InvalidInputError, match="cut off since it was opened"):
            log.get(b"g", KEYS[19])


def test_one_process_writes_and_others_read(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with SearchLog(path) as log:
        log.add(b"g", KEYS[0], b"one")
        with pytest.raises(InvalidInputError, match="in use"):
            SearchLog(path)
        with SearchLog(path, write=False) as reader:
            assert reader.get(b"g", KEYS[0]) == b"one"
            with pytest.raises(TTSError, match="not open to be written"):
                reader.add(b"g", KEYS[1], b"two")


def test_a_full_disk_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.log"
    with SearchLog(path) as log:
        log.add(b"g", KEYS[0], b"one")
        before, write_bytes = path.read_bytes(), os.write

        def half(file: int, data: memoryview) -> int:
            if len(data) > 50:
                return write_bytes(file, data[:50])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(TTSError, match="No space left"):
            log.add(b"g", KEYS[1], b"x" * 80)
        monkeypatch.undo()
        assert path.read_bytes() == before
        log.add(b"g", KEYS[1], b"two")
    with SearchLog(path) as log:
        assert log.get(b"g", KEYS[1]) == b"two"


@settings(max_examples=20)
@given(keys=st.dictionaries(st.binary(min_size=12, max_size=12), st.integers(1, 1 << 40), min_size=1, max_size=3000))
def test_the_index_is_a_dict(keys: dict[bytes, int]) -> None:
    index, expected = OffsetIndex(), dict[bytes, int]()
    for key, offset in keys.items():
        index.put(key, offset)
        expected[key[:8]] = offset
    assert {key: index.get(key) for key in expected} == expected
    assert len(index) == len(expected)
    assert index.get(b"\xff" * 12) == expected.get(b"\xff" * 8)


@pytest.mark.parametrize("size", [0, 3])
def test_a_full_disk_leaves_the_beginning_as_it_was(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(HEADER[:size])

    def full(file: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(TTSError, match=r"No space left on device.*make room"):
        SearchLog(path)
    monkeypatch.undo()
    assert path.read_bytes() == HEADER[:size]
    SearchLog(path).close()
    assert path.read_bytes() == HEADER


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, why in (
        ("/dev/null", "no file"),
        (tmp_path / "pipe", "no file"),
        (tmp_path, "no file"),
        ("a\0b", "null"),
    ):
        with pytest.raises(InvalidInputError, match=f"cannot be written: .*{why}.*name another file"):
            SearchLog(path)
    with pytest.raises(InvalidInputError, match=r"cannot be read: .*null"):
        SearchLog("a\0b", write=False)


def test_a_closed_log_says_so(tmp_path: Path) -> None:
    write(tmp_path / "a.log")
    log = SearchLog(tmp_path / "a.log")
    log.close()
    with pytest.raises(InvalidInputError, match="was closed: open it again"):
        log.get(b"g", KEYS[0])
    with pytest.raises(TTSError, match="not open to be written"):
        log.add(b"g", KEY_BYTES * b"?", b"more")
