"""Every error this package raises on purpose, as one hierarchy.

Each class also inherits the standard exception that fits, so `except ValueError` keeps working. A message names
the thing, the value, and the remedy. This module knows nothing else of the package.
"""


class TTSError(Exception):
    """Base of all errors of tts-search."""


class InvalidInputError(TTSError, ValueError):
    """A value given by the caller cannot be used: an empty question, a negative budget, an unknown strategy."""


class ModelNotFoundError(TTSError, FileNotFoundError):
    """The model or head asked for is neither a folder here nor reachable on the Hugging Face hub."""


class HeadMismatchError(TTSError, ValueError):
    """An SPRM head does not fit its backbone, or its file does not hold a head."""


class MissingDependencyError(TTSError, ImportError):
    """An optional dependency is needed and not installed; the message names the extra to install."""


class GeneratorError(TTSError, RuntimeError):
    """A generator broke its contract or died: wrong count, too many tokens, engine gone."""


class EngineUnavailableError(GeneratorError):
    """A remote engine cannot be reached, broke off, or has too much to do: the same request may do better later."""


class NotRecordedError(GeneratorError):
    """A replay came to something that its log does not hold."""


class ScorerError(TTSError, RuntimeError):
    """A scorer raised, or returned too few scores, NaN, or values outside [0, 1]."""


class StrategyError(TTSError, RuntimeError):
    """A strategy raised or asked for something impossible: an expansion of an ended node, n below 1."""


class TrainingError(TTSError, RuntimeError):
    """Training cannot go on: a reward function raised or returned something else than one number a completion."""


class StorageError(TTSError, OSError):
    """A file cannot be written, because the disk is full, say; it is as it was."""


class SearchCancelledError(TTSError):
    """A search was cancelled before it had any path to answer from."""


def shown(value: object) -> str:
    """A value as a message of ours names it: its `repr`, not too long of it, also where that raises."""
    try:
        text = repr(value)
    except BaseException as error:
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= 200 else text[:200] + "…"


def told(error: BaseException) -> str:
    """What an error says of itself, for a message of ours: `KeyError: 'x'`, also where its own words raise."""
    kind = type(error).__name__
    try:
        return f"{kind}: {error}"
    except BaseException as worse:  # an error of a plug-in's, and what it says is the plug-in's code
        return f"{kind} (whose text raised {type(worse).__name__})"
