"""The command line: `tts-search solve "..."`.

Reads arguments, runs one search, prints its result, and turns every outcome into an exit code. It knows the API and
`terminal`, which draws; it knows no engine, and importing it imports neither torch nor vllm.
"""

from __future__ import annotations

from tts_search.errors import (
    HeadMismatchError,
    InvalidInputError,
    MissingDependencyError,
    ModelNotFoundError,
)

FAILED, INVALID, NO_ANSWER, INTERRUPTED = 1, 2, 3, 130
_INVALID = (InvalidInputError, ModelNotFoundError, HeadMismatchError, MissingDependencyError)

# Engines and their libraries talk on standard error and even on standard output. A user's own settings go first.
_QUIET = {
    "GLOG_minloglevel": "2",
    "HF_HUB_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
_NO_BARS = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}


class _Commands(TyperGroup):
    """Usage errors as one line, like every other error."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        try:
            code = super().main(*args, standalone_mode=False, **extra)
        except Exception as error:
            # Typer has its own copy of click from 0.20 or so on: the method tells a usage error, the class does not.
            describe: Callable[[], str] | None = getattr(error, "format_message", None)
            if describe is None or not standalone_mode:
                raise
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "tts-search"
            _say_error(f"{describe().rstrip('.')} (see {command} --help)")
            code = getattr(error, "exit_code", INVALID)
        if standalone_mode:
            sys.exit(code)
        return code


app = typer.Typer(
    cls=_Commands,
    name="tts-search",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The entry point of the `tts-search` command."""
    try:
        app(prog_name="tts-search")
    except KeyboardInterrupt:  # between two commands' worth of code: while arguments are read
        sys.exit(INTERRUPTED)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tts-search {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _tts_search(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """A language model answers better when several of its thoughts are sampled, scored and chosen from.

    Start with: [bold]tts-search solve "Using the numbers 4, 6, 9 and 13, make 87."[/bold]
    """
    if context.invoked_subcommand is None:
        _say_error('no command given: try tts-search solve "...", or tts-search --help')
        raise typer.Exit(INVALID)


def _choice(names: Collection[str], *, objects: bool = False) -> Callable[[str | None], str | None]:
    """Refuse a name that is not in the table, before anything is loaded."""

    def check(value: str | None) -> str | None:
        if value is None or value in names or (objects and ":" in value):
            return value
        also = ", or an object of yours as package.module:Object" if objects else ""
        raise typer.BadParameter(f"{value!r} is none of {', '.join(names)}{also}")

    return check


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def _share(value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1:
        raise typer.BadParameter(f"{value} is not in the range 0 < x <= 1")
    return value


SCORERS = ("auto", "sprm", "none")
_WHO, _HOW, _TOKENS, _OUTPUT = "Model", "Search", "Sampling", "Output"


@app.command(
    epilog="""[bold]Examples[/bold]

[cyan]tts-search solve "Using the numbers 4, 6, 9 and 13, make 87." --effort high[/cyan]
  Best of 32 with the small model that ships with the package: nothing to download.

[cyan]tts-search solve "How many primes are below 50?" --model ./my-model --budget 20000[/cyan]
  A model folder or hub id of yours, and never more than 20,000 sampled tokens.

[cyan]cat question.txt | tts-search solve - --n 16 --json > result.json[/cyan]
  The question from standard input, everything about the search as one JSON object.

[cyan]tts-search solve "..." --generator my_package.engines:Engine --scorer my_package.rewards:PRM[/cyan]
  Objects of your own, from an installed package or the current folder.

[bold]Exit codes[/bold]

  0  answered: also where the budget ended the search early, which the output then says
  1  the search failed: the generator, the scorer or the strategy
  2  the input cannot be used: options, question, model folder, head, a missing package
  3  no answer: the model wrote none
  130  interrupted
"""
)
def solve(
    question: Annotated[
        str, typer.Argument(help="The question; - reads it from standard input.", show_default=False)
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", rich_help_panel=_WHO, show_default=EMBEDDED,
            help="A model folder, a Hugging Face hub id, or [cyan]embedded[/cyan]: a small one that solves number puzzles.",
        ),
    ] = None,
    generator: Annotated[
        str,
        typer.Option(
            rich_help_panel=_WHO, metavar="|".join((*GENERATORS, "module:Object")),
            callback=_choice(GENERATORS, objects=True),
            help="The engine. [cyan]auto[/cyan]: vLLM where it is installed, else transformers.",
        ),
    ] = "auto",
    scorer: Annotated[
        str,
        typer.Option(
            rich_help_panel=_WHO, metavar="|".join((*SCORERS, "module:Object")), callback=_choice(SCORERS, objects=True),
            help="What scores each step. [cyan]auto[/cyan]: the model's own SPRM head, if it has one; "
            "[cyan]sprm[/cyan]: the same, or fail.",
        ),
    ] = "auto",
    effort: Annotated[
        str | None,
        typer.Option(
            "--effort", "-e", rich_help_panel=_HOW, metavar="|".join(EFFORTS), callback=_choice(EFFORTS),
            show_default="medium",
            help=f"How many thoughts to choose from: {', '.join(map(str, EFFORTS.values()))}.",
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_HOW, metavar="|".join((*STRATEGIES, "module:Object")),
            callback=_choice(STRATEGIES, objects=True), help="The search algorithm, instead of an effort.",
        ),
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", "-n", min=1, rich_help_panel=_HOW, help="Thoughts of best_of_n.")
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            "--budget", "-b", min=1, rich_help_panel=_HOW, show_default="no limit",
            help="Hard cap on sampled tokens, thinking and answer together.",
        ),
    ] = None,
    selector: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_HOW, metavar="|".join(SELECTORS), callback=_choice(SELECTORS),
            show_default="best with scores, else majority",
            help="How the answer is chosen: highest score, most votes, votes weighted by score, or mean log-probability. "
            "All but [cyan]best[/cyan] answer from every thought first, and those tokens count.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(rich_help_panel=_TOKENS, help="Equal seeds give equal searches.")
    ] = 0,
    max_tokens: Annotated[
        int, typer.Option(min=1, rich_help_panel=_TOKENS, help="Tokens that one thought may take.")
    ] = 32_768,
    answer_tokens: Annotated[
        int, typer.Option(min=1, rich_help_panel=_TOKENS, help="Tokens that one answer may take.")
    ] = 1024,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0, rich_help_panel=_TOKENS, callback=_finite, show_default="the model's", help="0 is greedy."
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_TOKENS, callback=_share, show_default="the model's",
            help="Draw from the likeliest tokens that hold this much probability.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", rich_help_panel=_OUTPUT, help="Print one JSON object and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", rich_help_panel=_OUTPUT, help="Print the answer alone, show no progress.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", rich_help_panel=_OUTPUT, help="Show tracebacks and what the libraries log.")
    ] = False,
) -> None:  # fmt: skip
    """Answer one question by search: think several times, score every step, answer from the best thinking.

    The answer goes to standard output, with the thinking, the scores and the token account behind it;
    progress and errors go to standard error.
    """
    with _outcomes(debug):
        text = _read(question)
        chosen = _strategy(strategy, effort, n)
        if scorer == "none" and selector is not None and SELECTORS[selector].needs_scores:
            raise InvalidInputError(f"--selector {selector} needs step scores: use --selector majority, or a scorer")
        if model is not None and ":" in generator:
            raise InvalidInputError(f"--generator {generator} brings its own model: leave --model out")
        screen = None if quiet else terminal.console_for(sys.stderr)
        with _own_stdout(debug):
            _silence_logs(debug)
            if terminal.animates(screen):
                _download(model)  # under the hub's own progress bars: it can take long
            _silence_bars(debug)
            with terminal.loading(screen, generator if ":" in generator else model or EMBEDDED):
                searcher = _open(model or EMBEDDED, generator, scorer, max_tokens, answer_tokens, temperature, top_p)
            with searcher, terminal.searching(screen, budget) as on_progress:
                result = searcher.search(
                    text, strategy=chosen, budget=budget, selector=selector, seed=seed, on_progress=on_progress
                )
        _print(result, json=json, quiet=quiet)
        if not result.answer.strip():
            _say_error(f"no answer: {terminal.remark(result)}")
            raise typer.Exit(NO_ANSWER)


@contextmanager
def _outcomes(debug: bool) -> Iterator[None]:
    """Every failure as one line on standard error, and its exit code."""
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        _say("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        message = str(error)
        if not isinstance(error, TTSError):
            message = f"{type(error).__name__}: {error}" + ("" if debug else " (--debug shows where)")
        _say_error(message)
        raise typer.Exit(INVALID if isinstance(error, _INVALID) else FAILED) from error


def _say(line: str) -> None:
    with suppress(BrokenPipeError):
        print(terminal.plain(" ".join(line.split())), file=sys.stderr, flush=True)


def _say_error(message: str) -> None:
    screen = terminal.console_for(sys.stderr)
    line = terminal.plain(" ".join(message.split()))
    with suppress(BrokenPipeError):
        sys.stderr.write(terminal.error_line(line, screen))
        sys.stderr.flush()


def _read(question: str) -> str:
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
    if name in STRATEGIES:
        return STRATEGIES[name]
    strategy = _import(name, "--strategy")
    strategy = strategy() if isinstance(strategy, type) else strategy
    if not callable(strategy):
        raise InvalidInputError(
            f"--strategy {name} is no strategy: it must be a function of a tree that yields Expands"
        )
    return strategy


def _import(name: str, option: str) -> Any:
    """The object that `package.module:Object` names, from an installed package or the current folder."""
    module, _, path = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInputError(f"{option} {name} cannot be imported: {error}") from error
    return found


def _plugin(name: str, option: str, kind: type) -> Any:
    """An object of the user's: as it is, or what its class or a function without arguments makes."""
    found = _import(name, option)
    if isinstance(found, type) or not isinstance(found, kind):
        if not callable(found):
            raise InvalidInputError(f"{option} {name} is no {kind.__name__} and makes none: it is {found!r}")
        found = found()
    if not isinstance(found, kind):
        missing = [m for m in sorted(kind.__protocol_attrs__) if not hasattr(found, m)]  # type: ignore[attr-defined]
        raise InvalidInputError(f"{option} {name} is no {kind.__name__}: it has no {', '.join(missing)}")
    return found


def _open(
    model: str,
    generator: str,
    scorer: str,
    max_tokens: int,
    answer_tokens: int,
    temperature: float | None,
    top_p: float | None,
) -> Searcher:
    limits = {"max_tokens": max_tokens, "answer_tokens": answer_tokens}
    judge = _plugin(scorer, "--scorer", Scorer) if ":" in scorer else None if scorer == "none" else scorer
    engine = _plugin(generator, "--generator", Generator) if ":" in generator else generator
    searcher = Searcher(model, generator=engine, scorer=judge, **limits)
    given = {"temperature": temperature, "top_p": top_p}
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return searcher
    # Only the loaded engine knows the defaults of its model, which hold for what was not given.
    engine = searcher.generator
    return Searcher(generator=engine, scorer=judge, sampling=replace(engine.sampling, **given), **limits)


def _print(result: SearchResult, *, json: bool, quiet: bool) -> None:
    """Write the result to standard output. A reader who has seen enough (`| head`) is no failure."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # JSON is UTF-8; other text must not fail on a terminal that is not
        sys.stdout.reconfigure(encoding="utf-8" if json else None, errors="backslashreplace")
    if json:
        text = result.to_json() + "\n"
    elif quiet:
        text = terminal.plain(result.answer.strip()) + "\n" if result.answer.strip() else ""
    else:
        text = terminal.draw(result, terminal.console_for(sys.stdout))
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at the end


@contextmanager
def _own_stdout(debug: bool) -> Iterator[None]:
    """Keep standard output for the result: whatever libraries and engine processes print on it goes elsewhere."""
    sys.stdout.flush()
    kept = os.dup(1)
    elsewhere = os.dup(2) if debug else os.open(os.devnull, os.O_WRONLY)
    os.dup2(elsewhere, 1)
    os.close(elsewhere)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _silence_logs(debug: bool) -> None:
    if debug:
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")
    logging.getLogger("asyncio").setLevel(
        logging.CRITICAL
    )  # an interrupted search leaves tasks, and it would list them


def _silence_bars(debug: bool) -> None:
    if debug:
        return
    for name, value in _NO_BARS.items():
        os.environ.setdefault(name, value)
    if "huggingface_hub" in sys.modules:  # has read the environment already
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()


def _download(model: str | None) -> None:
    if model not in (None, EMBEDDED) and not Path(model).expanduser().exists():
        model_folder(model)
