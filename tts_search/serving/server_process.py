"""The process: a socket, signals, and an end that drains. SIGTERM lets what runs come to its end, for a while."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from tts_search.errors import InvalidInputError
from tts_search.serving.keep_alive import BrokenOffError
from tts_search.serving.keys import VARIABLE, Keys
from tts_search.serving.refusals import unavailable
from tts_search.serving.service import Service

LAST_SECONDS = 5.0  # for error objects to reach clients, when the time to drain is over


class DrainingServer(uvicorn.Server):
    """Tells those who still wait when the time to drain is over, and does not drop them silently."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None] | None = None) -> None:
        super().__init__(config)
        self._service = service
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        if self.started and self._ready is not None:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if not self._service.draining:
            self._service.draining = True
            # A signal may come between any two steps of the loop, so the loop is told and not touched.
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        error = unavailable("the server is shutting down: try again", retry_after=10)
        self._loop.call_later(self._service.limits.drain_seconds, self._service.drain, error)


def check_public(host: str, keys: Keys) -> None:
    """Refuse an address that others reach, where nobody has to show a key.

    Raises:
        InvalidInputError: it is no loopback address, and there are no keys.
    """
    if keys or host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise InvalidInputError(
            f"--host {host} lets others reach this server, and it has no API keys: set {VARIABLE}, give --keys FILE, "
            "or stay on 127.0.0.1"
        )


def bind(host: str, port: int) -> socket.socket:
    """The socket to listen on; port 0 is any that is free.

    Raises:
        InvalidInputError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.set_inheritable(True)
    except OSError as error:
        listener.close()
        raise InvalidInputError(f"cannot listen on {host}:{port}: {error}") from error
    return listener


def run(app: Any, listener: socket.socket, *, ready: Callable[[], None] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C, and then until what runs is done."""
    DrainingServer(config_of(app), app.state.service, ready).run(sockets=[listener])


def config_of(app: Any) -> uvicorn.Config:
    """How uvicorn runs the application."""
    limits = app.state.service.limits
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_graceful_shutdown=int(limits.drain_seconds + LAST_SECONDS),
        backlog=2048,
        lifespan="on",
    )


def log_to_stderr(*, access: bool, debug: bool) -> None:
    """One line of JSON a request, and what the server itself has to say."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    handler.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], BrokenOffError)))
    plain = logging.StreamHandler(sys.stderr)
    plain.setFormatter(logging.Formatter("%(message)s"))
    for name, where, level in (
        ("tts_search.serving.middleware", plain, logging.INFO if access else logging.CRITICAL),
        ("tts_search.serving", handler, logging.INFO),
        ("uvicorn", handler, logging.INFO if debug else logging.WARNING),
    ):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [where], False
        log.setLevel(level)
