"""Graded samples of the embedded policy, with what its SPRM head reads at every step.

A plain batched sampler for building and measuring; searching is done by the library's generators. It does not know the
head's weights, only where a head with `readout="previous"` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from tools.embedded.policy import MAX_NEW_TOKENS, TEMPERATURE, render
from tools.embedded.puzzle_tokenizer import END, END_THINK, PAD, STEP, token_id
from tts_search.embedded.puzzles import Puzzle, expression


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One graded response: `log_probability` is its tokens' mean at temperature 1, `steps` is `[steps, hidden]`."""

    text: str
    correct: bool
    log_probability: float
    steps: Tensor

    @property
    def answer(self) -> str:
        """The final expression: what majority voting counts."""
        return expression(self.text)


def sample(
    policy: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    puzzles: Sequence[Puzzle],
    *,
    n: int,
    seed: int,
    temperature: float = TEMPERATURE,
    batch: int = 512,
    report: Callable[[str], None] | None = None,
) -> list[list[Sample]]:
    """`n` samples for each puzzle, in its standard wording. `batch` counts samples; the seed decides them all."""
    found: list[list[Sample]] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        size = max(1, batch // n)
        for start in range(0, len(puzzles), size):
            part = puzzles[start : start + size]
            samples = list(_sample_batch(policy, tokenizer, part, n, temperature))
            found += [samples[i : i + n] for i in range(0, len(samples), n)]
            if report is not None:
                right = sum(s.correct for group in found for s in group) / (len(found) * n)
                report(f"samples: {len(found) * n}/{len(puzzles) * n}  right {right:.3f}")
    return found


@torch.inference_mode()
def _sample_batch(
    policy: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    puzzles: Sequence[Puzzle],
    n: int,
    temperature: float,
) -> Iterator[Sample]:
    prompts = [render(tokenizer, [{"role": "user", "content": puzzle.question}]) for puzzle in puzzles]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    sequences: Tensor = cast(Any, policy).generate(
        inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        do_sample=True,
        temperature=temperature,
        top_p=1.0,
        top_k=0,
        num_return_sequences=n,
        max_new_tokens=MAX_NEW_TOKENS,
    )
    pad, begins = token_id(tokenizer, PAD), inputs["input_ids"].shape[1]
    rows = [row[row != pad] for row in sequences]
    lengths = [int((row[begins:] != pad).sum()) for row in sequences]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    output = policy.model(input_ids=ids, output_hidden_states=True, use_cache=False)
    logs = policy.lm_head(output.last_hidden_state[:, :-1]).log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        response = row[-length:]
        first = len(row) - length
        read_at = torch.tensor([first + end - 1 for end in step_tokens(tokenizer, response.tolist())], dtype=torch.long)
        text = str(tokenizer.decode(response)).removesuffix(END)
        yield Sample(
            text=text,
            correct=END_THINK in text and puzzles[i // n].grade(text),
            log_probability=float(logs[i, first - 1 : len(row) - 1].mean()),
            steps=output.hidden_states[-2][i, read_at].clone(),
        )


def step_tokens(tokenizer: PreTrainedTokenizerFast, response: Sequence[int]) -> list[int]:
    """Places of the step tokens in the thinking part of a response: the first of a run, none at the very start."""
    step, close = token_id(tokenizer, STEP), token_id(tokenizer, END_THINK)
    thinking = response[: response.index(close)] if close in response else response
    return [i for i, token in enumerate(thinking) if token == step and i > 0 and thinking[i - 1] != step]
