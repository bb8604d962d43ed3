"""Fitted estimators and checkpoints on disk: a safetensors file and a JSON manifest with hashes, never a pickle."""

from torchdr_cne.persistence.checkpoints import PREEMPTED, Checkpoints
from torchdr_cne.persistence.folders import DamagedError, FormatError, read_folder, write_folder
from torchdr_cne.persistence.model import load, model_state, restore_model, save_model
from torchdr_cne.persistence.plain import from_plain, to_plain

__all__ = [
    "PREEMPTED",
    "Checkpoints",
    "DamagedError",
    "FormatError",
    "from_plain",
    "load",
    "model_state",
    "read_folder",
    "restore_model",
    "save_model",
    "to_plain",
    "write_folder",
]
