"""The files that a trained student is kept in: an adapter, or a whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
# As `save_pretrained` names them.
MODEL_CONFIG: Final = "config.json"
MODEL_WEIGHTS: Final = "model.safetensors"
# Names of the tensors in the weights that are not trained, where there are any.
MODEL_BUFFERS: Final = "buffers.json"


def config_of(folder: Path) -> Path | None:
    """Return the configuration of the adapter or else of the model in a folder."""
    return _first(folder, ADAPTER_CONFIG, MODEL_CONFIG)


def weights_of(folder: Path) -> Path | None:
    """Return the weights of the adapter or else of the model in a folder."""
    return _first(folder, ADAPTER_WEIGHTS, MODEL_WEIGHTS)


def is_model(folder: Path) -> bool:
    """Whether a folder holds a whole model: a student that was tuned in full."""
    found = weights_of(folder)
    return found is not None and found.name == MODEL_WEIGHTS


def _first(folder: Path, *names: str) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)
