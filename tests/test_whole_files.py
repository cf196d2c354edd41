"""Files and folders are replaced whole or not at all; shards part questions by what they are."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_search.errors import InvalidInputError, StorageError
from tts_search.shards import Shard
from tts_search.whole_files import replacing, replacing_folder, write_atomically


def test_what_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "é")
    with pytest.raises(RuntimeError), replacing(path) as file:  # noqa: PT012
        file.write(b"half")
        raise RuntimeError
    assert path.read_text(encoding="utf-8") == "é"
    assert [place.name for place in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_is_said_with_the_file(number: int, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "before")
    with pytest.raises(StorageError, match=r"a\.txt cannot be written: .*make room"), replacing(path) as file:  # noqa: PT012
        file.write(b"half")
        raise OSError(number, os.strerror(number))
    assert path.read_text() == "before"
    with pytest.raises(PermissionError), replacing(path):
        raise PermissionError(errno.EACCES, "of something else")
    assert [place.name for place in tmp_path.iterdir()] == ["a.txt"]


def test_a_new_folder_appears_whole_and_what_a_kill_left_is_cleared(tmp_path: Path) -> None:
    place = tmp_path / "head"
    left = tmp_path / ".head.partial"
    left.mkdir()
    (left / "half").write_text("of an earlier run")
    with replacing_folder(place) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("1")
        assert not place.exists()
    assert sorted(p.name for p in place.rglob("*")) == ["a", "sub"]
    assert not left.exists()


def test_in_a_folder_that_is_there_only_our_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "head").mkdir()
    for name in ("mine", "theirs"):
        (tmp_path / "head" / name).write_text("old")
    with replacing_folder(tmp_path / "head") as folder:
        (folder / "mine").write_text("new")
    assert {p.name: p.read_text() for p in (tmp_path / "head").iterdir()} == {"mine": "new", "theirs": "old"}
    with pytest.raises(RuntimeError), replacing_folder(tmp_path / "head") as folder:  # noqa: PT012
        (folder / "mine").write_text("half")
        raise RuntimeError
    assert (tmp_path / "head" / "mine").read_text() == "new"
    assert [place.name for place in tmp_path.iterdir()] == ["head"]


@given(question=st.text() | st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": st.text()})))
def test_every_question_is_in_one_shard(question: object) -> None:
    assert sum(Shard(i, 5).holds(question) for i in range(5)) == 1
    assert Shard(0, 1).holds(question)


def test_shards_stay_what_they_are() -> None:
    """Other machines and later versions must agree."""
    assert [next(i for i in range(7) if Shard(i, 7).holds(f"What is {n}?")) for n in range(8)] == SHARDS


SHARDS = [4, 1, 5, 3, 0, 1, 1, 2]


@pytest.mark.parametrize("text", ["", "1", "3/3", "-1/3", "a/b", "1/0", "1/3/5", "0/x"])
def test_what_is_no_shard_is_said(text: str) -> None:
    with pytest.raises(InvalidInputError, match="a shard is i/n"):
        Shard.read(text)
    assert str(Shard.read("2/3")) == "2/3"
