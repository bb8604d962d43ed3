"""Folders that hold what a fit needs later: plain values and tensors, and nothing that could run code."""

from torchdr_cne.storage.checkpoints import PREEMPTED, Checkpoints
from torchdr_cne.storage.folders import DamagedError, FormatError, read_folder, write_folder
from torchdr_cne.storage.plain import from_plain, to_plain

__all__ = [
    "PREEMPTED",
    "Checkpoints",
    "DamagedError",
    "FormatError",
    "from_plain",
    "read_folder",
    "to_plain",
    "write_folder",
]
