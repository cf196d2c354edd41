"""`tts-search serve`: the options of the server, and its start. What it does is in `serving/`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tts_search.api import Searcher
from tts_search.cli import arguments as options
from tts_search.cli import terminal
from tts_search.cli.outcomes import outcomes
from tts_search.cli.searcher import open_searcher
from tts_search.cli.shared import Drawing, Engine, Scoring
from tts_search.errors import MissingDependencyError
from tts_search.options import is_url

HELP_BELOW = """[bold]Try it[/bold]

    tts-search serve
    curl localhost:8000/v1/chat/completions -H 'content-type: application/json'
         -d '{"messages": [{"role": "user", "content": "Using the numbers 7, 5, 15 and 11, make 24."}]}'

Any OpenAI client works with base_url http://localhost:8000/v1. docs/serving.md says what requests may hold.
"""
_SERVER, _LIMITS = "Server", "Limits"

Host = Annotated[
    str,
    typer.Option("--host", metavar="ADDRESS", rich_help_panel=_SERVER, help="Others than this machine need a key."),
]
Port = Annotated[int, typer.Option("--port", metavar="N", rich_help_panel=_SERVER, help="0 is any that is free.")]
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", rich_help_panel=_SERVER, help="What clients call the model."),
]
KeysFile = Annotated[
    Path | None,
    typer.Option(
        "--keys", metavar="FILE", rich_help_panel=_SERVER,
        help="API keys, a TOML table each; TTS_SEARCH_API_KEY in the environment is one more.",
    ),
]  # fmt: skip
AllowHost = Annotated[
    list[str] | None,
    typer.Option("--allow-host", metavar="NAME", rich_help_panel=_SERVER, help="A name that it may be called by."),
]
AllowOrigin = Annotated[
    list[str] | None,
    typer.Option("--allow-origin", metavar="URL", rich_help_panel=_SERVER, help="Web pages that may call it (CORS)."),
]
Plugin = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="NAME", rich_help_panel=_SERVER, help="An installed strategy requests may name."),
]
LogPrompts = Annotated[
    bool, typer.Option("--log-prompts", metavar="", rich_help_panel=_SERVER, help="Write what is asked to the log.")
]
NoAccessLog = Annotated[
    bool, typer.Option("--no-access-log", metavar="", rich_help_panel=_SERVER, help="No line for each request.")
]
Default = Annotated[
    str,
    typer.Option(
        "--default", metavar="NAME", rich_help_panel=_SERVER,
        help="The effort (none, low, medium, high, xhigh) or strategy of requests that name none.",
    ),
]  # fmt: skip
Strongest = Annotated[
    str, typer.Option("--strongest", metavar="NAME", rich_help_panel=_SERVER, help="The same for mode 'pro'.")
]
Concurrency = Annotated[
    int, typer.Option("--concurrency", metavar="N", rich_help_panel=_LIMITS, help="Searches at once.")
]
Waiting = Annotated[int, typer.Option("--queue", metavar="N", rich_help_panel=_LIMITS, help="Requests that may wait.")]
PromisedTokens = Annotated[
    int | None,
    typer.Option("--queue-tokens", metavar="TOKENS", rich_help_panel=_LIMITS, help="Budgets of all together."),
]
RequestTokens = Annotated[
    int | None,
    typer.Option("--request-tokens", metavar="TOKENS", rich_help_panel=_LIMITS, help="The cap of a request's budget."),
]
RequestSeconds = Annotated[
    float, typer.Option("--request-seconds", metavar="S", rich_help_panel=_LIMITS, help="The limit of one search.")
]
DrainSeconds = Annotated[
    float,
    typer.Option("--drain-seconds", metavar="S", rich_help_panel=_LIMITS, help="For what runs, after SIGTERM."),
]


def serve(
    engine: Engine,
    scoring: Scoring,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    name: Name = None,
    keys: KeysFile = None,
    default: Default = "medium",
    strongest: Strongest = "xhigh",
    budget: options.Budget = None,
    plugin: Plugin = None,
    allow_host: AllowHost = None,
    allow_origin: AllowOrigin = None,
    log_prompts: LogPrompts = False,
    no_access_log: NoAccessLog = False,
    concurrency: Concurrency = 64,
    waiting: Waiting = 256,
    promised_tokens: PromisedTokens = None,
    request_tokens: RequestTokens = None,
    request_seconds: RequestSeconds = 540.0,
    drain_seconds: DrainSeconds = 30.0,
    max_tokens: options.MaxTokens = 32_768,
    answer_tokens: options.AnswerTokens = 1024,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    debug: options.Debug = False,
) -> None:
    """Search behind OpenAI's API: any client thinks harder by changing its base URL."""
    with outcomes(debug):
        try:
            from tts_search.serving.app import create_app, served_by
            from tts_search.serving.server_process import bind, check_public, log_to_stderr, run
        except ImportError as error:
            raise MissingDependencyError(
                f"the server needs what the extra installs ({error}): pip install 'tts-search[serve]'"
            ) from error
        from tts_search.serving.keys import Keys
        from tts_search.serving.limits import Limits
        from tts_search.serving.search_options import check_settings

        known = Keys.read(keys, os.environ)
        check_public(host, known)
        check_settings(default, strongest)
        limits = Limits(
            concurrency=concurrency,
            waiting=waiting,
            promised_tokens=promised_tokens,
            request_tokens=request_tokens,
            request_seconds=request_seconds,
            drain_seconds=drain_seconds,
        )
        drawing = Drawing(max_tokens=max_tokens, answer_tokens=answer_tokens, temperature=temperature, top_p=top_p)
        terminal.silence_logs(debug)
        terminal.silence_bars(debug)

        def open_another() -> Searcher:
            return open_searcher(engine, drawing, scoring, concurrency=concurrency)

        with bind(host, port) as listener, open_another() as searcher:
            served = served_by(
                searcher,
                name or searcher.generator.name,
                limits=limits,
                default=default,
                strongest=strongest,
                budget=budget,
                plugins=plugin or (),
            )
            app = create_app(
                searcher,
                served,
                open_another=open_another,
                keys=known,
                hosts=None if known else allow_host or (),
                origins=allow_origin or (),
                log_prompts=log_prompts,
                idle_seconds=None if is_url(engine.generator) or is_url(engine.model) else 15.0,
            )
            log_to_stderr(access=not no_access_log, debug=debug)
            where = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
            run(app, listener, ready=lambda: terminal.say(f"{served.name} at {where}/v1"))
