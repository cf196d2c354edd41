"""The options of the commands, each as a type to annotate a parameter with, and what is refused before anything loads.

Names come from the tables of the API, so that a new strategy or selector is an option at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from tts_search import discovery
from tts_search.errors import TTSError
from tts_search.models import EMBEDDED
from tts_search.options import GENERATORS
from tts_search.options import SCORERS as OWN_SCORERS
from tts_search.scorers.aggregate import AGGREGATIONS
from tts_search.scorers.published import is_checkpoint, name_of
from tts_search.selection.selectors import SELECTORS
from tts_search.selection.votes import EXTRACTS
from tts_search.strategies.naming import EFFORTS, STRATEGIES
from tts_search.written import Unread

SCORERS = (*OWN_SCORERS, "none")
_MODEL, _SEARCH, _SAMPLING, _OUTPUT = "Model", "Search", "Sampling", "Output"
_OBJECT = "or one of yours: a plug-in's name, [cyan]package.module:Object[/cyan] or [cyan]file.py:Object[/cyan]"


def choice(
    names: Collection[str], plugins: str | None = None, *, objects: bool = False
) -> Callable[[str | None], str | None]:
    """Only names of the table; with `plugins`, a group of entry points, also theirs; `objects` are imported."""
    objects = objects or plugins is not None

    def check(value: str | None) -> str | None:
        if value is None or value in names or (objects and ":" in value):
            return value
        offered = [] if plugins is None else discovery.installed(plugins)
        if value in offered:
            return value
        if objects and value.endswith(".py"):
            raise typer.BadParameter(f"{value!r} is a file: name an object in it, as in {value}:Object")
        also = ", and no package.module:Object or file.py:Object" if objects else ""
        raise typer.BadParameter(f"{value!r} is none of {', '.join((*names, *offered))}{also}")

    return check


def whole(at_least: int | None = None) -> Callable[[str], int]:
    """A parser whose error names the value, which typer's own does not."""
    limit = "" if at_least is None else f" of at least {at_least}"

    def parse(value: str) -> int:
        try:
            found = int(value)
        except ValueError:
            found = None
        if found is None or (at_least is not None and found < at_least):
            raise typer.BadParameter(f"{str(value)!r} is not a whole number{limit}")
        return found

    return parse


def number(accepted: Callable[[float], bool], wanted: str) -> Callable[[str], float]:
    """Likewise; `wanted` says what is accepted."""

    def parse(value: str) -> float:
        try:
            found = float(value)
        except ValueError:
            found = math.nan
        if not accepted(found):  # NaN is not
            raise typer.BadParameter(f"{str(value)!r} is not a number {wanted}")
        return found

    return parse


def there(paths: Any) -> Any:
    """Refuse files that are not there, one or a list of them."""
    for path in paths if isinstance(paths, list) else [paths]:
        if path is not None and not path.expanduser().is_file():
            said = "is a folder, and a file is due" if path.is_dir() else "is not there"
            raise typer.BadParameter(f"the file {str(path)!r} {said}")
    return paths


def _names(names: Collection[str]) -> str:
    return ", ".join(f"[cyan]{name}[/cyan]" for name in names)


Question = Annotated[
    str | None,
    typer.Argument(metavar="QUESTION", show_default=False, help="The question; - reads it from standard input."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="MODEL", rich_help_panel=_MODEL, show_default=EMBEDDED,
        help="A model folder, a hub id, the URL of an OpenAI-compatible server, or [cyan]embedded[/cyan]: the small "
        "one in the package, for number puzzles.",
    ),
]  # fmt: skip
LocalModel = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="MODEL", rich_help_panel=_MODEL, show_default=EMBEDDED,
        help="A model folder, a hub id, or [cyan]embedded[/cyan]: the small one in the package, for number puzzles.",
    ),
]  # fmt: skip
GeneratorName = Annotated[
    str,
    typer.Option(
        "--generator", metavar="NAME", rich_help_panel=_MODEL, callback=choice(GENERATORS, discovery.GENERATORS),
        help=f"The engine: {_names(GENERATORS)}, the URL of an OpenAI-compatible server, {_OBJECT}. "
        "[cyan]auto[/cyan] takes vLLM for a model of yours where it is installed, else transformers.",
    ),
]  # fmt: skip
TokenizerName = Annotated[
    str | None,
    typer.Option(
        "--tokenizer", metavar="MODEL", rich_help_panel=_MODEL, show_default="what the server's model came from",
        help="For a server: the folder or hub id of its model's tokenizer. [cyan]--model[/cyan] is then what the "
        "server calls the model.",
    ),
]  # fmt: skip


def engine_arguments(written: list[str] | None) -> dict[str, str]:
    """Arguments by name, their values as they were written: what they mean depends on who takes them."""
    found: dict[str, str] = {}
    for text in written or []:
        name, sign, value = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not sign or not name.isidentifier():
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE, such as max_batch=16")
        if name in found:
            raise typer.BadParameter(f"{name} is given twice")
        found[name] = Unread(value)
    return found


def _checked(written: list[str] | None) -> list[str] | None:
    engine_arguments(written)
    return written


EngineArgs = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-arg", metavar="NAME=VALUE", rich_help_panel=_MODEL, callback=_checked,
        help="An argument of the engine's constructor, such as [cyan]max_batch=16[/cyan] or "
        "[cyan]dtype=float32[/cyan]; vLLM's own, too. May be given again.",
    ),
]  # fmt: skip


def _scorer(name: str) -> str | None:
    """A name, or a reward model: a folder that is there, or the id of a repository."""
    if is_checkpoint(name):
        path = name_of(name)
        if not Path(path).expanduser().exists() and (path.count("/") > 1 or path.startswith((".", "/", "~"))):
            raise typer.BadParameter(f"{path!r} is not there: give the folder of a reward model, or a hub id")
        return name
    return choice(SCORERS, discovery.SCORERS)(name)


ScorerName = Annotated[
    str,
    typer.Option(
        "--scorer", metavar="NAME", rich_help_panel=_MODEL, callback=_scorer,
        help=f"What scores the steps: {_names(SCORERS)}, the folder or hub id of a reward model, {_OBJECT}. "
        "[cyan]FOLDER(family='trl', dtype='float32')[/cyan] says more of one. [cyan]sprm[/cyan] is the model's own "
        "head, [cyan]auto[/cyan] too if it has one.",
    ),
]  # fmt: skip


def _head(name: str | None) -> str | None:
    if name in (None, "auto", "none"):
        return name
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise typer.BadParameter(f"the folder {name!r} is not there")
    if not any((folder / part).exists() for part in ("config.json", "score_module.pt", "sprm")):
        raise typer.BadParameter(f"the folder {name!r} holds no SPRM head")
    return name


def _step(value: str | None) -> str | None:
    r"""A text as a shell can write it: `\n`, `\r` and `\t` stand for what they are."""
    if value == "":
        raise typer.BadParameter("an empty text ends no step")
    for written, meant in (("\\n", "\n"), ("\\r", "\r"), ("\\t", "\t")):
        value = None if value is None else value.replace(written, meant)
    return value


Step = Annotated[
    str | None,
    typer.Option(
        "--step", metavar="TEXT", rich_help_panel=_MODEL, callback=_step, show_default="a head's own, else auto",
        help=r"What ends a step: a text such as '\n\n', [cyan]auto[/cyan] (what this model writes between steps, found "
        "out once), or [cyan]released[/cyan] (as MetaStone's released code reads).",
    ),
]  # fmt: skip
ThinkingTags = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--thinking-tags", metavar="OPEN CLOSE", rich_help_panel=_MODEL, show_default="the model's own",
        help="The texts around a thought, such as '<thought>' '</thought>', where the model's tokenizer does not tell.",
    ),
]  # fmt: skip
Head = Annotated[
    str | None,
    typer.Option(
        "--head", metavar="FOLDER", rich_help_panel=_MODEL, callback=_head, show_default="in the model's folder",
        help="The SPRM head that scores, in a folder of its own; [cyan]none[/cyan] leaves it out.",
    ),
]  # fmt: skip
AggregationName = Annotated[
    str | None,
    typer.Option(
        "--aggregation", metavar="NAME", rich_help_panel=_SEARCH, callback=choice(AGGREGATIONS, objects=True),
        show_default="the scorer's own, else geometric_mean",
        help=f"From the scores of its steps to a path's: {_names(AGGREGATIONS)}, or "
        "[cyan]package.module:function[/cyan].",
    ),
]  # fmt: skip
EffortName = Annotated[
    str | None,
    typer.Option(
        "--effort", "-e", metavar="NAME", rich_help_panel=_SEARCH, callback=choice(EFFORTS), show_default="medium",
        help=f"How many thoughts to choose from: {', '.join(f'[cyan]{e}[/cyan] ({n})' for e, n in EFFORTS.items())}.",
    ),
]  # fmt: skip
StrategyName = Annotated[
    str | None,
    typer.Option(
        "--strategy", metavar="NAME", rich_help_panel=_SEARCH,
        help=f"The algorithm, instead of an effort: {_names(STRATEGIES)}, one with settings such as "
        f"[cyan]MCTS(children=4)[/cyan], {_OBJECT}.",
    ),
]  # fmt: skip
N = Annotated[
    int | None,
    typer.Option(
        "--n",
        "-n",
        metavar="N",
        parser=whole(1),
        rich_help_panel=_SEARCH,
        help="Choose from so many thoughts (best_of_n).",
    ),
]
Budget = Annotated[
    int | None,
    typer.Option(
        "--budget", "-b", metavar="TOKENS", parser=whole(1), rich_help_panel=_SEARCH, show_default="no limit",
        help="Hard cap on sampled tokens, thinking and answer together.",
    ),
]  # fmt: skip
Repeat = Annotated[
    bool,
    typer.Option(
        "--repeat", rich_help_panel=_SEARCH,
        help="Do a strategy of a fixed size again until the budget is spent. Without, the budget is only its cap.",
    ),
]  # fmt: skip
Seconds = Annotated[
    float | None,
    typer.Option(
        "--seconds", metavar="S", rich_help_panel=_SEARCH, show_default="no limit",
        parser=number(lambda s: 0 < s < math.inf, "above 0"),
        help="Stop the search after so long, and answer from the best so far.",
    ),
]  # fmt: skip
EarlyStop = Annotated[
    float | None,
    typer.Option(
        "--early-stop", metavar="MARGIN", rich_help_panel=_SEARCH, show_default="off",
        parser=number(lambda m: 0 <= m <= 1, "of 0 to 1"),
        help="Stop once no other path can beat the leader by more than this margin of score; for majorities, once no "
        "votes to come can.",
    ),
]  # fmt: skip
SelectorName = Annotated[
    str | None,
    typer.Option(
        "--selector", metavar="NAME", rich_help_panel=_SEARCH, callback=choice(SELECTORS),
        show_default="best, or majority without scores",
        help="The answer of the [cyan]best[/cyan] score, of the [cyan]majority[/cyan], of the majority "
        "[cyan]weighted[/cyan] by score, or of the best mean [cyan]logprob[/cyan]. All but the first have every "
        "thought answered, and pay for it.",
    ),
]  # fmt: skip
ExtractName = Annotated[
    str,
    typer.Option(
        "--extract", metavar="NAME", rich_help_panel=_SEARCH, callback=choice(EXTRACTS, objects=True),
        help=f"What of an answer a majority counts: {_names(EXTRACTS)}, or [cyan]package.module:function[/cyan].",
    ),
]  # fmt: skip
System = Annotated[
    str | None,
    typer.Option("--system", metavar="TEXT", rich_help_panel=_SAMPLING, help="A system message before the question."),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed", metavar="N", parser=whole(), rich_help_panel=_SAMPLING, help="Equal seeds give equal searches."
    ),
]
MaxTokens = Annotated[
    int,
    typer.Option(
        "--max-tokens", metavar="TOKENS", parser=whole(1), rich_help_panel=_SAMPLING, help="Limit of one thought."
    ),
]
AnswerTokens = Annotated[
    int,
    typer.Option(
        "--answer-tokens", metavar="TOKENS", parser=whole(1), rich_help_panel=_SAMPLING, help="Limit of one answer."
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature", metavar="T", rich_help_panel=_SAMPLING, show_default="the model's own",
        parser=number(lambda t: 0 <= t < math.inf, "of at least 0"),
        help="0 always takes the likeliest token.",
    ),
]  # fmt: skip
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p", metavar="P", rich_help_panel=_SAMPLING, show_default="the model's own",
        parser=number(lambda p: 0 < p <= 1, "above 0 and at most 1"),
        help="Draw from the likeliest tokens that hold this much probability.",
    ),
]  # fmt: skip
TopK = Annotated[
    int | None,
    typer.Option(
        "--top-k", metavar="K", parser=whole(0), rich_help_panel=_SAMPLING, show_default="the model's own",
        help="Draw from the K likeliest tokens; 0 for no limit.",
    ),
]  # fmt: skip
MinP = Annotated[
    float | None,
    typer.Option(
        "--min-p", metavar="P", rich_help_panel=_SAMPLING, show_default="the model's own",
        parser=number(lambda p: 0 <= p < 1, "from 0 to below 1"),
        help="Draw from tokens at least this share as likely as the likeliest.",
    ),
]  # fmt: skip
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(
        "--repetition-penalty", metavar="R", rich_help_panel=_SAMPLING, show_default="the model's own",
        parser=number(lambda r: 0 < r < math.inf, "above 0"),
        help="Make tokens that occurred already less likely by this factor; 1 for none.",
    ),
]  # fmt: skip


def _files(paths: list[Path] | None) -> list[Path]:
    """Refuse at once what could not be written after a long search."""
    from tts_search.export.files import check_writable

    for path in paths or []:
        try:
            check_writable(path)
        except TTSError as error:
            raise typer.BadParameter(str(error)) from error
    return paths or []


Save = Annotated[
    list[Path] | None,
    typer.Option(
        "--save", metavar="FILE", rich_help_panel=_OUTPUT, callback=_files,
        help="Write the whole search tree: .html is a page to explore it in, .json keeps everything; "
        "also .graphml, .png, .svg, .pdf, .txt. Give it again for another form. A file that is there is replaced.",
    ),
]  # fmt: skip
Json = Annotated[
    bool, typer.Option("--json", metavar="", rich_help_panel=_OUTPUT, help="Print one JSON object and nothing else.")
]


def _quiet(help: str) -> Any:
    return typer.Option("--quiet", "-q", metavar="", rich_help_panel=_OUTPUT, help=help)


Quiet = Annotated[
    bool, _quiet("Print the answer alone: no thinking, no candidates, no progress. Warnings and errors still come.")
]
QuietTable = Annotated[
    bool, _quiet("Print the tables alone, as Markdown: no progress, no colours. Warnings and errors still come.")
]

Debug = Annotated[
    bool,
    typer.Option(
        "--debug", metavar="", rich_help_panel=_OUTPUT, help="Show tracebacks, and what the libraries have to say."
    ),
]
