"""Reward models behind HTTP: the `/pooling` endpoint of a `vllm serve` that runs one (vLLM 0.30 to 0.33).

Sends token ids, and reads the outputs at the positions that were asked for. Knows no text and no step.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from tts_search.addresses import Address, Redaction
from tts_search.errors import ScorerError

ATTEMPTS = 4
WAIT_SECONDS = 0.25  # doubled before each further attempt
MOST_WORDS = 2**16  # bytes of an error that are read
LIMIT = re.compile(r"(?:maximum context length|max_model_len)\D{0,20}(\d{1,9})", re.IGNORECASE)
BUSY = (429, 500, 502, 503, 504)
"""Statuses of a server that may do better in a moment."""


class TooLongError(ScorerError):
    """A sequence is longer than the `max_tokens` that the server reads."""

    def __init__(self, message: str, max_tokens: int) -> None:
        super().__init__(message)
        self.max_tokens = max_tokens


class PoolingEndpoint:
    """A reward model at `url`, such as `http://localhost:8000`.

    Outputs are asked for before any activation (`use_activation` off), one row per token, or one per step tag where the
    server pools by `STEP`.

    Args:
        url: the server's root. A user and a password in it are sent instead of the key, and never shown.
        model: its name there; None is the only model that it serves.
        key: what it takes for authorization.
        seconds: limit of one request.
    """

    def __init__(self, url: str, *, model: str | None = None, key: str | None = None, seconds: float = 300.0) -> None:
        address = Address.of(url.rstrip("/").removesuffix("/v1"), "an endpoint's url")
        self.url = f"{address.name}/pooling"
        self.model = model
        self.seconds = seconds
        self._url = address.at("/pooling")
        authorization = address.authorization or (f"Bearer {key}" if key else None)
        self._headers = {"Content-Type": "application/json"}
        self._headers |= {"Authorization": authorization} if authorization else {}
        self._redact = Redaction((key or "", *address.secrets))

    def read(
        self, sequences: Sequence[tuple[int, ...]], positions: Sequence[Sequence[int]], places: Sequence[Sequence[int]]
    ) -> tuple[list[list[list[float]]], int]:
        """Outputs `[len(positions[i]), labels]` of every sequence, and how many tokens that took.

        `places[i]` are all positions of sequence `i` that bear a step tag, `positions[i]` those of them to read.

        Raises:
            TooLongError: a sequence is longer than the server's context, and it says so.
            ScorerError: the server cannot be reached, refuses, or answers something else.
        """
        body: dict[str, Any] = {"input": [list(ids) for ids in sequences], "task": "token_classify"}
        body |= {"use_activation": False} | ({"model": self.model} if self.model else {})
        answer = self._post(body)
        try:
            rows = [item["data"] for item in sorted(answer["data"], key=lambda item: item["index"])]
            tokens = int(answer["usage"]["prompt_tokens"])
            found = [
                self._pick(data, len(ids), wanted, tagged)
                for data, ids, wanted, tagged in zip(rows, sequences, positions, places, strict=True)
            ]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ScorerError(
                f"{self.url} did not answer as a reward model does ({self._redact(str(error))}): it must be served "
                "with --runner pooling, with token_classify as its task, and with a step_tag_id where it pools by STEP"
            ) from (None if self._redact.shows(error) else error)
        return found, tokens

    def _pick(
        self, data: list[list[float]], length: int, wanted: Sequence[int], tagged: Sequence[int]
    ) -> list[list[float]]:
        if len(data) == length:
            return [data[i] for i in wanted]
        if len(data) == len(tagged):
            return [data[tagged.index(i)] for i in wanted]
        raise ValueError(f"{len(data)} rows for {length} tokens with {len(tagged)} step tags")

    def _post(self, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(self._url, json.dumps(body).encode(), self._headers)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with urllib.request.urlopen(request, timeout=self.seconds) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                if error.code not in BUSY or attempt == ATTEMPTS:
                    said = self._redact(error.read(MOST_WORDS).decode("utf-8", "replace"))[:2000]
                    message = f"{self.url} answered {error.code}: {said}"
                    if error.code == 400 and (limit := LIMIT.search(said)):
                        raise TooLongError(message, int(limit[1])) from error
                    raise ScorerError(message) from error
            except (OSError, http.client.HTTPException, ValueError) as error:  # unreachable, cut off, late, no JSON
                if attempt == ATTEMPTS:
                    said = self._redact(str(error))
                    cause = None if self._redact.shows(error) else error
                    raise ScorerError(f"{self.url} gave no answer in {ATTEMPTS} attempts: {said}") from cause
            time.sleep(WAIT_SECONDS * 2**attempt)
        raise AssertionError
