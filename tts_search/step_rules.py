"""`step_rule="auto"`: settled once for each model, and kept by the model's fingerprint.

The file is a `RunLog`, `step_rules.jsonl` in `$TTS_SEARCH_CACHE`, else in the user's cache. One that cannot be used (no
such file can be written there, another process has it, something else wrote it) is left as it is, and the rule is
settled anew.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from tts_search.core.protocols import Generator
from tts_search.core.step_finding import PROMPTS, TOKENS, rule_for, written_by
from tts_search.errors import InvalidInputError
from tts_search.segmentation import Segmenter, StepRule, rule_from_json, rule_to_json
from tts_search.store import RunLog

logger = logging.getLogger(__name__)

VERSION = 1  # of the prompts and of what is made of the answers


class StepRules:
    """The rule of one engine, found out at the first question that needs it; the others wait for the same."""

    def __init__(self, engine: Generator) -> None:
        self._engine = engine
        self._finding: asyncio.Task[StepRule | None] | None = None

    async def settle(self, segmenter: Segmenter) -> StepRule | None:
        """What this model writes between steps, None where it is nothing that repeats. For one event loop.

        Raises:
            TTSError: the generator failed; the next call tries again.
        """
        if self._finding is None or (self._finding.done() and not self._found()):
            self._finding = asyncio.get_running_loop().create_task(self._settle(segmenter))
        return await asyncio.shield(self._finding)

    def _found(self) -> bool:
        assert self._finding is not None
        return not self._finding.cancelled() and self._finding.exception() is None

    async def _settle(self, segmenter: Segmenter) -> StepRule | None:
        own = getattr(self._engine, "fingerprint", None)
        key = None if own is None else {"version": VERSION, "prompts": len(PROMPTS), "tokens": TOKENS, "model": own}
        if key is not None:
            found, rule = await asyncio.to_thread(_read, key)
            if found:
                return rule
        logger.warning(
            "finding out what %s writes between steps, by %d short questions, once for a model (step_rule= saves it)",
            self._engine.name,
            len(PROMPTS),
        )
        rule = rule_for(await written_by(self._engine, segmenter))
        if key is not None:
            await asyncio.to_thread(_write, key, rule)
        return rule


def file() -> Path:
    """Where rules are kept."""
    named = os.environ.get("TTS_SEARCH_CACHE")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tts-search"
    return (Path(named).expanduser() if named else cache) / "step_rules.jsonl"


def _read(key: dict[str, Any]) -> tuple[bool, StepRule | None]:
    if not file().is_file():
        return False, None
    with suppress(InvalidInputError, OSError, TypeError, ValueError), RunLog(file()) as log:
        record = log.get(json.loads(json.dumps(key)))
        if record is not None:
            return True, None if record["rule"] is None else rule_from_json(record["rule"])
    return False, None


def _write(key: dict[str, Any], rule: StepRule | None) -> None:
    with suppress(InvalidInputError, OSError, TypeError, ValueError), RunLog(file()) as log:
        log.add(json.loads(json.dumps(key)), {"rule": None if rule is None else rule_to_json(rule)})
