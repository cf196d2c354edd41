"""How tokens are to be drawn, in a server's own words, and what of it the server cannot be held to.

OpenAI's API has a temperature and `top_p`. `top_k`, `min_p` and a repetition penalty are additions of others: a server
may honour them, refuse them, or read over them without a word. A list of models tells vLLM, SGLang and llama.cpp apart,
whose sources honour all three; and who shows the ids of its tokens, an addition of vLLM's, speaks the rest of it, too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tts_search.core.protocols import Sampling
from tts_search.errors import InvalidInputError
from tts_search.generators.openai.troubles import RefusedError

logger = logging.getLogger(__name__)

NEUTRAL: dict[str, Any] = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
SPELLED: dict[str, Any] = {"skip_special_tokens": False}  # or tags that are control tokens are left out of a text
SPELLING = ("vllm", "sglang")  # who knows that, by `owned_by`
HONEST = ("vllm", "sglang", "llamacpp")  # `owned_by` in their lists of models


@dataclass(slots=True)
class Drawing:
    """What one server is told of a sampling, and what it made of it.

    `own` are the model's settings, which nobody asked for by name. `kind` is who the server says it is. `refuses` is
    set once it has refused what OpenAI's API has no words for.
    """

    server: str
    own: Sampling
    kind: str | None = None
    refuses: bool = False
    _warned: set[str] = field(default_factory=set)

    def fields(self, sampling: Sampling, *, ids: bool) -> dict[str, Any]:
        """What a body says beside temperature and `top_p`.

        With ids, or to a server that is known, everything: it would put the defaults of the model's
        generation_config.json, or its own, in the place of what is left out. To others only what changes something,
        because hosted services refuse what they do not know.

        Raises:
            InvalidInputError: the server refuses what was asked for by name.
        """
        if self.kind == "llamacpp":
            penalty = {"repeat_penalty": sampling.repetition_penalty, "repeat_last_n": -1}  # all tokens, not 64
            return {"top_k": sampling.top_k, "min_p": sampling.min_p, **penalty}
        if ids or self.kind in HONEST:
            return {
                "top_k": sampling.top_k or -1,
                "min_p": sampling.min_p,
                "repetition_penalty": sampling.repetition_penalty,
                "presence_penalty": 0.0,
                "frequency_penalty": 0.0,
            }
        if self.refuses and (asked := self._asked(sampling)):
            raise InvalidInputError(f"{self.server} refuses {_listed(asked)}: {_remedy(asked)}")
        return {} if self.refuses else self._telling(sampling)

    def refused(self, sampling: Sampling, sent: Mapping[str, Any], error: RefusedError) -> None:
        """A text and its `fields`, `sent`, were refused. Returns where it is worth a second try without them.

        Another request may have found out meanwhile that the server refuses them: this one was on its way.

        Raises:
            InvalidInputError: some of them were asked for by name, and are not dropped in silence.
            RefusedError: it cannot be for them.
        """
        if not sent or self.kind in HONEST:
            raise error
        if asked := self._asked(sampling):
            raise InvalidInputError(
                f"{error} ({_listed(asked)} is no setting of OpenAI's API; if it is for that, {_remedy(asked)})"
            ) from error

    def answered(self, sampling: Sampling, *, exact: bool) -> None:
        """A request was answered; `exact` where ids were shown. What may not have been honoured is said, once."""
        said = {name: value for name, value in _active(sampling).items() if name not in self._warned}
        if exact or self.kind in HONEST or not said:
            return
        self._warned |= said.keys()
        if self.refuses:
            logger.warning("%s refuses %s, which the model asks for: it goes without", self.server, _listed(said))
        else:
            logger.warning(
                "%s does not show whether it honours %s: servers read over what they do not know. If its documentation "
                "does not name it, %s",
                self.server,
                _listed(said),
                _remedy(said),
            )

    def _asked(self, sampling: Sampling) -> dict[str, Any]:
        """What the user asked for by name: the model does not."""
        return {name: value for name, value in _active(sampling).items() if value != getattr(self.own, name)}

    def _telling(self, sampling: Sampling) -> dict[str, Any]:
        """What changes something: where the model asks for it, a server may do it untold, and no is an answer too."""
        return {name: getattr(sampling, name) for name in NEUTRAL if name in _active(sampling) | _active(self.own)}


def _active(sampling: Sampling) -> dict[str, Any]:
    """What of a sampling is beyond OpenAI's API, as far as it changes anything."""
    return {name: value for name, idle in NEUTRAL.items() if (value := getattr(sampling, name)) != idle}


def _listed(settings: dict[str, Any]) -> str:
    return " and ".join(f"{name}={value:g}" for name, value in settings.items())


def _remedy(settings: dict[str, Any]) -> str:
    return f"go without by sampling={ {name: NEUTRAL[name] for name in settings} }"
