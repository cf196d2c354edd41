"""From an answer that has come to the tokens of a run, with its account checked. It knows no stream and no request."""

from __future__ import annotations

from tts_search.errors import GeneratorError, InvalidInputError
from tts_search.generators.engine_requests import Run
from tts_search.generators.openai.transcriber import Transcriber, stop_index
from tts_search.generators.openai.watch import too_many
from tts_search.generators.openai.wire import Answer
from tts_search.generators.tokenizer import PretrainedTokenizer


class Reading:
    """Reads the answers of one server, which calls the model `model`.

    `logprobs` says whether it was asked for log-probabilities, `needs_ids` that nothing but its own ids will do.
    """

    def __init__(
        self,
        text: Transcriber,
        tokenizer: PretrainedTokenizer,
        model: str,
        context_tokens: int,
        logprobs: bool,
        needs_ids: bool,
    ) -> None:
        self._text = text
        self._tokenizer = tokenizer
        self._model = model
        self._context_tokens = context_tokens
        self._wants_logprobs = logprobs
        self._needs_ids = needs_ids
        self._tokenizer_fits = False  # not looked at yet

    def run_of(self, answer: Answer, stop_ids: frozenset[int], max_tokens: int) -> Run:
        """What has come, as tokens: at most `max_tokens`, up to and with the one that ended it.

        Raises:
            GeneratorError: the answer is not what was asked for, or the account does not fit it.
            InvalidInputError: the tokenizer is another model's.
        """
        self._check_account(answer, max_tokens)
        shown = self._shown(answer)
        tokens = shown[: stop_index(shown, stop_ids) + 1][:max_tokens]
        logprobs = self._logprobs(answer, len(shown))[: len(tokens)]
        ended = bool(tokens) and tokens[-1] in stop_ids
        if answer.finish == "stop" and not ended and len(tokens) < max_tokens:
            # Servers hide the token that ended a completion; some say which it was.
            stop = answer.stop if isinstance(answer.stop, int) else None
            tokens.append(stop if stop in stop_ids else min(self._tokenizer.eos_ids))
            logprobs.append(sum(logprobs) / len(logprobs) if logprobs else 0.0)
        counted = answer.received if answer.counted is None else answer.counted
        if answer.counted is None and not answer.exact and answer.finish == "length":
            counted = max_tokens  # by the server's word; chunks of text do not tell how many tokens they are
        sampled = min(max(len(tokens), counted), max_tokens)
        if not tokens or (answer.finish == "length" and sampled < max_tokens and not ended):
            raise GeneratorError(
                f"{answer.server} ended a completion for length after {sampled} of {max_tokens} tokens: its "
                f"context is smaller than {self._context_tokens} tokens, or it has a limit of its own; pass a smaller "
                "context_tokens"
            )
        return Run(tokens, logprobs, answer.rows[: len(tokens)], sampled, answer.cached_tokens).checked()

    def _check_account(self, answer: Answer, max_tokens: int) -> None:
        server, sent = answer.server, len(answer.ids)
        if answer.finish not in ("stop", "length"):
            raise GeneratorError(
                f"{server} ended a completion by {answer.quote(repr(answer.finish))}: nothing tells how to go on"
            )
        counted = sent if answer.counted is None else answer.counted
        if max(counted, sent) > max_tokens:
            raise too_many(server, max(counted, sent), max_tokens)
        if counted < sent:
            raise GeneratorError(f"{server} sent {sent} tokens, and accounts for {counted} of them")

    def _shown(self, answer: Answer) -> list[int]:
        """The tokens that the server has shown, or those that its text has here."""
        server = answer.server
        if not answer.exact:
            if self._needs_ids:
                raise GeneratorError(
                    f"{server} takes token ids and does not show those it samples, so that nothing can be scored or "
                    "exact to the token: use a server that knows return_token_ids, or head=None and tokens='text'"
                )
            return self._text.read(answer.text)
        if not self._tokenizer_fits and answer.text:
            if not self._text.matches(answer.ids, answer.text):
                raise InvalidInputError(
                    f"{server} writes {answer.text:.60} for tokens that are {self._tokenizer.decode(answer.ids):.60} "
                    f"here: pass tokenizer=, the folder of the model that it serves as {self._model!r}"
                )
            self._tokenizer_fits = True
        return answer.ids

    def _logprobs(self, answer: Answer, count: int) -> list[float]:
        """One for each of `count` tokens that the server has shown: its own, or the mean where they cannot be told."""
        given = answer.logprobs
        if not self._wants_logprobs:
            return [0.0] * count
        if len(given) == count or (not answer.exact and len(given) == count + 1):  # one more: a hidden stop token's
            return given[:count]
        if not given or answer.exact:
            raise GeneratorError(
                f"{answer.server} gave {len(given)} log-probabilities for {count} tokens: pass logprobs=False if "
                "it has none; mean log-probabilities then say nothing"
            )
        return [sum(given) / len(given)] * count
