"""Training: fit an SPRM head on a frozen policy, or train policy and head jointly (extra `train`).

Importing this package imports neither torch nor TRL; its names are loaded when they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tts_search.errors import MissingDependencyError

if TYPE_CHECKING:
    from tts_search.training.collection import collect
    from tts_search.training.fit import FitSettings, fit_head
    from tts_search.training.held_out import HeadReport
    from tts_search.training.losses import process_loss
    from tts_search.training.probe import ProbeSettings, fit_probe
    from tts_search.training.rewards import Correctness
    from tts_search.training.settings import ReflectiveConfig, preset
    from tts_search.training.trainer import ReflectiveGRPOTrainer

_PLACES = {
    "Correctness": "rewards",
    "ReflectiveConfig": "settings",
    "ReflectiveGRPOTrainer": "trainer",
    "preset": "settings",
    "FitSettings": "fit",
    "HeadReport": "held_out",
    "collect": "collection",
    "fit_head": "fit",
    "ProbeSettings": "probe",
    "fit_probe": "probe",
    "process_loss": "losses",
}

__all__ = [
    "Correctness",
    "FitSettings",
    "HeadReport",
    "ProbeSettings",
    "ReflectiveConfig",
    "ReflectiveGRPOTrainer",
    "collect",
    "fit_head",
    "fit_probe",
    "preset",
    "process_loss",
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        try:
            return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
        except ModuleNotFoundError as error:
            raise MissingDependencyError(f"{name} needs {error.name}: pip install 'tts-search[train]'") from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
