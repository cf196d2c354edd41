"""The embedded policy: a small Qwen2 language model, and its supervised training on traces.

Every batch is drawn afresh from the endless puzzles, so nothing is seen twice and nothing needs a data set on disk.
This module does not know the SPRM head.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from tts_search.embedded.puzzles import draw
from tts_search.embedded.tokenizer import padded_vocabulary
from tts_search.embedded.traces import messages, wander

TEMPERATURE = 0.7
MAX_NEW_TOKENS = 96
IGNORED = -100


class Batch(NamedTuple):
    """Token ids and targets, both `[traces, tokens]`; a target of -100 is not learned."""

    ids: Tensor
    targets: Tensor


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
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    policy = Qwen2ForCausalLM(config)
    policy.generation_config = GenerationConfig(
        do_sample=True,
        temperature=TEMPERATURE,
        top_p=1.0,
        top_k=0,
        max_new_tokens=MAX_NEW_TOKENS,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return policy


def render(tokenizer: PreTrainedTokenizerFast, chat: list[dict[str, str]]) -> str:
    """The prompt of a chat, which ends in an open `<think>` line."""
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def draw_batch(tokenizer: PreTrainedTokenizerFast, rng: random.Random, size: int) -> Batch:
    """`size` fresh traces, every other one wandering, as token ids with the targets that are to be learned."""
    rows: list[tuple[list[int], list[int]]] = []
    for i in range(size):
        puzzle = draw(rng)
        prompt = render(tokenizer, messages(puzzle, rng))
        trace = wander(puzzle, rng, astray=0.5 * (i % 2))
        rows.append(encode(tokenizer, prompt, trace.spans))
    longest = max(len(ids) for ids, _ in rows)
    pad = tokenizer.pad_token_id
    return Batch(
        torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in rows]),
        torch.tensor([targets + [IGNORED] * (longest - len(targets)) for _, targets in rows]),
    )


def encode(
    tokenizer: PreTrainedTokenizerFast, prompt: str, spans: tuple[tuple[str, bool], ...]
) -> tuple[list[int], list[int]]:
    """Ids and targets of a prompt and its trace. Spans end where tokens end, so they are encoded one by one."""
    *parts, end = tokenizer([prompt, *(text for text, _ in spans), str(tokenizer.eos_token)])["input_ids"]
    ids, targets = list(parts[0]), [IGNORED] * len(parts[0])
    for part, (_, learned) in zip([*parts[1:], end], [*spans, ("", True)], strict=True):
        ids += part
        targets += part if learned else [IGNORED] * len(part)
    return ids, targets


def train_policy(
    tokenizer: PreTrainedTokenizerFast,
    policy: Qwen2ForCausalLM,
    *,
    seed: int,
    steps: int,
    traces: int,
    learning_rate: float = 3e-3,
    report: Callable[[str], None] = print,
) -> None:
    """Train in place: AdamW, a short warm-up, then a cosine to zero. `traces` is the batch size."""
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm = max(1, min(100, steps // 10))
    policy.train()
    started, shown = time.monotonic(), 0.0
    for step in range(steps):
        rate = min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * max(0, step - warm) / max(1, steps - warm)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * rate
        batch = draw_batch(tokenizer, rng, traces)
        keep = batch.targets[:, 1:] != IGNORED
        hidden = policy.model(input_ids=batch.ids[:, :-1], use_cache=False).last_hidden_state
        loss = cross_entropy(policy.lm_head(hidden[keep]), batch.targets[:, 1:][keep])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        shown = loss.item() if step == 0 else 0.95 * shown + 0.05 * loss.item()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            minutes = (time.monotonic() - started) / 60
            report(f"policy: step {step + 1}/{steps}  loss {shown:.3f}  {minutes:.1f} min")
    policy.eval()
