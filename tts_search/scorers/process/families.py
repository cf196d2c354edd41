"""The families of process reward models by name, and which of them a checkpoint is. A family itself: see `family`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tts_search.errors import InvalidInputError
from tts_search.scorers.checkpoint import load_tokenizer, names_of, read_config, training_argument
from tts_search.scorers.process.classifiers import (
    ActPRM,
    PurePRM,
    QwenMathPRM,
    ReasonFluxPRM,
    ReasonFluxSmallPRM,
    SkyworkPRM,
    TokenClassifierPRM,
    UniversalPRM,
)
from tts_search.scorers.process.family import Encoded, Family
from tts_search.scorers.process.language_models import MathPSA, MathShepherd, RLHFlowPRM, VersaPRM

__all__ = ["FAMILIES", "Encoded", "Family", "MathShepherd", "RLHFlowPRM", "Recognized", "VersaPRM", "recognize"]

FAMILIES: dict[str, type[Family]] = {
    "qwen-math-prm": QwenMathPRM,
    "math-shepherd": MathShepherd,
    "skywork-prm": SkyworkPRM,
    "rlhflow": RLHFlowPRM,
    "versaprm": VersaPRM,
    "trl": TokenClassifierPRM,
    "pure-prm": PurePRM,
    "reasonflux-prm": ReasonFluxPRM,
    "reasonflux-prm-1.5b": ReasonFluxSmallPRM,
    "universal-prm": UniversalPRM,
    "actprm": ActPRM,
    "math-psa": MathPSA,
}

_NAMES = {
    r"reasonflux-prm": "reasonflux-prm",
    r"pure-prm|pure's prm|jinachris/": "pure-prm",  # first published under the name of a model of Qwen's
    r"universal-prm": "universal-prm",
    r"actprm": "actprm",
    r"qwen2\.5-math-prm": "qwen-math-prm",
    r"math-shepherd": "math-shepherd",
    r"math-?psa": "math-psa",
    r"skywork-o1-open-prm": "skywork-prm",
    r"prm-(mistral|deepseek)-data": "rlhflow",
    r"versaprm": "versaprm",
}
_ARCHITECTURES = {
    "Qwen2ForProcessRewardModel": ("qwen-math-prm", "reasonflux-prm"),
    "Qwen2ForPrmModel": ("skywork-prm",),
    "Qwen2ForEnsemblePRM": ("actprm",),
}
"""The first of the families that share an architecture is that of a checkpoint whose name says nothing."""

_SEPARATORS = {r"math.?shepp?h?erd": "\n", r"prm800k|qwen2\.5-math-\S+-prm-0\.[12]": "\n\n"}
"""By name, of checkpoints that TRL's own people published."""


@dataclass(frozen=True, slots=True)
class Recognized:
    """A checkpoint's protocol, and what a user should know of how it was found."""

    family: Family
    warnings: tuple[str, ...] = ()


def recognize(folder: Path, name: str, family: str | type[Family] | None, separator: str | None) -> Recognized:
    r"""The protocol of the checkpoint in a folder.

    Args:
        folder: where its config and tokenizer lie.
        name: what it was asked for as.
        family: a name or class where the user says it; else the config, the files and the names tell.
        separator: of a token classifier's steps, where the user says it; else what it was trained with, as far as its
            files tell, and TRL's `"\n"`, with a warning, where they do not.

    Raises:
        InvalidInputError: nothing tells, it is an outcome reward model or a generative judge, or the family does not
            fit the tokenizer.
    """
    if isinstance(family, str) and family not in FAMILIES:
        raise InvalidInputError(f"unknown family {family!r}: choose from {', '.join(FAMILIES)}, or pass a Family class")
    names = names_of(folder, name)
    kind = family_of(folder, name, names) if family is None else family
    kind = FAMILIES[kind] if isinstance(kind, str) else kind
    tokenizer = load_tokenizer(folder)
    if not issubclass(kind, TokenClassifierPRM):
        if separator is not None:
            raise InvalidInputError(
                f"separator={separator!r} is for token classifiers of TRL's: a {kind.__name__} has its own"
            )
        return Recognized(kind(tokenizer))
    if separator is None and kind is TokenClassifierPRM:
        separator = _separator(folder, names)
        if separator is None:
            return Recognized(kind(tokenizer), (_GUESSED.format(name),))
    return Recognized(kind(tokenizer) if separator is None else kind(tokenizer, separator))


_GUESSED = (
    "nothing in {0!r} says which separator its steps were trained with, so TRL's default is taken, a line break; if it "
    "was another, the scores mean nothing: pass separator= to ProcessRewardModel.from_pretrained, write "
    "scorer=\"{0}(separator='...')\", or keep training_args.bin beside the weights"
)


def family_of(folder: Path, name: str, names: list[str]) -> str:
    """The name of a checkpoint's family, by the architecture in its `config.json`, its files and its names.

    Raises:
        InvalidInputError: nothing tells, or it is an outcome reward model or a generative judge.
    """
    config = read_config(folder)
    architectures: list[str] = config.get("architectures") or []
    if any(re.search(r"thinkprm|genprm", known, re.IGNORECASE) for known in names):
        raise InvalidInputError(f"{name!r} judges in words: use ThinkPRM or GenPRM of tts_search.scorers.judge")
    named = next((f for known in names for p, f in _NAMES.items() if re.search(p, known, re.IGNORECASE)), None)
    if (folder / "reward_head.pt").is_file():
        return "reasonflux-prm-1.5b"
    for architecture in architectures:
        if architecture in _ARCHITECTURES:
            own = _ARCHITECTURES[architecture]
            return next((family for family in own if family == named), own[0])
        if architecture.endswith("ForTokenClassification"):
            return "pure-prm" if named == "pure-prm" else "trl"
    if named == "universal-prm":
        return named
    for architecture in architectures:
        if architecture.endswith(("ForRewardModel", "ForSequenceClassification")):
            raise InvalidInputError(
                f"{name!r} is an outcome reward model ({architecture}): use OutcomeRewardModel.from_pretrained"
            )
    if named is not None and (not architectures or FAMILIES[named].head == "language model"):
        return named
    raise InvalidInputError(
        f"which family of process reward models is {name!r}? Its architecture ({config.get('architectures')}) and its "
        f"name do not say: pass family=, one of {', '.join(FAMILIES)}, to ProcessRewardModel.from_pretrained, or write "
        f"scorer=\"{name}(family='...')\""
    )


def _separator(folder: Path, names: list[str]) -> str | None:
    trained = training_argument(folder, "step_separator")
    if trained is not None:
        return trained
    for known in names:
        for pattern, separator in _SEPARATORS.items():
            if re.search(pattern, known, re.IGNORECASE):
                return separator
    return None
