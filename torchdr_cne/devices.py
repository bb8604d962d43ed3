"""What differs between the CPU and other devices: how much work one operation should be given."""

import torch
from torch import Tensor


def on_cpu(tensor: Tensor) -> bool:
    """Return whether a tensor lies in the memory of the CPU, where compiled code can read it."""
    return tensor.device.type == "cpu"


def block_elements(device: torch.device, cpu: int, other: int = 1 << 26) -> int:
    """Return the number of elements of a block: ``cpu`` fits into a cache, ``other`` keeps every core of a GPU busy."""
    return cpu if device.type == "cpu" else other
