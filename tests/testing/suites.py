"""Runs a conformance suite on a plug-in without pytest: whole, or with one of its checks weakened."""

from __future__ import annotations

import ast
import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tts_search.testing.conformance import GeneratorConformance, ScorerConformance, StrategyConformance

MAKERS: Mapping[type, str] = {
    GeneratorConformance: "make_generator",
    ScorerConformance: "make_scorer",
    StrategyConformance: "make_strategy",
}


@dataclass(frozen=True, kw_only=True)
class PlugIn:
    """What a suite is tried on: `make` makes it, and `fails` names the one test that must fail, None where none may.

    `options` override attributes of the suite, as its user may.
    """

    suite: type
    what: str
    make: Callable[[], object]
    fails: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.what


def labelled(suite: type) -> dict[str, tuple[str, dict[str, Any]]]:
    """The tests of a suite as pytest names them; of each the method, and the values of its parameters."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, method in vars(suite).items():
        if not name.startswith("test_"):
            continue
        marks = [mark for mark in getattr(method, "pytestmark", []) if mark.name == "parametrize"]
        if not marks:
            found[name] = (name, {})
        for mark in marks:
            argument, values = mark.args[0], list(mark.args[1])
            for label, value in zip(mark.kwargs.get("ids") or values, values, strict=True):
                found[f"{name}[{label}]"] = (name, {argument: value})
    return found


def failing(plug_in: PlugIn, suite: type | None = None, only: str | None = None) -> set[str]:
    """The tests that fail; `suite` is a weakened copy of the plug-in's, `only` the one test to run."""
    suite = suite or plug_in.suite
    ready: Any = type("Suite", (suite,), {MAKERS[plug_in.suite]: lambda _: plug_in.make(), **plug_in.options})
    engine: Any = None
    if plug_in.suite is GeneratorConformance:
        engine = suite.check.__globals__["Engine"](ready().make_generator, ready.timeout_seconds)  # type: ignore[attr-defined]
        ready._engine = engine
    failed = set[str]()
    for label, (name, values) in labelled(suite).items():
        if only not in (None, label):
            continue
        try:
            with contextlib.suppress(pytest.skip.Exception):
                getattr(ready(), name)(**({} if engine is None else {"engine": engine}), **values)
        except (Exception, pytest.fail.Exception):
            failed.add(label)
    if engine is not None:
        engine.close()
    return failed


@dataclass(frozen=True)
class Weakening:
    """The `number`-th of the ways to ask less of a plug-in: a check left out, half of it, or an error taken for any."""

    suite: type
    number: int
    what: str

    def __str__(self) -> str:
        return self.what

    def apply(self) -> type:
        """The weakened suite."""
        tree = _parsed(self.suite)
        ast.fix_missing_locations(_Weaken(self.suite.__name__, self.number).visit(tree))
        names: dict[str, Any] = {"__name__": self.suite.__module__}
        exec(compile(tree, inspect.getfile(self.suite), "exec"), names)
        return names[self.suite.__name__]


def unrewritten(suite: type) -> type:
    """The suite as it is, its assertions not rewritten by pytest."""
    return Weakening(suite, -1, "nothing").apply()


def weakenings(suite: type) -> Iterator[Weakening]:
    """All of them."""
    finder = _Weaken(suite.__name__, None)
    finder.visit(_parsed(suite))
    for number, what in enumerate(finder.found):
        yield Weakening(suite, number, what)


def _parsed(suite: type) -> ast.Module:
    module = inspect.getmodule(suite)
    assert module is not None
    return ast.parse(inspect.getsource(module))


class _Weaken(ast.NodeTransformer):
    """Finds the checks of a suite's methods, and weakens the one with the number `target`."""

    def __init__(self, suite: str, target: int | None) -> None:
        self._suite, self._target = suite, target
        self._method = ""
        self._asserting = False
        self.found: list[str] = []

    def _is_it(self, what: str, node: ast.AST) -> bool:
        self.found.append(f"{self._method}: {what} {ast.unparse(node).splitlines()[0]}")
        return len(self.found) - 1 == self._target

    def visit_Module(self, node: ast.Module) -> ast.Module:
        for part in node.body:
            if isinstance(part, ast.ClassDef) and part.name == self._suite:
                self.generic_visit(part)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        if node.name == "check" or node.name.startswith("test_"):
            self._method = node.name
            node.body = [self.visit(statement) for statement in node.body]
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        if self._is_it("without", node):
            return ast.Pass()
        self._asserting = True
        node.test = self.visit(node.test)
        self._asserting = False
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        if self._asserting and isinstance(node.op, ast.And):
            for value in node.values:
                if self._is_it(f"without {ast.unparse(value)!r} in", node):
                    return ast.BoolOp(node.op, [other for other in node.values if other is not value])
        return self.generic_visit(node)  # type: ignore[return-value]

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        if self._asserting and len(node.ops) == 2:
            left, middle, right = node.left, *node.comparators
            if self._is_it("the left half of", node):
                return ast.Compare(left, node.ops[:1], [middle])
            if self._is_it("the right half of", node):
                return ast.Compare(middle, node.ops[1:], [right])
        return self.generic_visit(node)  # type: ignore[return-value]

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        skips = ast.unparse(node).startswith("pytest.skip")
        if isinstance(node.value, ast.Call | ast.Await) and not skips and self._is_it("without", node):
            return ast.Pass()
        return node

    def visit_With(self, node: ast.With) -> ast.With:
        call = node.items[0].context_expr
        if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.raises"):
            node.body = [self.visit(statement) for statement in node.body]
        else:
            if self._is_it("no error is as good in", node):
                node.items[0].context_expr = ast.parse("__import__('contextlib').suppress(Exception)", mode="eval").body
            if self._is_it("any error is as good in", node):
                call.args = [ast.Name("Exception", ast.Load())]
            if call.keywords and self._is_it("any message is as good in", node):
                call.keywords = []
        return node
