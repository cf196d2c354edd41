"""One sample on its way from a node to its ending: takes completions in, knows when it is done. Pure; no engine.

An engine may stop at a token that *can* end a step and does not (the second of a run, say). Here is decided whether it
does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tts_search.core.protocols import Completion, Request, Tokenizer, Until
from tts_search.core.tree import Ending, Node
from tts_search.errors import GeneratorError
from tts_search.segmentation import Phase, Segmenter, State

NAN = float("nan")


@dataclass(slots=True)
class Draw:
    """The `number`-th sample from `node`, allowed `want` sampled tokens in all, grown by one or more requests
    (`part`).
    """

    node: Node
    number: int
    until: Until
    want: int
    state: State
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    scored: bool = False
    step_ends: list[int] = field(default_factory=list)
    forced: int = 0
    sampled: int = 0
    part: int = 0
    ending: Ending | None = None

    @property
    def prefix_key(self) -> tuple[int, int, Until]:
        """Draws with equal keys can share one request: fresh samples of one node, or a sample by itself."""
        return (self.node.index, self.number if self.part else -1, self.until)

    def force(self, tokens: Sequence[int], segmenter: Segmenter) -> None:
        """Begin with tokens that are put there, not sampled."""
        self.tokens = list(tokens)
        self.scores = [NAN] * len(tokens)
        self.forced = len(tokens)
        _, self.state = segmenter.scan(self.state, tokens)

    def absorb(self, completion: Completion, segmenter: Segmenter, eos_ids: frozenset[int]) -> None:
        """Take in one completion; sets `ending` when the sample is complete.

        An end-of-text token inside the thinking part closes that part and is dropped: the answer stage goes on from
        there.
        """
        self.part += 1
        self.sampled += completion.sampled_tokens
        self.logprobs += completion.logprobs
        scores = completion.scores
        self.scored = self.scored or scores is not None
        for position, token in enumerate(completion.token_ids):
            if self.ending is not None:
                raise GeneratorError(
                    f"the generator went on behind stop token {self.tokens[-1]}: it must stop at stop_ids"
                )
            before = self.state.phase
            if token in eos_ids and before is Phase.THINKING:
                self.ending = Ending.THOUGHT
                continue
            self.tokens.append(token)
            self.scores.append(NAN if scores is None else scores[position])
            self.state = segmenter.advance(self.state, token)
            if self.state.boundary:
                self.step_ends.append(self.node.length + len(self.tokens))
            if token in eos_ids:
                self.ending = Ending.END
            elif self.until is Until.END:
                continue
            elif before is Phase.THINKING and self.state.phase is Phase.ANSWER:
                self.ending = Ending.THOUGHT
            elif self.until is Until.STEP and self.state.boundary:
                self.ending = Ending.STEP
        if self.ending is None and self.sampled >= self.want:
            self.ending = Ending.LENGTH

    def to_node(self, index: int) -> Node:
        """The node that this sample has become; scored as its parent is, until its own steps are."""
        return Node(
            index=index,
            parent=self.node.index,
            depth=self.node.depth + 1,
            length=self.node.length + len(self.tokens),
            token_ids=tuple(self.tokens),
            ending=self.ending or Ending.LENGTH,
            state=self.state,
            step_ends=(*self.node.step_ends, *self.step_ends),
            step_scores=self.node.step_scores,
            value=self.node.value,
            logprobs=tuple(self.logprobs),
            token_scores=tuple(self.scores) if self.scored else None,
            forced_tokens=self.forced,
        )


def stop_ids(until: Until, segmenter: Segmenter, tokenizer: Tokenizer) -> frozenset[int]:
    """Where an engine has to stop so that no sample runs past `until`."""
    ids = tokenizer.eos_ids
    if until is not Until.END and segmenter.thinking is not None:
        ids |= {segmenter.thinking[1]}
    if until is Until.STEP:
        ids |= segmenter.step_ids
    return ids


def check_completions(completions: Sequence[Completion], request: Request) -> None:
    """Hold a generator to its contract.

    Raises:
        GeneratorError: the wrong number of completions, an empty or overlong one, or columns of unequal length.
    """
    if len(completions) != len(request.seeds):
        raise GeneratorError(f"the generator returned {len(completions)} completions for {len(request.seeds)} seeds")
    for completion in completions:
        count = len(completion.token_ids)
        if not 1 <= count <= completion.sampled_tokens <= request.max_tokens:
            raise GeneratorError(
                f"the generator returned {count} tokens and sampled {completion.sampled_tokens}, where at least 1 and "
                f"at most {request.max_tokens} were asked for"
            )
        if len(completion.logprobs) != count or (completion.scores is not None and len(completion.scores) != count):
            raise GeneratorError(
                f"the generator returned {count} tokens with {len(completion.logprobs)} log-probabilities and "
                f"{None if completion.scores is None else len(completion.scores)} scores: one each per token is due"
            )
        if completion.sampled_tokens < request.max_tokens and completion.token_ids[-1] not in request.stop_ids:
            raise GeneratorError(
                f"the generator ended after {completion.sampled_tokens} of {request.max_tokens} tokens on token "
                f"{completion.token_ids[-1]}, which is not a stop token"
            )
        if any(math.isnan(p) for p in completion.logprobs):
            raise GeneratorError(
                "the generator returned NaN log-probabilities: the model's weights or dtype are broken"
            )
