"""Running networks: over many rows without holding their activations, and with random numbers of one's own."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from torchdr_cne.hashing import reproducible

BATCH = 4096


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Put networks into evaluation mode, and every part back into its own afterwards."""
    modes = {module: module.training for network in networks for module in network.modules()}
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def random_numbers_kept(network: nn.Module) -> AbstractContextManager[None]:
    """Let a network that draws numbers even in evaluation mode draw the same ones each time, and of its own."""
    return reproducible(0, next(iter(network.parameters()), torch.empty(0)).device)


def in_batches(network: nn.Module, read: Callable[[int, int], Tensor], n: int, batch_size: int = BATCH) -> Tensor:
    """Return the network's output for n rows, computed in evaluation mode a batch at a time.

    Parameters
    ----------
    network : Module
        From (r, f) to (r, d).
    read : callable
        From first row and the one after the last to the rows, on the network's device.
    n : int
        Number of rows.
    batch_size : int, default=4096
        Rows that are computed together.
    """
    with torch.no_grad(), evaluating(network), random_numbers_kept(network):
        parts = [network(read(start, min(start + batch_size, n))) for start in range(0, max(n, 1), batch_size)]
    return torch.cat(parts)
