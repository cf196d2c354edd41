"""What tells engines, scorers and functions apart in a log, in every process, and what of them is written there."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tts_search import BestOfN, Searcher
from tts_search.generators.openai.chat import ChatGenerator
from tts_search.log.identity import identity, identity_of_engine
from tts_search.testing import FakeGenerator, FakeScorer

URL = "http://alice:hunter2-long@127.0.0.1:1/v1"


def chat(url: str = URL, **options: Any) -> dict[str, Any]:
    """Of a chat service that is asked nothing."""
    generator = ChatGenerator(url, **{"model": "m", "context_tokens": 1000, **options})
    asyncio.run(generator.aclose())
    return identity_of_engine(generator)


@pytest.mark.parametrize(
    "other",
    [{"url": "http://127.0.0.1:2/v1"}, {"model": "n"}, {"logprobs": False}, {"extra_body": {"effort": "low"}}],
    ids=lambda other: next(iter(other)),
)
def test_what_decides_what_a_chat_service_returns_tells_it_apart(other: dict[str, Any]) -> None:
    assert chat() == chat()
    assert chat(**other) != chat()


def test_a_chat_services_credentials_do_not() -> None:
    assert chat("http://127.0.0.1:1/v1", api_key="sk-0123456789") == chat()
    assert "hunter2" not in str(chat())


class Judge:
    def __init__(self, **held: Any) -> None:
        self.__dict__.update(held)

    def stop(self, tree: Any) -> bool:
        return not tree

    def keep(self, name: str, value: Any) -> None:
        self.__dict__[name] = value


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


@dataclass
class Named:
    held: Any


class Weird:
    def __repr__(self) -> str:
        raise RuntimeError


def over(tree: Any, limit: Any = 0, *, more: Any = None) -> bool:
    return len(tree) >= limit


def within(limit: Any) -> Callable[..., bool]:
    def stop(tree: Any) -> bool:
        return len(tree) >= limit

    return stop


def by_default(limit: Any) -> Callable[..., bool]:
    def stop(tree: Any, limit: Any = limit) -> bool:
        return len(tree) >= limit

    return stop


def by_name(limit: Any) -> Callable[..., bool]:
    def stop(tree: Any, *, limit: Any = limit) -> bool:
        return len(tree) >= limit

    return stop


def written(limit: Any) -> Callable[..., bool]:
    names: dict[str, Any] = {}
    exec(f"def stop(tree): return tree in (1, {limit!r})", names)
    return names["stop"]


def written_within(limit: Any) -> Callable[..., bool]:
    names: dict[str, Any] = {}
    exec(f"def stop(tree): return (lambda: tree == {limit!r})()", names)
    return names["stop"]


def by_global(limit: Any) -> Callable[..., bool]:
    names: dict[str, Any] = {"LIMIT": limit}
    exec("def stop(tree): return len(tree) >= LIMIT", names)
    return names["stop"]


MAKERS: list[Callable[[Any], Any]] = [
    within,
    by_default,
    by_name,
    written,
    written_within,
    by_global,
    lambda limit: partial(over, limit=limit),
    lambda limit: partial(over, limit),
    lambda limit: Judge(limit=limit).stop,
    lambda limit: Judge(limit=limit),
    lambda limit: Judge(limits=[1, {"a": (2, limit)}]),
    lambda limit: Judge(judge=Judge(limit=limit)),
    lambda limit: Judge(api_key=f"sk-{limit}"),
    lambda limit: Judge(headers={"X": [limit]}),
    lambda limit: Judge(words=[0] * 10_000 + [limit]),
    lambda limit: Judge(stop=within(limit)),
    lambda limit: Slotted([limit]),
    lambda limit: Named({"a": limit}),
    lambda limit: {1: 2}.get if limit == 5 else {1: 3}.get,
    lambda limit: memoryview(bytes(5_000) + bytes([limit])).tobytes(),
    lambda limit: {limit, 7},
]


@pytest.mark.parametrize("make", MAKERS, ids=range(len(MAKERS)))
def test_what_differs_in_what_it_holds_is_told_apart(make: Callable[[Any], Any]) -> None:
    first, second, third = make(5), make(5), make(60)
    assert identity(first) == identity(second)
    assert identity(first) != identity(third)
    assert len(json.dumps(identity(first))) < 6000 or isinstance(first, bytes)


@pytest.mark.parametrize(
    "make",
    [object, Weird, lambda: iter([1]), lambda: Judge(a=object()), lambda: Named([object()]), lambda: [[[[[[[[1]]]]]]]]],
    ids=range(6),
)
def test_what_cannot_be_told_is_told_as_different(make: Callable[[], Any]) -> None:
    first, second = make(), make()
    assert identity(first) != identity(second)


def test_what_cannot_be_told_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Held(Judge):
        def score(self, trajectories: Any) -> Any:
            return [[0.5] * t.step_count for t in trajectories]

    for name, held in (("a", [1]), ("b", [0] * 5000 + [object()])):
        caplog.clear()
        with Searcher(generator=FakeGenerator(), scorer=Held(held=held)) as searcher:
            searcher.search("Why?", strategy=BestOfN(n=2), stop_when=within(held[-1]), log=tmp_path / name)
        said = [message.partition(" holds")[0] for message in caplog.messages if "fingerprint" in message]
        assert said == ([] if name == "a" else ["the scorer", "stop_when"])


def test_what_an_object_does_makes_it_no_other() -> None:
    judge, counts = Judge(count=0, lock=threading.Lock(), event=threading.Event()), list[int]()

    def stop(tree: Any) -> bool:
        counts.append(1)
        return len(counts) > 3

    before = identity(judge), identity(stop)
    judge.keep("count", 7)
    stop(None)
    assert (identity(judge), identity(stop)) == before
    loaded = Judge(fingerprint="one")
    assert identity(loaded) == "one"
    loaded.keep("fingerprint", "two")
    assert identity(loaded) == "two", "it says itself what it is"
    held = Named(4)
    told = identity(held)
    held.held = 5
    assert identity(held) != told, "a dataclass is what its fields say"


def test_what_holds_itself_is_told() -> None:
    judges = [Judge(number=4), Judge(number=4), Judge(number=5)]
    for judge in judges:
        judge.keep("me", [judge])
    first, second, third = map(identity, judges)
    assert first == second != third


def test_it_is_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(
        "import json, threading\nfrom functools import partial\n"
        "from tts_search.log.identity import identity\n"
        "LIMIT = 4\n"
        "class Judge:\n"
        "    def __init__(self): self.held = [1, {'a', 'b', 'c'}, threading.RLock(), print, {'k': (1, 2)}]\n"
        "def stop(tree, a=frozenset('abc')): return tree in {1, 2, 'x'} or [t for t in a if LIMIT]\n"
        "print(json.dumps([identity(one) for one in (Judge(), stop, partial(stop, a=Judge()), Judge().__init__)]))\n"
    )
    said = [
        subprocess.run([sys.executable, "theirs.py"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert said[0] == said[1]
    assert "unknown" not in said[0]


SECRETS = [
    Judge(url="https://judge.example", api_key="sk-judge-1"),
    Judge(client=Judge(headers={"X": "sk-judge-1"})),
    Judge(options={"user_token": ["sk-judge-1"]}),
    Named({"password": "sk-judge-1"}),
    partial(Judge, api_key="sk-judge-1"),
    type("Shown", (), {"__repr__": lambda self: "Shown(api_key='sk-judge-1')"})(),
    type("Told", (), {"fingerprint": {"body": {"token": "sk-judge-1"}}})(),
]


@pytest.mark.parametrize("thing", SECRETS, ids=range(len(SECRETS)))
def test_credentials_are_told_by_a_digest(thing: Any) -> None:
    assert "sk-judge-1" not in json.dumps(identity(thing))


def test_a_scorers_credentials_are_not_in_a_log(tmp_path: Path) -> None:
    class Remote(Judge):
        def score(self, trajectories: Any) -> Any:
            return [[0.5] * t.step_count for t in trajectories]

    with Searcher(generator=FakeGenerator(), scorer=Remote(api_key="sk-judge-1")) as searcher:
        searcher.search("Why?", strategy=BestOfN(n=2), log=tmp_path / "a.log")
    assert b"sk-judge-1" not in (tmp_path / "a.log").read_bytes()


def test_functions_that_hold_something_else_share_no_result(tmp_path: Path) -> None:
    options: dict[str, Any] = {"strategy": BestOfN(n=2), "repeat": True, "budget": 900, "log": tmp_path / "a.log"}
    with Searcher(generator=FakeGenerator(), scorer=FakeScorer()) as searcher:
        few, many = (searcher.search("Why?", stop_when=within(limit), **options) for limit in (4, 12))
        again = searcher.search("Why?", stop_when=within(4), **options)
    assert few.tree is not None
    assert many.tree is not None
    assert len(few.tree) < len(many.tree)
    assert again == few
