"""Modules, files and functions that the docs and docstrings name are there."""

import re
from pathlib import Path

import pytest

import tts_search

PACKAGE = Path(tts_search.__file__).parent
ROOT = PACKAGE.parent
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
READ = [*ROOT.glob("*.md"), *ROOT.glob("*.toml")]
READ += [
    path for room in ("docs", "examples", "tools", "tts_search") for path in sorted((ROOT / room).rglob("*.[mp][dy]"))
]
ROWS = re.findall(r"^\| `([\w/]+\.py)` \| (.+?) \|$", GUIDE, re.MULTILINE)


@pytest.mark.parametrize("path", READ, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_dotted_name_leads_to_a_module_or_into_one(path: Path) -> None:
    names = set(re.findall(r"\b(?:tts_search|tools)(?:\.[A-Za-z]\w*)+", path.read_text()))
    assert not [name for name in names if not leads_somewhere(name)]


def leads_somewhere(name: str) -> bool:
    place, *parts = (ROOT / name.split(".")[0], *name.split(".")[1:])
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    place = place / f"{parts.pop(0)}.py" if parts and (place / f"{parts[0]}.py").is_file() else place / "__init__.py"
    return place.is_file() and (not parts or re.search(rf"(?<![\w.]){parts[0]}\b", place.read_text()) is not None)


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name)
def test_every_file_of_the_docs_is_there(page: Path) -> None:
    files = re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text())
    assert not [file for file in files if not any((root / file).is_file() for root in (ROOT, PACKAGE))]


def test_every_room_stands_in_the_guide() -> None:
    table = GUIDE[GUIDE.index("## Where things live") : GUIDE.index("## A path through the code")]
    told = {
        name for cell in re.findall(r"^\| (`.+?`) \|", table, re.MULTILINE) for name in re.findall(r"`(.+?)`", cell)
    }
    rooms = {f"{place.name}/" for place in PACKAGE.iterdir() if (place / "__init__.py").is_file()}
    modules = {place.name for place in PACKAGE.glob("*.py") if not place.name.startswith("__")}
    assert told == rooms | modules


@pytest.mark.parametrize(("path", "text"), ROWS, ids=[f"{number} {path}" for number, (path, _) in enumerate(ROWS)])
def test_what_the_path_through_the_code_names_stands_there(path: str, text: str) -> None:
    source = (PACKAGE / path).read_text()
    for name in re.findall(r"`([\w.]+)\(\)`", text):
        owner, _, function = name.rpartition(".")
        assert re.search(rf"^ *(async )?def {function}\b", source, re.MULTILINE), f"{name} is not in {path}"
        assert not owner or re.search(rf"^class {owner}\b", source, re.MULTILINE), f"{owner} is not in {path}"


def test_the_path_through_the_code_is_read() -> None:
    assert len(ROWS) > 30
