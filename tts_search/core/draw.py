"""One sample on its way from a node to its ending: takes completions in, knows when it is done. Pure; no engine.

An engine may stop at a token that *can* end a step and does not (the second of a run, say). Here is decided whether it
does.
"""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from tts_search.core.protocols import Completion, Request, Tokenizer, Until
from tts_search.core.tree import NAN, Ending, Node
from tts_search.errors import GeneratorError, shown
from tts_search.segmentation import Phase, Segmenter, State


def _ints() -> array[int]:
    return array("i")


def _floats() -> array[float]:
    return array("d")


@dataclass(slots=True, eq=False)
class Draw:
    """The `number`-th sample from `node`, allowed `want` sampled tokens in all, grown by one or more requests
    (`part`); by a single one if it is `whole`, of an engine that cannot go on with it.

    With `closes_step` the end of the segmented part ends its last step, as a scorer that reads text needs it; a head
    reads step tokens alone. `is_last` says that its path has room for nothing more.
    """

    node: Node
    number: int
    until: Until
    want: int
    state: State
    whole: bool = False
    tokens: array[int] = field(default_factory=_ints)
    logprobs: array[float] = field(default_factory=_floats)
    scores: array[float] = field(default_factory=_floats)
    scored: bool = False
    step_ends: list[int] = field(default_factory=list)
    forced: int = 0
    sampled: int = 0
    part: int = 0
    ending: Ending | None = None
    closes_step: bool = False
    is_last: bool = False

    @property
    def left(self) -> int:
        """How many tokens it may still sample."""
        return self.want - self.sampled

    @property
    def prefix_key(self) -> tuple[int, int, Until]:
        """Draws with equal keys can share one request: fresh samples of one node, or a sample by itself."""
        return (self.node.index, self.number if self.part else -1, self.until)

    def force(self, tokens: Sequence[int], segmenter: Segmenter) -> None:
        """Begin with tokens that are put there, not sampled."""
        self.tokens.extend(tokens)
        self.scores.extend([NAN] * len(tokens))
        self.forced = len(tokens)
        _, self.state = segmenter.scan(self.state, tokens)

    def absorb(self, completion: Completion, segmenter: Segmenter, eos_ids: frozenset[int]) -> None:
        """Take in one completion, checked already; sets `ending` when the sample is complete.

        Only the last token of a completion can be a stop. An end-of-text token inside the thinking part closes that
        part and is dropped: the answer stage goes on from there.
        """
        ids = completion.token_ids
        self.part += 1
        self.sampled += int(completion.sampled_tokens)
        self.logprobs.extend(() if completion.logprobs is None else completion.logprobs)
        begin = self.node.length + len(self.tokens)
        if ids[-1] in eos_ids:
            ends, self.state, closed = segmenter.scan_part(self.state, ids[:-1])
            part = len(ids) - 1
            if self.state.phase is Phase.THINKING:
                self.ending, ids = Ending.THOUGHT, ids[:-1]
            else:
                self.ending = Ending.END
                self.state = segmenter.advance(self.state, ids[-1])
                ends += [len(ids)] if self.state.boundary else []
        else:
            part = len(ids)
            ends, self.state, closed = segmenter.scan_part(self.state, ids)
            if self.until is not Until.END:
                if closed is not None:
                    self.ending = Ending.THOUGHT
                elif self.until is Until.STEP and self.state.boundary:
                    self.ending = Ending.STEP
        self.tokens.extend(ids)
        if completion.scores is None:
            self.scores.extend([NAN] * len(ids))
        else:
            self.scored = True
            self.scores.extend(completion.scores[: len(ids)])
        self.step_ends += [begin + end for end in ends]
        if self.ending is None and (self.left <= 0 or self.whole):
            self.ending = Ending.LENGTH
        if self.closes_step:
            self._close_step(segmenter, begin + (part if closed is None else closed), closed is not None)

    def _close_step(self, segmenter: Segmenter, end: int, tagged: bool) -> None:
        """End the last step where the segmented part ends, if it does and there is more than white space in it.

        That is at `end`, in front of the closing tag where one stands there (`tagged`). What is cut off is no step, but
        for a path that has none and no room for one: it is judged as it stands.
        """
        if not tagged and (self.ending in (None, Ending.STEP) or self.state.phase is Phase.ANSWER):
            return
        begin = self.step_ends[-1] if self.step_ends else self.node.last_step_end
        if end <= begin or (self.ending is Ending.LENGTH and not tagged and (begin or not self.is_last)):
            return
        own = self.tokens[: end - self.node.length]
        pieces = [segmenter.piece(token) for token in [*self.node.ids_from(begin), *own][-(end - begin) :]]
        if tagged and segmenter.closing is not None:
            pieces = pieces[: segmenter.closing.tokens_before(pieces)]
        if b"".join(pieces).strip():
            self.step_ends.append(begin + len(pieces))

    def to_node(self, index: int) -> Node:
        """The node that this sample has become; scored as its parent is, until its own steps are."""
        up = self.node
        return Node(
            index=index,
            up=up,
            depth=up.depth + 1,
            length=up.length + len(self.tokens),
            ids=self.tokens,
            ending=self.ending or Ending.LENGTH,
            state=self.state,
            new_step_ends=tuple(self.step_ends),
            step_count=up.step_count + len(self.step_ends),
            value=up.value,
            carry=up.carry,
            logprobs=self.logprobs,
            token_scores=self.scores if self.scored else None,
            forced_tokens=self.forced,
            counted_tokens=self.sampled if self.whole else None,
            logprob_sum=up.logprob_sum + math.fsum(self.logprobs),
            logprob_count=up.logprob_count + len(self.logprobs),
        )


def stop_ids(until: Until, segmenter: Segmenter, tokenizer: Tokenizer) -> frozenset[int]:
    """Where an engine has to stop so that no sample runs past `until`."""
    ids = tokenizer.eos_ids
    if until is not Until.END and segmenter.closing is not None:
        ids |= segmenter.closing.ends
    if until is Until.STEP:
        ids |= segmenter.step_ids
    return ids


def check_completions(
    completions: Sequence[Completion], request: Request, known_ids: int, *, whole: bool = False
) -> None:
    """Hold a generator to its contract; `known_ids` is how many ids its vocabulary has.

    Where it answers `whole` chats alone, its ids are not the tokens that it samples, and one that was cut off may have
    been by a limit of its own.

    Raises:
        GeneratorError: no list of completions, the wrong number of them, an empty or overlong one, columns of unequal
            length, ids or counts that are none, a stop token in mid-completion, log-probabilities or scores that are
            no numbers.
    """
    if not isinstance(completions, Sequence) or not all(isinstance(c, Completion) for c in completions):
        raise GeneratorError(f"the generator returned {shown(completions)}: a list of Completions is due")
    if len(completions) != len(request.seeds):
        raise GeneratorError(f"the generator returned {len(completions)} completions for {len(request.seeds)} seeds")
    for completion in completions:
        try:
            _check_counts(completion, request, whole)
            _check_values(completion, request, known_ids, whole)
        except (TypeError, ValueError, OverflowError) as error:
            raise GeneratorError(f"the generator returned {shown(completion)}: {error}") from error


def _check_counts(completion: Completion, request: Request, whole: bool) -> None:
    count = len(completion.token_ids)
    if count < 1 or not (1 if whole else count) <= completion.sampled_tokens <= request.max_tokens:
        raise GeneratorError(
            f"the generator returned {count} tokens and sampled {completion.sampled_tokens}, where at least 1 and "
            f"at most {request.max_tokens} were asked for"
        )
    operator.index(completion.sampled_tokens)  # numpy's whole numbers are as good as ints, 3.0 is none
    if operator.index(completion.cached_tokens) < 0:
        raise GeneratorError(f"the generator returned cached_tokens={completion.cached_tokens}: 0 or more are due")
    if completion.prompt_tokens is not None and operator.index(completion.prompt_tokens) < 0:
        raise GeneratorError(f"the generator returned prompt_tokens={completion.prompt_tokens}: 0 or more are due")
    logprobs = None if completion.logprobs is None else len(completion.logprobs)
    scores = None if completion.scores is None else len(completion.scores)
    if (logprobs not in (None, count) and not whole) or scores not in (None, count):
        raise GeneratorError(
            f"the generator returned {count} tokens with {logprobs} log-probabilities and {scores} scores: one each "
            "per token is due"
        )


def _check_values(completion: Completion, request: Request, known_ids: int, whole: bool) -> None:
    ids = completion.token_ids
    least, most = min(ids), max(ids)
    if not (least >= 0 and most < known_ids):
        raise GeneratorError(
            f"the generator returned token {most if least >= 0 else least}, and its vocabulary has {known_ids}"
        )
    _ints().extend(ids)  # what a column does not take is no number
    if completion.scores is not None:
        _floats().extend(completion.scores)
    if completion.sampled_tokens < request.max_tokens and ids[-1] not in request.stop_ids and not whole:
        raise GeneratorError(
            f"the generator ended after {completion.sampled_tokens} of {request.max_tokens} tokens on token "
            f"{ids[-1]}, which is not a stop token"
        )
    if not request.stop_ids.isdisjoint(ids[:-1]):
        at = next(place for place, token in enumerate(ids) if token in request.stop_ids)
        raise GeneratorError(f"the generator went on behind stop token {ids[at]}: it must stop at stop_ids")
    logprobs = () if completion.logprobs is None else completion.logprobs
    if not sum(logprobs) < math.inf and not all(p < math.inf for p in logprobs):
        raise GeneratorError(  # minus infinity is a probability that underflowed
            "the generator returned NaN or infinite log-probabilities: the model's weights or dtype are broken"
        )
