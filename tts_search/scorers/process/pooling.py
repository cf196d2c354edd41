"""Reward models behind HTTP: the `/pooling` endpoint of a `vllm serve` that runs one (vLLM 0.30 to 0.33).

Sends token ids, and reads the outputs at the positions that were asked for. Knows no text and no step.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from tts_search.errors import ScorerError

ATTEMPTS = 4
WAIT_SECONDS = 0.25  # doubled before each further attempt
BUSY = (429, 500, 502, 503, 504)
"""Statuses of a server that may do better in a moment."""


class PoolingEndpoint:
    """A reward model at `url`, such as `http://localhost:8000`.

    Outputs are asked for before any activation (`use_activation` off), one row per token, or one per step tag where the
    server pools by `STEP`.

    Args:
        url: the server's root.
        model: its name there; None is the only model that it serves.
        key: what it takes for authorization.
        seconds: limit of one request.
    """

    def __init__(self, url: str, *, model: str | None = None, key: str | None = None, seconds: float = 300.0) -> None:
        self.url = url.rstrip("/").removesuffix("/v1") + "/pooling"
        self.model = model
        self.seconds = seconds
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def read(
        self, sequences: Sequence[tuple[int, ...]], positions: Sequence[Sequence[int]], places: Sequence[Sequence[int]]
    ) -> tuple[list[list[list[float]]], int]:
        """Outputs `[len(positions[i]), labels]` of every sequence, and how many tokens that took.

        `places[i]` are all positions of sequence `i` that bear a step tag, `positions[i]` those of them to read.

        Raises:
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
                f"{self.url} did not answer as a reward model does ({error}): it must be served with --runner pooling, "
                "with token_classify as its task, and with a step_tag_id where it pools by STEP"
            ) from error
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
        request = urllib.request.Request(self.url, json.dumps(body).encode(), self._headers)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with urllib.request.urlopen(request, timeout=self.seconds) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                if error.code not in BUSY or attempt == ATTEMPTS:
                    said = error.read(2000).decode("utf-8", "replace")
                    raise ScorerError(f"{self.url} answered {error.code}: {said}") from error
            except (OSError, http.client.HTTPException, ValueError) as error:  # unreachable, cut off, late, no JSON
                if attempt == ATTEMPTS:
                    raise ScorerError(f"{self.url} gave no answer in {ATTEMPTS} attempts: {error}") from error
            time.sleep(WAIT_SECONDS * 2**attempt)
        raise AssertionError
