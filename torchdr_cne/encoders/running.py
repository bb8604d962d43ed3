"""Functions that run networks over many rows without holding activations, and with separate random numbers."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from torchdr_cne.hashing import reproducible

BATCH = 4096


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Put networks into evaluation mode in the block, and restore the mode of every module afterwards."""
    modes = {module: module.training for network in networks for module in network.modules()}
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def random_numbers_kept(network: nn.Module) -> AbstractContextManager[None]:
    """Give a network that draws even in evaluation mode the same random numbers each time, from a separate stream."""
    return reproducible(0, next(iter(network.parameters()), torch.empty(0)).device)


def in_batches(network: nn.Module, read: Callable[[int, int], Tensor], n: int, batch_size: int = BATCH) -> Tensor:
    """Return the network's output for n rows, computed in evaluation mode a batch at a time.

    Parameters
    ----------
    network : Module
        A network from rows (r, f) to outputs (r, d).
    read : callable
        Function from the first row and the one after the last to these rows, on the device of the network.
    n : int
        Number of rows.
    batch_size : int, default=4096
        Number of rows that are computed together.
    """
    with torch.no_grad(), evaluating(network), random_numbers_kept(network):
        parts = [network(read(start, min(start + batch_size, n))) for start in range(0, max(n, 1), batch_size)]
    return torch.cat(parts)
