"""The SPRM head: a binary classifier over hidden states that the policy has computed anyway.

This module is what the engines, the scorer and training share: the module itself, its config, and how both are
saved and loaded. It does not know where hidden states come from, nor which of them are steps.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tts_search.errors import HeadMismatchError, InvalidInputError, ModelNotFoundError
from tts_search.segmentation import DEFAULT_STEP_RULE, RELEASED_STEP_RULE, StepRule, rule_from_json, rule_to_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
RELEASED_FILE = "score_module.pt"
FOLDER = "sprm"

Readout = Literal["previous", "step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SPRMConfig:
    """What a head must know about itself to be read correctly.

    `layer` indexes Hugging Face `hidden_states` (length L + 1): -2 is the output of the second-to-last block (paper,
    section 3.1). `readout` says at which token a step is read: `"step"` at the step token itself (the paper's text),
    `"previous"` at the token before it, the position that predicts the step token (the released checkpoints).
    """

    hidden_size: int
    layer: int = -2
    readout: Readout = "previous"
    step_rule: StepRule = field(default=DEFAULT_STEP_RULE)
    aggregation: str = "geometric_mean"

    def __post_init__(self) -> None:
        if self.hidden_size < 1:
            raise InvalidInputError(f"SPRM hidden_size must be at least 1, got {self.hidden_size}")
        if self.layer != -2:
            raise InvalidInputError(f"SPRM reads the second-to-last layer (layer=-2), got layer={self.layer}")
        if self.readout not in ("previous", "step"):
            raise InvalidInputError(f'SPRM readout must be "previous" or "step", got {self.readout!r}')


class SPRM(nn.Module):
    """`Sequential(Linear(c, 2c), ReLU, Dropout(0.5), Linear(2c, 1))` (paper, section 3.1): 2c² + 4c + 1 parameters.

    The module's own state dict has the released checkpoints' keys: `0.weight 0.bias 3.weight 3.bias`.
    """

    def __init__(self, config: SPRMConfig) -> None:
        super().__init__()
        self.config = config
        c = config.hidden_size
        self.layers = nn.Sequential(nn.Linear(c, 2 * c), nn.ReLU(), nn.Dropout(0.5), nn.Linear(2 * c, 1))

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits in fp32, shape `[...]`, of hidden states shaped `[..., hidden]` in any float type."""
        dtype = next(self.layers.parameters()).dtype
        return self.layers(hidden.to(dtype)).squeeze(-1).float()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` (fp32) into `folder`, made if missing.

        Raises:
            InvalidInputError: files of these names are there already and are no head's, most likely a model's.
        """
        folder = Path(folder)
        check_free(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = asdict(self.config) | {"step_rule": rule_to_json(self.config.step_rule)}
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
        weights = {k: v.detach().float().contiguous().cpu() for k, v in self.layers.state_dict().items()}
        save_file(weights, folder / WEIGHTS_FILE)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, hidden_size: int | None = None) -> SPRM:
        """Load a head, in eval mode and fp32.

        Args:
            folder: a `save_pretrained` folder, a model folder that holds one as `sprm/`, or a released MetaStone
                folder with `score_module.pt` (read with `weights_only=True`). Of several, see `head_folder`.
            hidden_size: the backbone's, checked against the head's.

        Raises:
            ModelNotFoundError: no head there.
            HeadMismatchError: the file is not such a head, holds NaN, or is made for another hidden size.
        """
        place = head_folder(folder)
        if place is None:
            raise ModelNotFoundError(
                f"no SPRM head in {str(folder)!r}: expected {FOLDER}/{CONFIG_FILE} with {FOLDER}/{WEIGHTS_FILE}, or "
                f"{RELEASED_FILE}; fit one with `tts-search fit-head`, or search with another scorer"
            )
        if not is_head(place) and (place / RELEASED_FILE).is_file():
            weights = _read_released(place / RELEASED_FILE)
            config = SPRMConfig(hidden_size=weights["0.weight"].shape[-1], step_rule=RELEASED_STEP_RULE)
        else:
            config = _read_config(place / CONFIG_FILE)
            weights = _read_safetensors(place / WEIGHTS_FILE)
        if hidden_size is not None and config.hidden_size != hidden_size:
            raise HeadMismatchError(
                f"the SPRM head in {str(place)!r} reads hidden states of size {config.hidden_size}, but the backbone's "
                f"are of size {hidden_size}: use the head that was trained with this backbone"
            )
        head = cls(config)
        try:
            head.layers.load_state_dict(weights)
        except RuntimeError as error:
            raise HeadMismatchError(f"{str(place)!r} does not hold an SPRM head: {error}") from error
        for name, value in head.layers.state_dict().items():
            if not torch.isfinite(value).all():
                raise HeadMismatchError(f"the SPRM head in {str(place)!r} has NaN or infinite values in {name}")
        return head.float().eval()


def head_folder(folder: str | Path) -> Path | None:
    """The folder that holds the head of a model folder (or is itself a head's), None where there is none.

    `sprm/` goes before the folder itself, and in either a head of ours before a released one. Whose `model.safetensors`
    is, a head's or the policy's, only the `config.json` beside it says. A `sprm/` with weights whose config is missing
    or damaged counts as a head, so that loading it fails: to go without would be silent.
    """
    own = Path(folder) / FOLDER
    if (own / WEIGHTS_FILE).is_file() and _config(own) is None:
        return own
    return next((p for p in (own, Path(folder)) if is_head(p) or (p / RELEASED_FILE).is_file()), None)


def is_head(folder: Path) -> bool:
    """Whether the folder's config is that of a head that `save_pretrained` wrote."""
    return "readout" in (_config(folder) or {})


def check_free(folder: Path) -> None:
    """Refuse a folder in which a head would overwrite what is no head.

    Raises:
        InvalidInputError: it holds a config or weights, and the config is no head's.
    """
    taken = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if (folder / name).exists()]
    if taken and not is_head(folder):
        raise InvalidInputError(
            f"{str(folder)!r} holds a {taken[0]} that is no head's, most likely a model's: write the head to "
            f"{str(folder / FOLDER)!r} instead"
        )


def _config(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / CONFIG_FILE).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _read_config(path: Path) -> SPRMConfig:
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        raw["step_rule"] = rule_from_json(raw["step_rule"])
        return SPRMConfig(**raw)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HeadMismatchError(f"{str(path)!r} is not the config of an SPRM head: {error}") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own, undocumented classes
        raise HeadMismatchError(f"{str(path)!r} is not a readable safetensors file: {error}") from error


def _read_released(path: Path) -> dict[str, Tensor]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        if weights["0.weight"].ndim != 2:
            raise ValueError(f"0.weight has shape {tuple(weights['0.weight'].shape)}")
        return {name: value.float() for name, value in weights.items()}
    except Exception as error:  # a file that is no state dict fails in many ways
        raise HeadMismatchError(
            f"{str(path)!r} is not a released SPRM head (a state dict with 0.weight 0.bias 3.weight 3.bias): {error}"
        ) from error
