"""What differs between the CPU and other devices: how much work one operation should be given."""

import torch
from torch import Tensor


def on_cpu(tensor: Tensor) -> bool:
    """Return whether a tensor lies in the memory of the CPU, where compiled code can read it."""
    return tensor.device.type == "cpu"


def free_memory(device: torch.device) -> int:
    """Return the bytes that torch can still take on a CUDA device, within the limit of this process if it has one."""
    number = torch.cuda.current_device() if device.index is None else device.index
    free, total = torch.cuda.mem_get_info(number)
    reserved, allocated = torch.cuda.memory_reserved(number), torch.cuda.memory_allocated(number)
    limit_of = getattr(torch.cuda, "get_per_process_memory_fraction", None)  # not in torch 2.6
    share = 1.0 if limit_of is None else limit_of(number)
    return max(0, min(free + reserved - allocated, int(share * total) - allocated))


def block_elements(device: torch.device, cpu: int, other: int = 1 << 26) -> int:
    """Return the number of elements of a block: ``cpu`` fits into a cache, ``other`` keeps every core of a GPU busy."""
    return cpu if device.type == "cpu" else other


_STAGED_BYTES = 1 << 23


def to_host(tensor: Tensor) -> Tensor:
    """Return a tensor in the memory of the CPU; a large one travels in parts through memory that a GPU can reach.

    Memory that the system may move is several times slower to copy to.
    """
    step = max(1, _STAGED_BYTES // tensor.element_size())
    if tensor.device.type != "cuda" or tensor.numel() <= step:
        return tensor.cpu()
    source, found = tensor.contiguous().view(-1), torch.empty(tensor.shape, dtype=tensor.dtype)
    target, parts = found.view(-1), range(0, tensor.numel(), step)
    stages = [torch.empty(step, dtype=tensor.dtype, pin_memory=True) for _ in range(2)]
    arrivals = [torch.cuda.Event() for _ in stages]
    for k, start in enumerate([*parts, None]):
        if start is not None:
            part = source[start : start + step]
            stages[k % 2][: len(part)].copy_(part, non_blocking=True)
            arrivals[k % 2].record()
        if k > 0:
            arrivals[(k - 1) % 2].synchronize()
            part = target[parts[k - 1] : parts[k - 1] + step]
            part.copy_(stages[(k - 1) % 2][: len(part)])
    return found


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on ``device``; a large one travels in parts through memory that a GPU can reach."""
    step = max(1, _STAGED_BYTES // tensor.element_size())
    if device.type != "cuda" or tensor.numel() <= step:
        return tensor.to(device)
    source, found = tensor.contiguous().view(-1), torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    stages = [torch.empty(step, dtype=tensor.dtype, pin_memory=True) for _ in range(2)]
    departures = [torch.cuda.Event() for _ in stages]
    for k, start in enumerate(range(0, tensor.numel(), step)):
        part = source[start : start + step]
        departures[k % 2].synchronize()  # an event that was never recorded has happened
        stages[k % 2][: len(part)].copy_(part)
        found.view(-1)[start : start + step].copy_(stages[k % 2][: len(part)], non_blocking=True)
        departures[k % 2].record()
    for departure in departures:
        departure.synchronize()  # the stages must not be used again before
    return found
