"""Tiny random reward models of the published architectures, with tokenizers that know their step tags."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForTokenClassification,
    Qwen2Model,
)

from tts_search.core.tree import Trajectory

QUESTION = "What is 13 + 9?"
STEPS = ["First, add the tens: 10.", "Then add the ones:\n3 + 9 = 12.", "So it is 22."]
TEXTS = [QUESTION, *STEPS, "Step 1: Step 2: Step 3: ки\n + -", "system user assistant Please reason step by step.\n"]

CHATML = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
LLAMA3 = (
    "{{- '<|begin|>' -}}{%- for m in messages -%}"
    "{{- '<|head|>' + m['role'] + '<|tail|>\n\n' + m['content'] | trim + '<|eot|>' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|head|>assistant<|tail|>\n\n' -}}{%- endif -%}"
)
# Llama 3's pattern: a run of line breaks, with the blank in front, is one word.
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train_tokenizer(
    *, special: Sequence[str] = (), words: Sequence[str] = (), bos: str | None = None, template: str | None = None
) -> PreTrainedTokenizerFast:
    """Byte-level BPE; `special` tokens, and `words` that are one token each; `bos` in front of what is encoded."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=520,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator([*TEXTS, *(word for word in words for _ in range(50))], trainer)
    marks = [*special, *([bos] if bos else []), "<|end|>"]
    core.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    if bos:
        core.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|end|>",
        bos_token=bos,
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def train_sentencepiece() -> PreTrainedTokenizerFast:
    """As Mistral's: BPE over `▁` with byte fallback and a blank in front; ` ки`, ` +` and ` -` are one token each."""
    core = Tokenizer(models.BPE(byte_fallback=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"▁?[^▁\n]+|▁|\n"), "isolated")
    words = [word for word in (" ки", " +", " -") for _ in range(50)]
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=520, min_frequency=1, special_tokens=alphabet, show_progress=False)
    core.train_from_iterator([*TEXTS, *words], trainer)
    described = json.loads(core.to_str())  # the byte tokens are not texts to look for in the input
    described |= {"added_tokens": [], "pre_tokenizer": None}
    core = Tokenizer.from_str(json.dumps(described))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    core.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in ("<s>", "</s>")])
    core.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )


SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}


def write_qwen(
    folder: Path, *, labels: int, architecture: str, head: Literal["score", "v_head", "ensemble", "other"]
) -> Path:
    """A Qwen2 backbone, a language model's head that nobody needs, and a reward head; as published, in two files."""
    tokenizer = train_tokenizer(
        special=["<extra_0>", "<|im_start|>", "<|im_end|>"],
        bos="<|begin|>" if "Prm" in architecture else None,
        template=CHATML,
    )
    tokenizer.backend_tokenizer.post_processor = None  # Qwen's puts nothing in front
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    config = Qwen2Config(vocab_size=len(tokenizer), tie_word_embeddings=False, **SIZES)
    model = Qwen2ForCausalLM(config)
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    width = SIZES["hidden_size"]
    if head == "v_head":
        weights |= {"v_head.summary.weight": torch.randn(1, width) / 4, "v_head.summary.bias": torch.randn(1)}
    elif head == "ensemble":  # heads, input, output; and the copy that regularized them
        for place, (inner, out) in {"nn1": (width, 128), "nn2": (128, 128), "nn_out": (128, 1)}.items():
            for copy in ("model", "reg_model"):
                weights[f"score.{copy}.{place}.weight"] = torch.randn(4, inner, out) / inner**0.5
                weights[f"score.{copy}.{place}.bias"] = torch.randn(4, out)
    elif head == "other":
        weights |= {"judge.weight": torch.randn(1, width)}
    else:
        weights |= {"score.0.weight": torch.randn(width, width) / 6, "score.0.bias": torch.randn(width)}
        weights |= {"score.2.weight": torch.randn(labels, width) / 3, "score.2.bias": torch.randn(labels)}
    names = sorted(weights)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    places: dict[str, str] = {}
    for number, half in enumerate(halves, start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in half}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(half, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    # Code in a checkpoint is never run: this would fail.
    described = config.to_dict() | {
        "architectures": [architecture],
        **({"num_ensemble": 4, "rr_token": "<extra_0>"} if head == "ensemble" else {}),
        "auto_map": {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"},
    }
    (folder / "modeling_qwen2_rm.py").write_text("raise SystemExit('remote code was run')\n")
    (folder / "config.json").write_text(json.dumps(described))
    return folder


def qwen_hidden(folder: Path, ids: Sequence[int]) -> Tensor:
    """Last hidden states `[tokens, hidden]` of the backbone in `write_qwen`'s folder."""
    model = Qwen2Model(Qwen2Config.from_pretrained(folder)).eval()
    weights = qwen_weights(folder)
    model.load_state_dict({n.removeprefix("model."): v for n, v in weights.items() if n.startswith("model.")})
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(ids)])).last_hidden_state[0]


def qwen_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder."""
    from safetensors.torch import load_file

    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def write_language_model(
    folder: Path, kind: Literal["mistral", "llama"], tokenizer: PreTrainedTokenizerFast, *, context_tokens: int = 512
) -> Path:
    """A random language model with a tokenizer."""
    tokenizer.save_pretrained(folder)
    torch.manual_seed(2)
    sizes = {**SIZES, "vocab_size": len(tokenizer), "tie_word_embeddings": False}
    sizes["max_position_embeddings"] = context_tokens
    model: nn.Module
    if kind == "mistral":
        model = MistralForCausalLM(MistralConfig(sliding_window=24, **sizes))
    else:
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    model.save_pretrained(folder)  # pyright: ignore[reportCallIssue]
    return folder


def write_token_classifier(folder: Path, *, separator: str | None, labels: int = 2) -> Path:
    """What TRL's trainer saves of a model that tells right steps from wrong; its arguments too, given a separator."""
    tokenizer = train_tokenizer(special=["<|im_start|>", "<|im_end|>"], template=CHATML, words=["\n\n"])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(4)
    sizes: dict[str, Any] = {**SIZES, "vocab_size": len(tokenizer), "num_labels": labels}
    config = Qwen2Config(**sizes)
    Qwen2ForTokenClassification(config).save_pretrained(folder)
    if separator is not None:
        torch.save(TrainingArguments(step_separator=separator), folder / "training_args.bin")
    return folder


@dataclass
class TrainingArguments:
    """As `PRMConfig` leaves them: texts among others, some of them equal."""

    output_dir: str = "\n"
    learning_rate: float = 1e-5
    max_length: int | None = 1024
    step_separator: str = "\n"
    train_on_last_step_only: bool = False
    run_name: str = "step_separator"


def write_sequence_classifier(folder: Path, labels: int = 1) -> Path:
    """A random Llama sequence classifier."""
    tokenizer = train_tokenizer(bos="<|begin|>", special=["<|head|>", "<|tail|>", "<|eot|>"], template=LLAMA3)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    sizes: dict[str, Any] = {**SIZES, "vocab_size": len(tokenizer), "num_labels": labels, "pad_token_id": None}
    config = LlamaConfig(**sizes)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


def trajectory(steps: Sequence[str] = STEPS, question: Any = QUESTION) -> Trajectory:
    """A thinking part with these steps, and the beginning of one more; token ids are bytes."""
    texts = [("<think>\n" if i == 0 else "") + step + "\n\n" for i, step in enumerate(steps)]
    data = [text.encode() for text in texts]
    ends = tuple(sum(map(len, data[: i + 1])) for i in range(len(data)))
    return Trajectory(
        question=question,
        prompt_ids=(1,),
        token_ids=tuple(b"".join(data) + b"and then"),
        step_ends=ends,
        token_scores=None,
        known_scores=(),
        decode=lambda ids: bytes(ids).decode("utf-8", "replace"),
    )
