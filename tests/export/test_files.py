"""Saving by suffix, whole or not at all; the terminal's tree; the plot."""

import errno
import os
from pathlib import Path

import pytest
from rich.console import Console

from tests.export.searches import Grow, run
from tts_search import BestOfN, SearchResult, Until
from tts_search.errors import InvalidInputError
from tts_search.export import from_json, plot, rich_tree, save
from tts_search.export.text_tree import to_text
from tts_search.testing import FakeGenerator

SIGNS = {
    ".html": b"<!DOCTYPE html>",
    ".json": b'{"format":"tts-search"',
    ".graphml": b"<?xml",
    ".png": b"\x89PNG",
    ".svg": b"<?xml",
    ".pdf": b"%PDF",
    ".txt": b"How many apples?",
}


@pytest.mark.parametrize("suffix", SIGNS)
def test_the_suffix_says_the_format(result: SearchResult, tmp_path: Path, suffix: str) -> None:
    path = save(result, tmp_path / f"search{suffix.upper()}")
    assert path.read_bytes().startswith(SIGNS[suffix])
    assert list(tmp_path.iterdir()) == [path]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("suffix", SIGNS)
def test_hostile_text_is_saved_in_every_format(hostile: SearchResult, tmp_path: Path, suffix: str) -> None:
    assert save(hostile, tmp_path / f"search{suffix}").stat().st_size > 100


def test_an_unknown_suffix(result: SearchResult, tmp_path: Path) -> None:
    for name in ("search.xlsx", "search"):
        with pytest.raises(InvalidInputError, match=r"\.html, \.json, \.graphml, \.png, \.svg, \.pdf, \.txt"):
            save(result, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(result: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "search.json"
    save(result, path)
    old = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(run(BestOfN(n=2)), path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_replaced_file_keeps_its_mode_and_a_link_its_target(result: SearchResult, tmp_path: Path) -> None:
    path, link = tmp_path / "search.json", tmp_path / "link.json"
    path.write_text("old")
    path.chmod(0o600)
    link.symlink_to(path)
    save(result, link)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    assert from_json(path.read_bytes()).answer == result.answer


def test_the_terminal_shows_every_node(result: SearchResult) -> None:
    text = to_text(result)
    assert result.tree is not None
    assert all(f"#{node.index} " in text for node in result.tree.nodes[1:])
    assert text.count("★") == len([c for c in text.splitlines() if "★ #" in c]) + 1  # and once in the legend


def test_the_terminal_shortens_large_trees_and_keeps_the_chosen_path() -> None:
    result = run(Grow(rounds=60), FakeGenerator(close=0.02), max_tokens=3000)
    assert result.tree is not None
    text = to_text(result, max_nodes=20)
    assert "more node" in text
    hidden = sum(int(line.split("…")[1].split()[0]) for line in text.splitlines() if "more node" in line)
    shown = sum(" #" in line for line in text.splitlines()[3:-2])
    assert hidden + shown == len(result.tree) - 1


def test_a_terminal_obeys_no_escape(hostile: SearchResult) -> None:
    console = Console(record=True, width=200, color_system="truecolor", force_terminal=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(rich_tree(hostile))
    text = console.export_text(styles=False)
    assert "\x1b" not in text
    assert "\x00" not in text
    assert "<script>" in text


@pytest.mark.parametrize("rounds", [0, 1, 8, 75])
@pytest.mark.parametrize("steps", [False, True])
def test_the_plot_draws_any_size(rounds: int, steps: bool) -> None:
    result = run(Grow(rounds=rounds), FakeGenerator(close=0.02), max_tokens=3000, question="$x_1 and $y?")
    figure = plot(result, steps=steps, visits={1: 3} if steps else None)
    figure.canvas.draw()
    assert len(figure.axes) == (2 if any(n.step_scores for n in result.tree or ()) else 1)


def test_the_plot_of_an_unscored_search() -> None:
    figure = plot(run(Grow(rounds=3, until=Until.THOUGHT), scorer=None, selector="majority"), title="mine")
    figure.canvas.draw()
    assert len(figure.axes) == 1
