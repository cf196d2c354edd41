"""The embedded policy: a small Qwen2 language model, and its supervised training on traces.

Every batch is drawn afresh from the endless puzzles, so nothing is seen twice and nothing needs a data set on disk.
This module does not know the SPRM head.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from tools.embedded.puzzle_tokenizer import END, PAD, padded_vocabulary, token_id
from tools.embedded.traces import Span, Trace, messages, near_miss, think
from tts_search.embedded.puzzles import LARGEST_RESULT, Puzzle, draw

TEMPERATURE = 0.6
MAX_NEW_TOKENS = 96

ASTRAY = 0.8
"""The share of steps at which a wandering trace makes any move."""

REACH_WEIGHT = 0.3
"""How much the loss of the probe counts beside the policy's own."""


class Batch(NamedTuple):
    """Token ids `[traces, tokens]` and what to learn from them.

    `[shares]`: at (row, place) the token should have this share. `[steps]`: at (step_row, step_place) stands a step
    token, after which the target is in reach or not.
    """

    ids: Tensor
    row: Tensor
    place: Tensor
    token: Tensor
    share: Tensor
    step_row: Tensor
    step_place: Tensor
    in_reach: Tensor


def new_policy(tokenizer: PreTrainedTokenizerFast, *, width: int, blocks: int) -> Qwen2ForCausalLM:
    """A randomly initialized policy. Heads are 32 wide, which every attention backend in use supports."""
    heads = width // 32
    config = Qwen2Config(
        vocab_size=padded_vocabulary(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        initializer_range=0.06,
        tie_word_embeddings=False,
        use_cache=True,
        bos_token_id=None,
        eos_token_id=token_id(tokenizer, END),
        pad_token_id=token_id(tokenizer, PAD),
    )
    policy = Qwen2ForCausalLM(config)
    for table in (policy.model.embed_tokens, policy.lm_head):
        _know_numbers(tokenizer, table.weight, config.initializer_range)
    policy.generation_config = GenerationConfig(
        do_sample=True,
        temperature=TEMPERATURE,
        top_p=1.0,
        top_k=0,
        max_new_tokens=MAX_NEW_TOKENS,
        eos_token_id=token_id(tokenizer, END),
        pad_token_id=token_id(tokenizer, PAD),
    )
    return policy


@torch.no_grad()
def _know_numbers(tokenizer: PreTrainedTokenizerFast, table: Tensor, scale: float) -> None:
    """Start half of each number's row in `[vocabulary, hidden]` at waves over its value and over its logarithm.

    Sums and differences are turns of the first, products and quotients of the second: what a model otherwise spends
    most of its training to find out about tokens that it cannot look into.
    """
    waves = table.shape[1] // 8
    fast, slow = 2.0, 250.0
    periods = fast * (slow / fast) ** (torch.arange(waves) / (waves - 1))
    for value in range(1, LARGEST_RESULT + 1):
        turns = torch.cat([value / periods, math.log(value) / math.log(LARGEST_RESULT) * 50 / periods])
        row = torch.cat([(2 * math.pi * turns).cos(), (2 * math.pi * turns).sin()])
        table[token_id(tokenizer, str(value)), : len(row)] = row * scale * math.sqrt(2)


def render(tokenizer: PreTrainedTokenizerFast, chat: list[dict[str, str]]) -> str:
    """The prompt of a chat, which ends in an open `<think>` line."""
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def draw_trace(kind: int, puzzle: Puzzle, rng: random.Random) -> Trace:
    """A right trace for an even `kind`; for odd ones, in turn, one that wanders and one that aims beside the target."""
    if kind % 2 == 0:
        return think(puzzle, rng)
    return think(puzzle, rng, astray=ASTRAY) if kind % 4 == 1 else think(puzzle, rng, aim=near_miss(puzzle, rng))


def draw_batch(tokenizer: PreTrainedTokenizerFast, rng: random.Random, size: int) -> Batch:
    """`size` fresh traces, of each kind in turn."""
    rows, wanted, ends = list[list[int]](), list[tuple[int, int, int, float]](), list[tuple[int, int, float]]()
    for row in range(size):
        puzzle = draw(rng)
        prompt = render(tokenizer, messages(puzzle, rng))
        ids, shares, steps = encode(tokenizer, prompt, draw_trace(row, puzzle, rng).spans)
        rows.append(ids)
        wanted += [(row, *share) for share in shares]
        ends += [(row, *step) for step in steps]
    longest, pad = max(map(len, rows)), token_id(tokenizer, PAD)
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids in rows])
    return Batch(ids, *map(torch.tensor, zip(*wanted, strict=True)), *map(torch.tensor, zip(*ends, strict=True)))


def encode(
    tokenizer: PreTrainedTokenizerFast, prompt: str, spans: Sequence[Span]
) -> tuple[list[int], list[tuple[int, int, float]], list[tuple[int, float]]]:
    """Ids of a prompt and its trace, what to learn, and the steps.

    What to learn is (place, wanted token, share); shares sum to 1 at a place. Steps are (place of the step token, 1 if
    the target is in reach after it). Spans end where tokens end, so they are encoded one by one.
    """
    ids, *parts = tokenizer([prompt, *(span.text for span in spans), END])["input_ids"]
    learned, steps = list[tuple[int, int, float]](), list[tuple[int, float]]()
    for part, span in zip(parts, [*spans, Span(END)], strict=True):
        if span.wanted is None:
            learned += [(len(ids) + i, token, 1.0) for i, token in enumerate(part)]
        else:
            learned += [(len(ids), token_id(tokenizer, text), share) for text, share in span.wanted.items()]
        ids = ids + part
        if span.in_reach is not None:
            steps.append((len(ids) - 1, float(span.in_reach)))
    return ids, learned, steps


def loss_of(policy: Qwen2ForCausalLM, probe: nn.Linear, batch: Batch) -> tuple[Tensor, Tensor]:
    """Two means: of the cross-entropy with the wanted shares over the places that are learned, and of the `probe`'s.

    The probe tells from the hidden states that an SPRM head reads (`hidden_states[-2]` before each step token) whether
    the target is still in reach. A policy has no need of its own to know that at the end of a step, before it goes on.
    """
    out = policy.model(input_ids=batch.ids[:, :-1], use_cache=False, output_hidden_states=True)
    hidden, states = out.last_hidden_state, out.hidden_states[-2][batch.step_row, batch.step_place - 1]
    reach = binary_cross_entropy_with_logits(probe(states)[:, 0], batch.in_reach)
    places, at = torch.unique(batch.row * batch.ids.shape[1] + batch.place - 1, return_inverse=True)
    row, place = places // batch.ids.shape[1], places % batch.ids.shape[1]
    logs = policy.lm_head(hidden[row, place]).log_softmax(-1)
    return -(logs[at, batch.token] * batch.share).sum() / len(places), reach


def train_policy(
    tokenizer: PreTrainedTokenizerFast,
    policy: Qwen2ForCausalLM,
    *,
    seed: int,
    steps: int,
    traces: int,
    learning_rate: float = 2.5e-3,
    report: Callable[[str], None] = print,
) -> None:
    """Train in place: AdamW, a short warm-up, then a cosine to zero. `traces` is the batch size.

    The probe of `loss_of` is trained along and thrown away: of it stays what the policy's hidden states now hold.
    """
    rng, probe = random.Random(seed), nn.Linear(policy.config.hidden_size, 1)
    optimizer = torch.optim.AdamW(
        [*policy.parameters(), *probe.parameters()], lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    warm = max(1, min(100, steps // 10))
    policy.train()
    started, shown = time.monotonic(), torch.zeros(2)
    for step in range(steps):
        rate = min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * max(0, step - warm) / max(1, steps - warm)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * rate
        batch = draw_batch(tokenizer, rng, traces)
        losses = loss_of(policy, probe, batch)
        optimizer.zero_grad()
        (losses[0] + REACH_WEIGHT * losses[1]).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        shown += (torch.stack(losses).detach() - shown) * (1 if step == 0 else 0.05)
        if (step + 1) % 50 == 0 or step + 1 == steps:
            minutes = (time.monotonic() - started) / 60
            report(f"policy: step {step + 1}/{steps}  loss {shown[0]:.3f}  reach {shown[1]:.3f}  {minutes:.1f} min")
    policy.eval()
