"""Messages of the library in the command line's words."""

from __future__ import annotations

import pytest

from tts_search.cli.wording import in_options

NAMES = "strategy scorer selector budget max_tokens answer_tokens top_p early_stop model temperature head repeat n"
OPTIONS = {name: "--" + name.replace("_", "-") for name in NAMES.split()} | {
    "engine_arg": "--engine-arg",
    "thinking_tags": "--thinking-tags",
    "step_rule": "--step",
}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("pass scorer=..., or take strategy='best_of_n', which", "pass --scorer, or take --strategy best_of_n, which"),
        ("give it a budget, such as budget=160_000", "give it a budget, such as --budget 160000"),
        ("scorer='sprm', but 'x' has no head", "--scorer sprm, but 'x' has no head"),
        ("or pass head=None", "or pass --head none"),
        ("with repeat=True or repeat=False", "with --repeat or no --repeat"),
        ("early_stop is a margin; got 0.5", "--early-stop is a margin; got 0.5"),
        ("temperature must be 0 or more; got -1", "--temperature must be 0 or more; got -1"),
        ("a smaller max_tokens helps", "a smaller --max-tokens helps"),
        ("say thinking_tags=('<a>', '</a>') to", "say --thinking-tags '<a>' '</a>' to"),
        ("give step_rule= what it writes, or step_rule='auto'", "give --step what it writes, or --step auto"),
        ("say which: engine_args={'model': 'a b'}", "say which: --engine-arg model='a b'"),
        ('float32; dtype="bfloat16" keeps', "float32; --engine-arg dtype=bfloat16 keeps"),
        ("pass logprobs=False if it has none", "pass --engine-arg logprobs=False if it has none"),
        ("raise timeout_seconds, or", "raise --engine-arg timeout_seconds, or"),
        ("a prefix of 9 tokens and max_tokens=8", "a prefix of 9 tokens and --max-tokens 8"),
        ("the budget is spent", "the budget is spent"),
        ("Repeat(strategy=BestOfN(n=8)) and MCTS(n=2), n=3", "Repeat(strategy=BestOfN(n=8)) and MCTS(n=2), --n 3"),
        ("say which, by model=", "say which, by --model"),
        ("the file 'top_p.json' and my.top_p", "the file 'top_p.json' and my.top_p"),
        ("a stop_when=3 of somebody's", "a stop_when=3 of somebody's"),
    ],
)
def test_python_becomes_options(message: str, said: str) -> None:
    assert in_options(message, OPTIONS) == said
    assert in_options(message, {}) == message
