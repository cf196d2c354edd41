r"""Tiny random checkpoints and trained tokenizers, written in a second, the same on every machine.

Tests that need a real engine, a real tokenizer or a real SPRM head get one here. Nothing is downloaded; the weights
mean nothing, but every shape is one that the engines support (heads 32 wide, counts that two ranks can share).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tts_search.sprm.config import Readout, SPRMConfig
from tts_search.sprm.loading import FOLDER, RELEASED_FILE
from tts_search.sprm.module import SPRM

Architecture = Literal["llama", "qwen2", "qwen3"]
TokenizerKind = Literal["merged", "split", "sentencepiece", "digits"]

ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen2", "qwen3")
TOKENIZER_KINDS: tuple[TokenizerKind, ...] = ("merged", "split", "sentencepiece", "digits")

HIDDEN = 64
LAYERS = 4
SPARE_IDS = 8
"""At least so many ids of the model's vocabulary have no token, as in most published checkpoints."""

TEXTS = [
    "We are given four numbers and a target.\n\nFirst, add the two largest: 13 + 9 = 22.\n\nThat is too small.\n\n",
    "So the product must come first: 4 * 13 = 52.\n\nNow 52 + 9 = 61, and 61 + 26 = 87.\n\nCheck: 87 = 87, yes.\n\n",
    "Wait, the 26 was never given.\nLet us go back to the second line. Is 6 * 9 = 54 any better? It is (a little)!\n\n",
    "Über den Wolken – naïve café, 你好,世界。\n\nδ → ε: “quoted”, a list:\n- one\n- two\n    indented code = 1\n\n",
]

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)

# Qwen's and Llama 3's pattern: punctuation takes the line breaks behind it along, so `.\n\n` can be one token.
MERGING = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(
    kind: TokenizerKind = "merged", *, thinking: bool = True, chat_template: bool = True
) -> PreTrainedTokenizerFast:
    r"""A small tokenizer that writes any text.

    `merged` is byte-level BPE with `.\n\n` as one token; `split` is byte-level BPE in which every line break stands
    alone; `sentencepiece` is BPE over `▁` with byte fallback; `digits` is SmolLM2's recipe, which writes `.\n\n` as
    three tokens.
    """
    core = Tokenizer(models.BPE(byte_fallback=kind == "sentencepiece"))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    specials: list[str] = []
    if kind == "merged":
        core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(MERGING), "isolated"), byte_level])
    elif kind == "split":
        words = pre_tokenizers.Split(Regex(r"\n| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|[^\S\n]+"), "isolated")
        core.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
    elif kind == "digits":
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    else:
        # Llama 2's shape: spaces become `▁` in the normalizer, unknown characters become `<0xNN>`.
        core.normalizer = normalizers.Replace(" ", "▁")
        core.pre_tokenizer = pre_tokenizers.Split(Regex(r"▁?[^▁\n]+|▁|\n"), "isolated")
        core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        alphabet = []
        specials = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=420, min_frequency=1, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    core.train_from_iterator(TEXTS * 2, trainer)
    if specials:  # the byte tokens belong to the vocabulary, and are not texts to look for in the input
        core = _without_added_tokens(core)
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<|im_start|>", "<|im_end|>")])
    if thinking:
        core.add_tokens([AddedToken(t, special=False, normalized=False) for t in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE if chat_template else None,
        clean_up_tokenization_spaces=False,
    )


def write_tokenizer(
    folder: Path, kind: TokenizerKind = "merged", *, thinking: bool = True, chat_template: bool = True
) -> Path:
    """Save `train_tokenizer(...)` into `folder`, and return the folder."""
    train_tokenizer(kind, thinking=thinking, chat_template=chat_template).save_pretrained(folder)
    return folder


def write_head(folder: Path, *, hidden_size: int = HIDDEN, readout: Readout = "previous", seed: int = 0) -> Path:
    """Save a random SPRM head into `folder`, with logits that spread over several units."""
    _head(hidden_size, readout, seed).save_pretrained(folder)
    return folder


def write_released_head(folder: Path, *, hidden_size: int = HIDDEN, seed: int = 0) -> Path:
    """The same head in the form of the released checkpoints: `score_module.pt`, and no config of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(_head(hidden_size, "previous", seed).layers.state_dict(), folder / RELEASED_FILE)
    return folder


def _head(hidden_size: int, readout: Readout, seed: int) -> SPRM:
    torch.manual_seed(seed)
    head = SPRM(SPRMConfig(hidden_size=hidden_size, readout=readout))
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if name.endswith("weight"):
                parameter.normal_(std=0.7 / parameter.shape[1] ** 0.5)
    return head


def write_checkpoint(
    folder: Path,
    architecture: Architecture = "qwen2",
    *,
    tokenizer: TokenizerKind = "merged",
    thinking: bool = True,
    readout: Readout | None = "previous",
    context_tokens: int = 512,
    shard_size: str = "5GB",
    seed: int = 0,
) -> Path:
    r"""Write a whole random model folder (fp32) and return it.

    `readout=None` leaves the head out; `shard_size` is the largest weight file, such as "100KB". The output rows of the
    step token, `</think>` and the end-of-text token are made louder than the others, so that sampled trajectories have
    steps and ends.
    """
    hf = train_tokenizer(tokenizer, thinking=thinking)
    hf.save_pretrained(folder)
    padded = -(-(len(hf) + SPARE_IDS) // 64) * 64
    sizes = {
        "vocab_size": padded,
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": context_tokens,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": hf.eos_token_id,
        "pad_token_id": hf.pad_token_id,
    }
    torch.manual_seed(seed)
    model: LlamaForCausalLM | Qwen2ForCausalLM | Qwen3ForCausalLM
    if architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(head_dim=32, **sizes))
    elif architecture == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**sizes))
    else:
        model = Qwen3ForCausalLM(Qwen3Config(head_dim=32, **sizes))
    loud = [i for text in (".\n\n", "</think>", "<|im_end|>") for i in hf.encode(text) if len(hf.encode(text)) == 1]
    with torch.no_grad():
        model.lm_head.weight[loud] *= 2.0
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.8,
        top_p=0.9,
        top_k=50,
        eos_token_id=hf.eos_token_id,
        pad_token_id=hf.pad_token_id,
    )
    model.float().save_pretrained(folder, max_shard_size=shard_size)
    if readout is not None:
        write_head(folder / FOLDER, readout=readout, seed=seed)
    return folder


def _without_added_tokens(core: Tokenizer) -> Tokenizer:
    described = json.loads(core.to_str())
    described["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(described))
