"""An OpenAI-compatible server as a generator: `/v1/completions` of vLLM, SGLang, llama.cpp, or a hosted service.

Where the server takes token ids and shows those it sampled, completions are exact to the token, and a vLLM server that
carries the SPRM head (`generators.vllm.server`) returns its scores with them. Elsewhere texts are exchanged,
which the local tokenizer reads. Every completion is streamed, so that silence is noticed, and a stream that is cut goes
on where it ended. What each server gives and what is lost is in docs/endpoints.md.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from tts_search.core.protocols import Completion, Request
from tts_search.errors import EngineUnavailableError, InvalidInputError, ModelNotFoundError
from tts_search.generators.engine_requests import TAIL_SEED, Completing, Run
from tts_search.generators.openai.cards import Card, only
from tts_search.generators.openai.drawing import SPELLED, SPELLING, Drawing
from tts_search.generators.openai.endpoint import Endpoint
from tts_search.generators.openai.listener import Listener, listeners
from tts_search.generators.openai.replies import Reading
from tts_search.generators.openai.transcriber import Transcriber
from tts_search.generators.openai.troubles import CutError, RefusedError
from tts_search.generators.openai.watch import Watch
from tts_search.generators.openai.wire import NO_HEAD, Answer, Body, session_of
from tts_search.generators.pretrained import PretrainedGenerator, longest_in
from tts_search.generators.tokenizer import PretrainedTokenizer
from tts_search.generators.vllm.head import read_config, score_in_engine
from tts_search.generators.vllm.plugin import score_columns
from tts_search.models import contents_of, digest_files, model_folder
from tts_search.sprm.config import SPRMConfig
from tts_search.thinking import ThinkingTags

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Sample:
    """A completion on its way, over however many streams."""

    request: Request
    prefix: Sequence[int]
    max_tokens: int
    answer: Answer
    listener: Listener | None


class OpenAIGenerator(PretrainedGenerator):
    """The `Generator` that asks a server.

    Args:
        base_url: of the server's API, such as `http://localhost:8000/v1`. With `model`, `tokenizer` and
            `context_tokens` the server is not asked what it serves: behind a router, one answers for all.
        model: what the server calls the model; None where it serves one, or one that `tokenizer` names.
        tokenizer: folder or hub id of the model, for its tokenizer, its sampling defaults, and the SPRM head; None asks
            the server where its model came from. The weights are not needed.
        head: `"auto"` takes the scores of the head in the model folder if there is one, which asks for a server started
            by `tts_search.generators.vllm.server`; None takes none; or a head's folder.
        tokens: `"ids"` insists on token-exact completions, `"text"` exchanges texts, `"auto"` begins with ids and goes
            over to texts where the server refuses them.
        context_tokens: longest prefix plus completion; None is what the server says, else the model's config.
        logprobs: False for a server that gives no log-probabilities; every token then counts as certain.
        api_key: None takes `OPENAI_API_KEY` from the environment.
        max_concurrency: completions asked for at once.
        timeout_seconds: of silence, after which a connection is given up.
        max_retries: how often a completion is asked for again, or gone on with, after failures that may pass: 408, 409,
            429, 5xx, no connection, silence, a stream that is cut.
        session_in_body: whether a request names its tree as `session_id` in the body too, not only in the header
            `X-Session-ID`. Routers send what is of one session where its prefixes are cached.
        thinking_tags: the texts around a thought, where neither vocabulary nor chat template tells; None for a model
            that does not think.

    Raises:
        MissingDependencyError: aiohttp is not installed.
        GeneratorError: the server cannot be reached, or refuses the key.
        ModelNotFoundError: the server serves no such model, or no tokenizer for it is known here.
        InvalidInputError, HeadMismatchError: a value that cannot be used, a head that does not fit.
    """

    reports_completions = True

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        tokenizer: str | Path | None = None,
        head: Literal["auto"] | str | Path | None = "auto",
        tokens: Literal["auto", "ids", "text"] = "auto",
        context_tokens: int | None = None,
        logprobs: bool = True,
        api_key: str | None = None,
        max_concurrency: int = 64,
        timeout_seconds: float = 300.0,
        max_retries: int = 4,
        session_in_body: bool = False,
        thinking_tags: ThinkingTags = "auto",
    ) -> None:
        if tokens not in ("auto", "ids", "text"):
            raise InvalidInputError(f"tokens must be 'auto', 'ids' or 'text', got {tokens!r}")
        if max_concurrency < 1 or max_retries < 0 or not timeout_seconds > 0:
            raise InvalidInputError(
                "max_concurrency must be at least 1, max_retries at least 0 and timeout_seconds positive, got "
                f"{max_concurrency}, {max_retries} and {timeout_seconds}"
            )
        self._endpoint = Endpoint(
            base_url,
            api_key=api_key,
            timeout_seconds=timeout_seconds,
            max_retries=max_retries,
            max_concurrency=max_concurrency,
        )
        card = _card(self._endpoint, model, tokenizer, context_tokens)
        folder = _folder(card, tokenizer)
        own_tokenizer = PretrainedTokenizer(folder, thinking_tags=thinking_tags)
        self._text = Transcriber(own_tokenizer)
        config = read_config(folder) if (folder / "config.json").is_file() else {}
        head_config: SPRMConfig | None = None
        columns: tuple[int, int] | None = None
        if tokens != "text":
            head_config, scoring = score_in_engine(folder, head, config, {})
            columns = score_columns(config["vocab_size"]) if scoring else None
        elif head not in ("auto", None):
            raise InvalidInputError("an SPRM head needs token-exact completions: leave tokens='text' or head out")
        context = context_tokens or card.max_model_len or longest_in(config)
        if not context or context < 2:
            raise InvalidInputError(f"context_tokens must be at least 2, got {context}: pass the model's limit")
        super().__init__(card.id, own_tokenizer, int(context), head_config, None)
        self.fingerprint = {
            "engine": "endpoint",
            "address": self._endpoint.name,
            "model": [card.id, card.root],
            "exchanges": tokens,
            "logprobs": logprobs,
            "tokenizer": digest_files(folder, ("tokenizer.json", "tokenizer.model")),
            "head": None if head_config is None else contents_of(folder if head == "auto" else Path(str(head))),
        }
        self._completing = Completing.by(own_tokenizer, int(context), head_config)
        self._body = Body(
            model=card.id, columns=columns, logprobs=logprobs, session=session_in_body, patience_seconds=timeout_seconds
        )
        self._drawing = Drawing(self._endpoint.name, own_tokenizer.sampling, card.owned_by)
        spells = own_tokenizer.thinks_in_control_tokens and card.owned_by in SPELLING
        self._spelled = SPELLED if spells else {}
        self._sends_ids: bool | None = {"auto": None, "ids": True, "text": False}[tokens]
        self._needs_ids = tokens == "ids" or columns is not None
        self._reading = Reading(self._text, own_tokenizer, card.id, int(context), logprobs, self._needs_ids)

    async def generate(self, request: Request) -> Sequence[Completion]:
        """One completion per seed, in their order. Cancelling the call closes its connections.

        Raises:
            InvalidInputError: the prefix is empty or fills the context, or the server refuses the request.
            GeneratorError: the server failed for good, or broke its own protocol.
        """
        request = replace(request, prefix=tuple(request.prefix))  # it may be joined anew at every look
        self._completing.check(request)
        return await self._completing.all(request, partial(self._sample, request, listeners(request)))

    @property
    def hides_tags(self) -> bool:
        """Whether the tags around a thought may be missing from what comes: control tokens, where texts come."""
        return self._sends_ids is False and self._tokenizer.thinks_in_control_tokens and not self._spelled

    async def aclose(self) -> None:
        await self._endpoint.aclose()

    async def _sample(
        self, request: Request, waiting: dict[int, list[Listener]], prefix: Sequence[int], seed: int, max_tokens: int
    ) -> Run:
        """One completion. A stream that is cut is gone on with behind what came, so that no token is paid for twice."""
        answer = Answer(self._endpoint.name, self._endpoint.quote)
        # The second sample behind a seed's first, for the sake of a score, has a seed of its own: nobody waits for it.
        sample = _Sample(request, prefix, max_tokens, answer, waiting[seed].pop(0) if waiting.get(seed) else None)
        for cut in range(self._endpoint.max_retries + 1):
            try:
                await self._go_on(sample, seed + cut * TAIL_SEED)
                break
            except CutError as error:
                if answer.finish is not None:  # only the account was cut off
                    break
                if cut == self._endpoint.max_retries:
                    raise EngineUnavailableError(f"{error}; gone on with {cut} times, now given up") from error
                await self._endpoint.back_off(cut)
        run = self._reading.run_of(answer, request.stop_ids, max_tokens)
        if request.on_tokens is not None and run.sampled_tokens > answer.received:
            request.on_tokens(run.sampled_tokens - answer.received)
        if sample.listener is not None:
            sample.listener.hear(run.tokens)
        return run

    async def _go_on(self, sample: _Sample, seed: int) -> None:
        request, answer = sample.request, sample.answer
        came = answer.ids if answer.exact else self._text.read(answer.text)
        # A chunk of text may be several tokens, which were sampled all the same.
        missed = answer.begin(answer.received if answer.is_counted else len(came))
        if missed and request.on_tokens is not None:
            request.on_tokens(missed)
        left = sample.max_tokens - answer.received
        if left < 1:  # only the end of the stream was cut off
            answer.finish = "length"
            return
        known = (*sample.prefix, *came)
        refused: RefusedError | None = None
        if self._sends_ids is not False:
            drawn = self._drawing.fields(request.sampling, ids=True)
            try:
                await self._stream(sample, self._body.of(request, known, seed, left, drawn))
                self._sends_ids = True
                self._drawing.answered(request.sampling, exact=answer.exact)
                return
            except RefusedError as error:
                if self._body.columns and not self._sends_ids:
                    raise InvalidInputError(f"{error} ({NO_HEAD})") from error
                if self._sends_ids or self._needs_ids:
                    raise
                refused = error
        text, drawn = self._text.write(known), self._drawing.fields(request.sampling, ids=False)
        try:
            await self._stream(sample, self._body.of(request, text, seed, left, {**drawn, **self._spelled}))
        except RefusedError as error:
            self._drawing.refused(request.sampling, drawn, error)
            await self._stream(sample, self._body.of(request, text, seed, left, {}))
            self._drawing.refuses = True
        self._drawing.answered(request.sampling, exact=answer.exact)
        if self._sends_ids is None:  # only now is it known that it was the ids that the server did not like
            logger.warning("%s takes no token ids, so texts are exchanged: %s", self._endpoint.name, refused)
            self._sends_ids = False

    async def _stream(self, sample: _Sample, body: bytes) -> None:
        request, answer = sample.request, sample.answer
        watch = Watch(self._text, sample.max_tokens)
        async with aclosing(self._endpoint.stream(body, session_of(request))) as chunks:
            async for chunk in chunks:
                count = answer.take(chunk, self._body.columns)
                watch.check(answer, count)
                if count and request.on_tokens is not None:
                    request.on_tokens(count)
                if sample.listener is not None and answer.exact:
                    sample.listener.hear(answer.ids)
                # A server that knows no stop ids goes on behind them: leaving the loop closes the connection.
                if count and answer.finish is None and self._stopped(answer, count, request.stop_ids):
                    answer.finish = "stop"
                    return
        if answer.finish in (None, "abort", "error"):
            answer.finish = None
            raise CutError(f"{self._endpoint.name}/completions ended a stream before its completion")

    def _stopped(self, answer: Answer, tokens: int, stop_ids: frozenset[int]) -> bool:
        """Whether a stop token is among the last chunk's tokens, or in its text."""
        if answer.exact:
            return not stop_ids.isdisjoint(answer.ids[len(answer.ids) - tokens :])
        return self._text.stopped(answer.text, answer.new_characters, stop_ids)


def _card(endpoint: Endpoint, model: str | None, tokenizer: str | Path | None, context_tokens: int | None) -> Card:
    """The model to ask for: the one named, the only one, or the one that was loaded from where `tokenizer` points."""
    if model is not None and tokenizer is not None and context_tokens is not None:
        return Card(id=model)  # nothing is left to ask
    cards = endpoint.models()
    if model is not None:
        return next((card for card in cards if card.id == model), Card(id=model))
    here = {str(tokenizer), str(Path(tokenizer).expanduser().resolve())} if tokenizer is not None else set()
    same = [card for card in cards if {card.id, card.root} & here] or cards
    return only(endpoint.name, same, cards)


def _folder(card: Card, tokenizer: str | Path | None) -> Path:
    """The folder of the tokenizer; the rest of the model need not be there."""
    place = tokenizer or card.root or card.id
    folder = Path(place).expanduser()
    if (folder / "tokenizer.json").is_file():
        return folder
    try:
        return model_folder(place, weights=False)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            f"no tokenizer for {card.id!r} is known here: pass tokenizer=, the folder or hub id of the model ({error})"
        ) from error
