"""What tests of searches share: models that write to a script, strategies made of chance, engines that are watched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tts_search import Completion, Expand, Plan, Request, Tree, Until
from tts_search.testing import FakeGenerator


@dataclass(frozen=True)
class Wild:
    """A strategy made of chance: any node, any number, any until, as long as it likes."""

    choices: tuple[tuple[int, int, Until, int | None], ...]

    def __call__(self, tree: Tree) -> Plan:
        for pick, n, until, max_tokens in self.choices:
            node = tree.nodes[pick % len(tree)]
            yield [Expand(node, n, until, max_tokens), Expand(tree.root, 1, until)]


def scripted(*tokens: int, thinks: bool = True) -> Callable[[tuple[int, ...], int], int]:
    """Repeats its last token for ever."""

    def next_token(prefix: tuple[int, ...], seed: int) -> int:
        done = len(prefix) - len(FakeGenerator(thinks=thinks).tokenizer.render("Why?"))
        return tokens[min(done, len(tokens) - 1)]

    return next_token


class Watched(FakeGenerator):
    """Remembers all that it said, and labels every token with itself: log-probability -t/1000, score t/1000."""

    said: list[tuple[Request, Sequence[Completion]]]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        object.__setattr__(self, "said", [])

    async def generate(self, request: Request) -> list[Completion]:
        completions = [labelled(completion) for completion in await super().generate(request)]
        self.said.append((request, completions))
        return completions


def labelled(completion: Completion) -> Completion:
    values = tuple(token / 1000 for token in completion.token_ids)
    return replace(completion, logprobs=tuple(-v for v in values), scores=values, cached_tokens=3)
