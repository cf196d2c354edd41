"""Model folders that write one text: what engines, servers and searches make of what a model writes is then known.

The model is a real one (GPT-2), so that every engine runs it. It attends to nothing: its position embeddings point at
the token that comes next, so that behind a prompt of the length it was made for it writes its text, and then its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

WIDTH = 256


def write_scripted(
    folder: Path, tokenizer: PreTrainedTokenizerFast, prompt_tokens: int, script: Sequence[int], *, context: int = 512
) -> Path:
    """Save a model that writes `script` behind any prompt of `prompt_tokens` tokens, and its end behind all else."""
    tokenizer.save_pretrained(folder)
    end = int(tokenizer.eos_token_id)  # pyright: ignore[reportArgumentType]
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=-(-len(tokenizer) // 64) * 64,
            n_positions=context,
            n_embd=WIDTH,
            n_layer=2,
            n_head=2,
            bos_token_id=None,
            eos_token_id=end,
            tie_word_embeddings=True,
        )
    )
    nexts = [end] * context
    for place, token in enumerate(script, start=prompt_tokens - 1):
        nexts[place] = token
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(model.config.vocab_size, WIDTH), dim=-1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # nothing of a block reaches the next: positions decide alone
        model.transformer.wte.weight.copy_(rows)
        model.transformer.wpe.weight.copy_(100 * rows[nexts])
        model.transformer.ln_f.weight.fill_(4.0)  # the next token is certain at any temperature in use
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.6, eos_token_id=end, pad_token_id=end)
    model.save_pretrained(folder)
    return folder
