"""The layers of the package hold: `lint-imports` reads pyproject.toml."""

import ast
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import tts_search

PACKAGE = Path(tts_search.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def test_import_contracts() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([command, "--no-cache"], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("path", sorted((PACKAGE / "strategies").glob("*.py")), ids=lambda p: p.name)
def test_a_strategy_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 85


def test_no_two_modules_have_one_name() -> None:
    engines = {path for path in MODULES if path.name == "generator.py" and path.parts[-3] == "generators"}
    names = Counter(path.name for path in MODULES if path.name != "__init__.py" and path not in engines)
    assert not [name for name, count in names.items() if count > 1]


def test_the_wheel_holds_the_package_alone() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"] == {"packages": ["tts_search"]}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_module_says_what_it_does(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
