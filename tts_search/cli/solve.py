"""The `solve` command: one question in, one answer out.

Reads the question, opens a searcher, runs the search, prints the result. It knows the API and no engine; how things
look is `show`'s and `terminal`'s matter.
"""

from __future__ import annotations

import io
import os
import sys
from dataclasses import replace
from pathlib import Path

import typer

from tts_search.cli import arguments as options
from tts_search.cli import show as report
from tts_search.cli import solve_file as many
from tts_search.cli import terminal
from tts_search.cli.outcomes import EXIT_CODES, NO_ANSWER, outcomes
from tts_search.cli.searcher import check_engine, check_search, open_searcher, read_strategy
from tts_search.cli.shared import Drawing, Engine, Scoring
from tts_search.cli.wording import in_options
from tts_search.core.protocols import Strategy
from tts_search.core.result import SearchResult
from tts_search.errors import InvalidInputError
from tts_search.models import EMBEDDED
from tts_search.options import Options, is_url
from tts_search.shards import Shard
from tts_search.strategies.best_of_n import BestOfN
from tts_search.strategies.naming import EFFORTS

HELP_BELOW = f"""[bold]Examples[/bold]

[cyan]tts-search solve "Using the numbers 7, 5, 15 and 11, make 24." -e high[/cyan]
  Best of 32, with the small model in the package: nothing to download.

[cyan]tts-search solve "Is 1001 prime?" --model ./my-model --budget 20000[/cyan]
  A model of yours, and never more than 20,000 sampled tokens.

[cyan]tts-search solve --file questions.jsonl --out answers.jsonl -n 16[/cyan]
  Many questions. Interrupt it and run it again: it goes on where it was, in the middle of a question too.

[cyan]cat question.txt | tts-search solve - -n 16 --json > result.json[/cyan]
  Everything about a Best-of-16 search as one JSON object.

[cyan]tts-search solve "..." --scorer my_package.rewards:Judge[/cyan]
  A scorer of yours, from an installed package or the current folder.

{EXIT_CODES}"""


def solve(
    engine: Engine,
    scoring: Scoring,
    question: options.Question = None,
    effort: options.EffortName = None,
    strategy: options.StrategyName = None,
    n: options.N = None,
    budget: options.Budget = None,
    repeat: options.Repeat = False,
    selector: options.SelectorName = None,
    extract: options.ExtractName = "auto",
    seconds: options.Seconds = None,
    early_stop: options.EarlyStop = None,
    file: many.File = None,
    out: many.Out = None,
    form: many.FormatName = many.Format.PLAIN,
    log: many.Log = None,
    replay: many.Replay = None,
    shard: many.ShardOf = None,
    *,
    drawing: Drawing,
    save: options.Save = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Answer one question by search: think several times, score every step, answer from the best thinking.

    Or, with --file, every question of a file.

    The answer, the scored thinking and the token account go to standard output, progress and errors to standard error.
    """
    from tts_search import export
    from tts_search.cli.progress import searching

    with outcomes(debug):
        result: SearchResult | None = None
        work: many.Work | None = None
        files = _files(question, file, out, form, log, replay, shard, save=bool(save), json=json)
        text = "" if files is not None else _read(question)
        chosen = _strategy(strategy, effort, n)
        ends = budget is not None or seconds is not None or replay is not None
        check_search(chosen, scoring.scorer, selector, early_stop=early_stop, ends=ends)
        if replay is not None and engine.generator == "auto":
            engine = replace(engine, generator="none")
        check_engine(engine)
        screen = None if quiet else terminal.console_for(sys.stderr)
        with terminal.own_streams(debug):
            if screen is not None:
                screen.file = sys.stderr
            terminal.silence_logs(debug)
            remote = is_url(engine.generator) or is_url(engine.model)
            if terminal.animates(screen) and not remote and replay is None:
                terminal.download(engine.model)  # under the hub's own progress bars: it can take long
            terminal.silence_bars(debug)
            with terminal.loading(screen, engine.generator if ":" in engine.generator else engine.model or EMBEDDED):
                searcher = open_searcher(engine, drawing, scoring, extract=extract)
            said: Options = {
                "strategy": chosen,
                "budget": budget,
                "repeat": repeat,
                "selector": selector,
                "seconds": seconds,
                "early_stop": early_stop,
                "seed": drawing.seed,
            }
            if files is not None:
                with searcher:
                    work = many.solve_file(searcher, files, said, screen)
            else:
                with searcher, searching(screen, budget) as on_progress:
                    said["on_progress"] = on_progress
                    result = searcher.search(text, **said)
        if work is not None:
            many.tell(work)
            return
        assert result is not None
        _print(result, json=json, quiet=quiet)
        for path in save or ():
            written = export.save(result, path)
            if not quiet:
                terminal.say(f"{written} is written")
        if not result.answer.strip():
            terminal.say_error(f"no answer: {report.remark(result)}")
            raise typer.Exit(NO_ANSWER)


def _files(
    question: str | None,
    file: Path | None,
    out: Path | None,
    form: many.Format,
    log: Path | None,
    replay: Path | None,
    shard: Shard | None,
    *,
    save: bool,
    json: bool,
) -> many.Files | None:
    """Where many questions come from and go, None for one question; what belongs to the other is refused."""
    if file is None:
        others = {"--out": out, "--log": log, "--replay": replay, "--shard": shard}
        if given := [name for name, value in others.items() if value is not None]:
            raise InvalidInputError(f"{given[0]} goes with --file: one question is answered on standard output")
        return None
    if question is not None:
        raise InvalidInputError(f"give a question or --file {file}, not both")
    if out is None:
        raise InvalidInputError(f"--file {file} needs --out, a file for its answers")
    if save or json:
        raise InvalidInputError(f"{'--save' if save else '--json'} is for one question: --file writes to --out")
    files = many.Files(questions=file, out=out, form=form, log=log, replay=replay, shard=shard)
    files.check()
    return files


def _read(question: str | None) -> str:
    """The question itself, or standard input for `-`. An empty one is refused here, before a model is loaded."""
    if question == "-":
        raw = sys.stdin.buffer.read()
        try:
            question = raw.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InvalidInputError(
                f"standard input is not UTF-8 text: byte 0x{raw[error.start]:02x} at position {error.start}; "
                "convert it first, for example with iconv -f latin1 -t utf-8"
            ) from error
    if question is None:
        raise InvalidInputError("no question: give a text, - to read it from standard input, or --file with many")
    if not question.strip():
        raise InvalidInputError("the question is empty: give a text, or - to read it from standard input")
    if any("\ud800" <= character <= "\udfff" for character in question):
        raise InvalidInputError("the question is not UTF-8 text: check the terminal's encoding (LANG, LC_ALL)")
    return question


def _strategy(name: str | None, effort: str | None, n: int | None) -> Strategy:
    if effort is not None and (name is not None or n is not None):
        other = f"--strategy {name}" if name is not None else f"--n {n}"
        raise InvalidInputError(f"give --effort {effort} or {other}, not both: an effort is a strategy with its n")
    if n is not None:
        if name not in (None, "best_of_n"):
            raise InvalidInputError(f"--n {n} belongs to --strategy best_of_n, not to {name}")
        return BestOfN(n=n)
    if name is None:
        return BestOfN(n=EFFORTS[effort or "medium"])
    return read_strategy(name)


def _print(result: SearchResult, *, json: bool, quiet: bool) -> None:
    """Write the result to standard output. A reader who has seen enough (`| head`) is no failure."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # JSON is UTF-8; other text must not fail on a terminal that is not
        sys.stdout.reconfigure(encoding="utf-8" if json else None, errors="backslashreplace")
    if json:
        text = result.to_json() + "\n"
    elif quiet:
        text = terminal.plain(result.answer.strip()) + "\n" if result.answer.strip() else ""
    else:
        said = replace(result, warnings=tuple(map(in_options, result.warnings)))
        text = report.draw(said, terminal.console_for(sys.stdout))
    if quiet and not json:
        for warning in result.warnings:
            terminal.say(f"warning: {in_options(warning)}")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at the end
