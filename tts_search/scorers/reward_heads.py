"""How a checkpoint becomes a backbone and a head: what each kind of reward model keeps where.

Builds the architectures that `transformers` has no class for instead of running code that comes with a checkpoint.
Knows heads; it knows no text and no step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    Qwen2Config,
    Qwen2Model,
    Qwen2PreTrainedModel,
)

from tts_search.errors import ModelNotFoundError
from tts_search.scorers.weights import load_model, rows, weight_files

REWARD_HEAD = "reward_head.pt"


class Qwen2ForProcessRewardModel(Qwen2PreTrainedModel):
    """Qwen2 with a two-layer classifier: two labels in Qwen2.5-Math-PRM, one number in Qwen2.5-Math-RM."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        width = config.hidden_size
        self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.num_labels or 1))
        self.post_init()


class Qwen2ForPrmModel(Qwen2PreTrainedModel):
    """Qwen2 with a value head: one linear layer to one number."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        self.v_head = nn.ModuleDict({"summary": nn.Linear(config.hidden_size, 1)})
        self.post_init()


class Ensemble(nn.Module):
    """Three layers of each of several heads at once; the output is the logit of their mean probability."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.nn1 = _Layers(width, hidden, heads)
        self.nn2 = _Layers(hidden, hidden, heads)
        self.nn_out = _Layers(hidden, 1, heads)

    def forward(self, states: Tensor) -> Tensor:
        """From hidden states `[positions, hidden]` to logits `[positions, 1]`, in fp64: probabilities near 1 count."""
        found = self.nn_out(torch.relu(self.nn2(torch.relu(self.nn1(states.expand(self.nn1.heads, *states.shape))))))
        return torch.logit(torch.sigmoid(found.double()).mean(0))


class _Layers(nn.Module):
    """A linear layer for each head: from `[heads, positions, in]` to `[heads, positions, out]`."""

    def __init__(self, width: int, out: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.weight = nn.Parameter(torch.empty(heads, width, out))
        self.bias = nn.Parameter(torch.empty(heads, out))

    def forward(self, states: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[:, None], states.to(self.weight.dtype), self.weight)


class Qwen2ForEnsemblePRM(Qwen2PreTrainedModel):
    """Qwen2 with several small heads (ActPRM). The copy of them that regularized their training is left out."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        self.score = nn.ModuleDict({"model": Ensemble(config.hidden_size, 128, getattr(config, "num_ensemble", 8))})
        self.post_init()


def load_classifier(folder: Path, *, labels: int, device: str, dtype: str) -> tuple[Any, nn.Module]:
    """Backbone and head of Qwen2.5-Math-PRM (two labels) or Qwen2.5-Math-RM (one)."""
    config = Qwen2Config.from_pretrained(str(folder), num_labels=labels)
    model = load_model(Qwen2ForProcessRewardModel, folder, device=device, dtype=dtype, config=config)
    return model.model, model.score


def load_sequence_classifier(folder: Path, *, device: str, dtype: str) -> tuple[Any, nn.Module]:
    """Backbone and head of a decoder with a sequence classifier on it, of as many labels as its weights have.

    Raises:
        ModelNotFoundError: it is no such model (an encoder, or one whose head is not a `score` layer).
    """
    labels = rows(folder, "score.weight")
    config = None if labels is None else AutoConfig.from_pretrained(str(folder), num_labels=labels)
    model = load_model(AutoModelForSequenceClassification, folder, device=device, dtype=dtype, config=config)
    if not isinstance(getattr(model, "score", None), nn.Module):
        raise ModelNotFoundError(
            f"{str(folder)!r} holds a {type(model).__name__}, which is no decoder with a score head"
        )
    return model.base_model, model.score


def load_value_head(folder: Path, *, device: str, dtype: str) -> tuple[Any, nn.Module]:
    """Backbone and head of Skywork-o1-Open-PRM."""
    model = load_model(Qwen2ForPrmModel, folder, device=device, dtype=dtype, names={r"^pretrained_model\.": ""})
    return model.model, model.v_head["summary"]


def load_ensemble(folder: Path, *, device: str, dtype: str) -> tuple[Any, nn.Module]:
    """Backbone and heads of ActPRM."""
    config = Qwen2Config.from_pretrained(str(folder))
    model = load_model(Qwen2ForEnsemblePRM, folder, device=device, dtype=dtype, config=config)
    return model.model, model.score["model"]


def load_token_classifier(folder: Path, *, device: str, dtype: str) -> tuple[Any, nn.Module]:
    """Backbone and head of a decoder with a token classifier of two labels on it.

    Raises:
        ModelNotFoundError: it has other labels, or is no decoder.
    """
    model = load_model(AutoModelForTokenClassification, folder, device=device, dtype=dtype)
    labels = model.config.num_labels
    if labels != 2:
        raise ModelNotFoundError(
            f"{str(folder)!r} tells {labels} labels of a token apart: a process reward model has two (wrong, right)"
        )
    head = getattr(model, "score", None) or getattr(model, "classifier", None)
    if not isinstance(head, nn.Module) or not _reads_forward(model.base_model):
        raise ModelNotFoundError(
            f"{str(folder)!r} holds a {type(model).__name__}, which is no decoder: what stands behind a step would "
            "change the step's score"
        )
    return model.base_model, head


@torch.inference_mode()
def _reads_forward(backbone: Any) -> bool:
    """Whether a later token leaves the states of earlier ones as they are."""
    ids = torch.tensor([[0, 1], [0, 2]], device=backbone.device)
    first = backbone(input_ids=ids).last_hidden_state[:, 0].float()
    return torch.allclose(first[0], first[1], atol=1e-3, rtol=1e-3)


def load_sequence_value(folder: Path, *, device: str, dtype: str) -> tuple[Any, nn.Module]:
    """Backbone and head of a model whose one number is read at the last token, by where its weights say the head is.

    Raises:
        ModelNotFoundError: there is none that is known.
    """
    names = weight_files(folder)
    if "score.weight" in names:
        return load_sequence_classifier(folder, device=device, dtype=dtype)
    if "score.0.weight" in names:
        return load_classifier(folder, labels=1, device=device, dtype=dtype)
    if "v_head.summary.weight" in names:
        return load_value_head(folder, device=device, dtype=dtype)
    beside = sorted(name for name in names if not name.startswith(("model.", "lm_head.")))
    raise ModelNotFoundError(
        f"the weights in {str(folder)!r} hold {', '.join(beside[:4]) or 'nothing'} beside the backbone: a head is "
        "known as score.weight, score.0.weight and score.2.weight, or v_head.summary.weight"
    )


def load_reward_head(folder: Path, *, device: str, dtype: str) -> tuple[Any, nn.Module]:
    """Backbone of a language model, and the linear layer in `reward_head.pt` beside it (ReasonFlux-PRM-1.5B).

    Raises:
        ModelNotFoundError: the file is not there, or holds something else.
    """
    model = load_model(AutoModelForCausalLM, folder, device=device, dtype=dtype)
    backbone = model.get_decoder()
    head = nn.Linear(backbone.config.hidden_size, 1).to(backbone.device)
    try:
        head.load_state_dict(torch.load(folder / REWARD_HEAD, map_location="cpu", weights_only=True))
    except Exception as error:  # missing, cut off, a pickle that would run code, other shapes
        raise ModelNotFoundError(
            f"{str(folder / REWARD_HEAD)!r} is not the linear layer of a reward model ({type(error).__name__}: {error})"
        ) from error
    return backbone, head.to(backbone.dtype).requires_grad_(False)


def load_language_model(folder: Path, columns: Sequence[int], *, device: str, dtype: str) -> tuple[Any, nn.Module]:
    """Backbone of a language model, and the rows of its output layer for some token ids as the head."""
    model = load_model(AutoModelForCausalLM, folder, device=device, dtype=dtype)
    output = model.get_output_embeddings()
    head = nn.Linear(output.in_features, len(columns), bias=output.bias is not None)
    head.to(output.weight)
    with torch.no_grad():
        head.weight.copy_(output.weight[list(columns)])
        if output.bias is not None:
            head.bias.copy_(output.bias[list(columns)])
    return model.get_decoder(), head


LOADERS: dict[str, Callable[..., tuple[Any, nn.Module]]] = {
    "classifier": partial(load_classifier, labels=2),
    "value": load_value_head,
    "token classifier": load_token_classifier,
    "ensemble": load_ensemble,
    "sequence value": load_sequence_value,
    "reward_head.pt": load_reward_head,
}


def load_head(
    head: str, folder: Path, columns: Sequence[int | None], *, device: str, dtype: str
) -> tuple[Any, nn.Module]:
    """Backbone and head of a checkpoint whose head is of this kind (see `process.family.Head`)."""
    if head == "language model":
        return load_language_model(folder, [c for c in columns if c is not None], device=device, dtype=dtype)
    return LOADERS[head](folder, device=device, dtype=dtype)
