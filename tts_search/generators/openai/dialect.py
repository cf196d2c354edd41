"""What a chat service takes of a request, learned from what it refuses: fields it does not know, limits of its own.

Services differ in what they take, and say so by status 400. A refused request costs nothing; it is asked again without
what was at fault, and what was learned holds for all that follow. It knows no connection.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from tts_search.generators.openai.troubles import RefusedError

logger = logging.getLogger(__name__)

LIMITS = ("max_tokens", "max_completion_tokens")
OPTIONAL = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "logprobs", "stream_options", "stream",
    "skip_special_tokens",
)  # fmt: skip
UNNOTICED = ("stream_options", "stream", "skip_special_tokens")  # nothing that a user asked for
LEAST_LIMIT = 16
TREES = 1024  # whose limits are remembered

_RANGES = ("between", "less than", "greater than", "range")
_SIZES = ("too large", "at most", "maximum", "exceed", "context", "longer than", "less than", "up to")


class Dialect:
    """What one service takes. `name` is what messages call it.

    `limit_field` is how it spells the limit of tokens, `left_out` what it refused, each with its own words.
    """

    def __init__(self, name: str) -> None:
        self.limit_field = LIMITS[0]
        self.left_out: dict[str, str] = {}
        self._name = name
        self._limits: OrderedDict[int, int] = OrderedDict()

    def limit(self, tree: int, max_tokens: int) -> int:
        """How many tokens may be asked for behind the prompt of this tree."""
        return min(max_tokens, self._limits.get(tree, max_tokens))

    def learn(self, refusal: RefusedError, body: Mapping[str, Any], tree: int) -> bool:
        """Whether the request of `body` may do better, asked again as this now is."""
        if self.left_out.keys() & body.keys() or (self.limit_field not in body and any(f in body for f in LIMITS)):
            return True  # learned meanwhile, from another request
        asked = next((body[field] for field in LIMITS if field in body), None)
        if asked is not None and self.limit(tree, asked) < asked:
            return True
        if asked is not None and self._is_size(refusal):
            return self._lower(refusal, asked, tree)
        if self._names(refusal, self.limit_field, body) and self.limit_field == LIMITS[0]:
            self.limit_field = LIMITS[1]
            return True
        if any(words in refusal.words.lower() for words in _RANGES):
            return False  # a value that none could be asked with: the user is told
        found = [field for field in OPTIONAL if field in body and self._names(refusal, field, body)]
        for field in found:
            self.left_out[field] = refusal.words
            logger.warning("%s refuses %s, and is asked without from now on: %s", self._name, field, refusal.words)
        return bool(found)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user who asked for it should know."""
        lost = [field for field in self.left_out if field not in UNNOTICED]
        return tuple(f"{self._name} takes no {field}: its own way was taken" for field in lost)

    def _is_size(self, refusal: RefusedError) -> bool:
        """Whether it is the number that is at fault, not the field."""
        words = refusal.words.lower()
        about = refusal.field in LIMITS or any(word in words for word in (*LIMITS, "context", "tokens"))
        return about and bool(_numbers(words)) and any(size in words for size in _SIZES)

    def _lower(self, refusal: RefusedError, asked: int, tree: int) -> bool:
        """Ask for less: what its words allow, else the half."""
        numbers = sorted({n for n in _numbers(refusal.words) if n < asked}, reverse=True)
        lower = asked // 2
        if numbers and numbers[0] > lower // 8:
            # "maximum context length is 8192 tokens and your request has 35 input tokens": the rest is to be had.
            prompt = numbers[1] if len(numbers) > 1 else 0
            lower = numbers[0] - prompt
        if lower < LEAST_LIMIT:
            return False
        self._limits[tree] = lower
        while len(self._limits) > TREES:
            self._limits.popitem(last=False)
        return True

    def _names(self, refusal: RefusedError, field: str, body: Mapping[str, Any]) -> bool:
        """Whether a refusal of `body` is about a field. It may quote the question, whose words name no fields."""
        named = body.keys() & re.findall(r"\w+", refusal.field or "")
        if named:
            return field in named
        return re.search(rf"\b{field}\b", refusal.words) is not None and field not in str(body["messages"]).lower()


def _numbers(words: str) -> list[int]:
    return [int(number) for number in re.findall(r"(?<![\w.])\d+(?![\w.]*\d)", words.replace(",", ""))]
