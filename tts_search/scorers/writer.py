"""A language model that writes on request: what judges are made of. Knows text; it knows no verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tts_search.errors import InvalidInputError
from tts_search.scorers.checkpoint import load_tokenizer
from tts_search.scorers.text import ContextError
from tts_search.scorers.weights import load_model

VERDICT_TOKENS = 32  # of the context, kept for the words that lead up to a verdict


class Writer:
    """A causal language model of transformers with its tokenizer. `tokens` counts all that went through it."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            raise InvalidInputError("this tokenizer has no chat template, by which judges are asked")
        self.model = model
        self.tokenizer = tokenizer
        self.tokens = 0

    @classmethod
    def from_pretrained(cls, folder: Path, *, device: str = "auto", dtype: str = "auto") -> Writer:
        """The model of a folder. Code that comes with it is never run."""
        return cls(load_model(AutoModelForCausalLM, folder, device=device, dtype=dtype), load_tokenizer(folder))

    def token(self, word: str) -> int:
        """The id of a word that must be one token.

        Raises:
            InvalidInputError: this tokenizer makes several of it.
        """
        ids = self._ids(word)
        if len(ids) != 1:
            raise InvalidInputError(f"a verdict must be one token, but this tokenizer makes {len(ids)} of {word!r}")
        return ids[0]

    def chat(self, turns: Sequence[Mapping[str, str]], *, open_answer: bool) -> str:
        """The text of a conversation, with the answer's turn opened or not."""
        text: str = self.tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=open_answer)
        return text if open_answer else text.removesuffix("\n").removesuffix(self.tokenizer.eos_token or "")

    @property
    def max_tokens(self) -> int:
        """The model's context."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30

    def count(self, text: str) -> int:
        """How many tokens a text is."""
        return len(self._ids(text))

    def write(self, text: str, *, stops: Sequence[str], max_tokens: int, temperature: float, seed: int) -> str:
        """What follows `text`, up to and with one of the stops, without the end-of-text token.

        Raises:
            ContextError: `text` leaves no room in the context.
        """
        ids = self._ids(text)
        room = min(max_tokens, self.max_tokens - len(ids) - VERDICT_TOKENS)
        if room < 1:
            raise ContextError(
                f"a question to the judge is {len(ids)} tokens long, and its context holds {self.max_tokens}: limit "
                "max_tokens, or use a model with a longer context"
            )
        sampled = {"temperature": temperature, "top_p": 0.95, "top_k": 20} if temperature else {}
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            row = self.model.generate(
                input_ids=torch.tensor([ids], device=self.model.device),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=self.model.device),
                max_new_tokens=room,
                do_sample=temperature > 0,
                pad_token_id=self.tokenizer.eos_token_id,
                **({"stop_strings": list(stops), "tokenizer": self.tokenizer} if stops else {}),
                **(sampled or {"temperature": None, "top_p": None, "top_k": None}),
            )[0].tolist()
        self.tokens += len(row)
        written: str = self.tokenizer.decode(row[len(ids) :], skip_special_tokens=True)
        ends = [written.index(stop) + len(stop) for stop in stops if stop in written]
        return written[: min(ends)] if ends else written

    @torch.inference_mode()
    def preference(self, text: str, first: int, second: int) -> float:
        """By how much the model would rather go on with the first token than with the second, in logits."""
        ids = self._ids(text)
        if len(ids) > self.max_tokens:
            raise ContextError(f"a critique is {len(ids)} tokens long, and the judge's context holds {self.max_tokens}")
        self.tokens += len(ids)
        output = self.model(input_ids=torch.tensor([ids], device=self.model.device), logits_to_keep=1)
        row = output.logits[0, -1].float()
        return (row[first] - row[second]).item()

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)
