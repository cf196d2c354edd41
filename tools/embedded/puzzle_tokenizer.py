r"""The embedded model's tokenizer: byte-level BPE, trained here, that writes any text and loses nothing.

Every number from 0 to 99, every word of the traces, and the step token `.\n\n` is one token. It knows the wording of
the puzzles only through the texts it is trained on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END: Final = "<|im_end|>"
START: Final = "<|im_start|>"
PAD: Final = "<|endoftext|>"
THINK: Final = "<think>"
END_THINK: Final = "</think>"
STEP: Final = ".\n\n"
SPARE_IDS: Final = 8
"""At least so many columns of the model's vocabulary stay without a token: engines put scores there."""

PIECES: Final = (
    r"[0-9]{1,3}"
    r"| ?\p{L}+(?: (?=[0-9]|\z))?"
    r"| ?[^\s\p{L}0-9]+(?:[\r\n]+| (?=[0-9]|\z))?"
    r"|\s+(?! )|\s+"
)
"""What a token may span. A space before a number belongs to the piece before it, so a number has one token only."""

TRUST_THIS_FOLDER: Final = {"AutoTokenizer": [None, None]}
"""transformers 5 gives every qwen2 model the Qwen2 tokenizer class, which replaces the pieces above by its own, unless
the folder names a class. Naming none makes `AutoTokenizer` take the saved tokenizer as it is."""

CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n<think>\n' -}}{%- endif -%}"
)


def train_tokenizer(texts: Iterable[str], *, largest_number: int) -> PreTrainedTokenizerFast:
    """A tokenizer for which every piece of `texts`, and every number up to `largest_number`, is one token."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(  # no limit is reached: merging ends when every piece is one token
        vocab_size=1_000_000,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator([*texts, *map(str, range(largest_number + 1)), STEP], trainer)
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (PAD, START, END)])
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in (THINK, END_THINK)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=512,
        auto_map=TRUST_THIS_FOLDER,
    )


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of a text that is one token."""
    (found,) = tokenizer(token)["input_ids"]
    return found


def padded_vocabulary(tokenizer: PreTrainedTokenizerFast) -> int:
    """The model's vocabulary size: the tokenizer's, the spare ids, and up to the next multiple of 64."""
    return -(-(len(tokenizer) + SPARE_IDS) // 64) * 64
