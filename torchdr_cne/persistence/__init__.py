"""Fitted estimators on disk: a safetensors file and a JSON manifest with hashes, never a pickle."""

from torchdr_cne.persistence.model import load, model_state, restore_model, save_model
from torchdr_cne.storage import DamagedError, FormatError

__all__ = ["DamagedError", "FormatError", "load", "model_state", "restore_model", "save_model"]
