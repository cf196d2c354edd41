"""The small reflective model that ships with the package: where it lies on disk.

Importing this module costs nothing; what the model is asked is in `puzzles`, how it was made in `build`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["MODEL_FOLDER"]

MODEL_FOLDER: Final = Path(__file__).parent / "model"
