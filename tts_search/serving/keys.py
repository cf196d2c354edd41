"""Who may ask, and how much: keys from a file or the environment, compared in constant time, with an allowance each."""

from __future__ import annotations

import hashlib
import hmac
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tts_search.errors import InvalidInputError
from tts_search.serving.refusals import RefusedError

VARIABLE = "TTS_SEARCH_API_KEY"
DAY = 86_400.0
SHORTEST = 16  # characters of a key: fewer can be guessed
_SETTINGS = ("key", "tokens_per_day", "seconds", "concurrency")


@dataclass(slots=True, eq=False)
class Key:
    """Somebody who asks. `tokens_per_day` sampled tokens a day (UTC), `seconds` a search, `concurrency` at once."""

    name: str
    digest: bytes = field(default=b"", repr=False)
    tokens_per_day: int | None = None
    seconds: float | None = None
    concurrency: int | None = None
    spent: int = 0
    promised: int = 0  # budgets of what runs
    running: int = 0
    day: int = 0
    clock: Callable[[], float] = field(default=time.time, repr=False)

    @property
    def left(self) -> int | None:
        """Tokens that are neither spent today nor promised, None for no limit."""
        today = int(self.clock() // DAY)
        if today != self.day:
            self.day, self.spent = today, 0
        return None if self.tokens_per_day is None else max(0, self.tokens_per_day - self.spent - self.promised)

    def check(self) -> None:
        """Refuse somebody whose allowance is used up.

        Raises:
            RefusedError: 429, with when to come back.
        """
        if self.left == 0 and self.spent >= (self.tokens_per_day or 0):
            until = DAY - self.clock() % DAY
            raise RefusedError(
                429, f"the key's {self.tokens_per_day:,} tokens of today are spent", code="insufficient_quota",
                retry_after=until,
            )  # fmt: skip
        if self.left == 0 or (self.concurrency is not None and self.running >= self.concurrency):
            raise RefusedError(
                429, "too many requests of this key are under way: wait for one of them", code="rate_limit_exceeded",
                retry_after=2.0,
            )  # fmt: skip


class Keys:
    """All keys of a server; without any, everybody who can reach it may ask."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = list(keys)
        self._anybody = Key("anybody")
        names = [key.name for key in self._keys]
        if len(set(names)) < len(names):
            raise InvalidInputError("two API keys have one name")

    def __bool__(self) -> bool:
        return bool(self._keys)

    def who(self, authorization: str | None) -> Key:
        """Whose request it is. Every key is compared, whichever fits, and none sooner or later than another.

        Raises:
            RefusedError: 401.
        """
        if not self._keys:
            return self._anybody
        kind, _, secret = (authorization or "").partition(" ")
        digest = _digest(secret.strip())
        found = None
        for key in self._keys:
            if hmac.compare_digest(digest, key.digest):
                found = key
        if found is None or kind.lower() != "bearer":
            raise RefusedError(401, "a valid API key is due: Authorization: Bearer KEY", code="invalid_api_key")
        return found

    @classmethod
    def read(cls, path: Path | None, environment: Mapping[str, str]) -> Keys:
        """Those of a file, and the one in the environment.

        The file is TOML, a table for each: `[alice]`, `key = "..."`, and if wanted `tokens_per_day`, `seconds` and
        `concurrency`.

        Raises:
            InvalidInputError: the file cannot be read, or a key is too short to be one.
        """
        keys = [] if path is None else _read(path)
        if secret := environment.get(VARIABLE):
            keys.append(_key("environment", {"key": secret}, VARIABLE))
        return cls(keys)


def _read(path: Path) -> list[Key]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"the keys in {str(path)!r} cannot be read: {error}") from error
    return [_key(name, table, f"{str(path)!r}") for name, table in tables.items()]


def _key(name: str, table: Any, where: str) -> Key:
    if not isinstance(table, dict) or not isinstance(table.get("key"), str) or table.keys() - set(_SETTINGS):
        raise InvalidInputError(f"{name!r} in {where} must be a table with {', '.join(_SETTINGS)}; key alone is due")
    if len(table["key"]) < SHORTEST:
        raise InvalidInputError(f"the key of {name!r} in {where} is shorter than {SHORTEST} characters")
    limits = {setting: value for setting, value in table.items() if setting != "key"}
    for setting, value in limits.items():
        kinds = (int, float) if setting == "seconds" else (int,)
        if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
            raise InvalidInputError(f"{setting} of {name!r} in {where} must be a positive number, got {value!r}")
    return Key(name, _digest(table["key"]), **limits)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
