"""The head itself: two linear layers, read in fp32, saved and loaded."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tts_search.errors import HeadMismatchError, ModelNotFoundError
from tts_search.segmentation import RELEASED_STEP_RULE, rule_to_json
from tts_search.sprm.config import SPRMConfig
from tts_search.sprm.loading import (
    CONFIG_FILE,
    FOLDER,
    RELEASED_FILE,
    WEIGHTS_FILE,
    check_free,
    head_folder,
    is_head,
    read_config,
    read_released,
    read_safetensors,
)
from tts_search.whole_files import replacing_folder


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
        config = asdict(self.config) | {"step_rule": rule_to_json(self.config.step_rule)}
        weights = {k: v.detach().float().contiguous().cpu() for k, v in self.layers.state_dict().items()}
        with replacing_folder(folder) as whole:  # the config comes first: it says that the weights are a head's
            (whole / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
            save_file(weights, whole / WEIGHTS_FILE)

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
            weights = read_released(place / RELEASED_FILE)
            config = SPRMConfig(hidden_size=weights["0.weight"].shape[-1], step_rule=RELEASED_STEP_RULE)
        else:
            config = read_config(place / CONFIG_FILE)
            weights = read_safetensors(place / WEIGHTS_FILE)
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
