"""Positive pairs that a loader yields, such as two augmented views of an image."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import count
from typing import Any

import torch
from torch import Tensor

from torchdr_cne.distributed import Ranks
from torchdr_cne.hashing import reproducible, stream_key

_LOADING = 14
"""Purpose of the random numbers of a loader; see `torchdr_cne.hashing.stream_key`."""


class PositivePairs:
    """The data of a fit by pairs, in which each pair is an edge and no neighbours are searched for.

    Parameters
    ----------
    loader : DataLoader or other iterable with a length
        Yields ``(a, b)``, tensors of the same shape (rows, …), or longer tuples that start with them; rows i of ``a``
        and ``b`` are a pair. Each epoch iterates over it once. Random numbers that it draws by torch in this process
        follow from the seed of the fit.
    """

    def __init__(self, loader: Any) -> None:
        try:
            length = len(loader)
        except TypeError:  # also raised by a DataLoader of an IterableDataset
            length = None
        if not hasattr(loader, "__iter__") or length is None:
            raise TypeError(
                f"PositivePairs needs a loader that can be gone through again and has a length, got "
                f"{type(loader).__name__}; pass a torch DataLoader, or a list of batches (a, b)."
            )
        if length == 0:
            raise ValueError("the loader of pairs is empty; it needs at least one batch (a, b).")
        self.loader = loader

    def __len__(self) -> int:
        """Return the number of mini-batches in an epoch."""
        return len(self.loader)

    def stream(self, first: int, seed: int, ranks: Ranks) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the mini-batches from number ``first`` on, for an endless number of epochs.

        Parameters
        ----------
        first : int
            Number of the first mini-batch, counted over all epochs.
        seed : int
            Seed of the random numbers, which differ between ranks even if their loaders are the same.
        ranks : Ranks
            The processes, each of which has a separate loader.
        """
        length = len(self)
        epoch, n_passed = divmod(first, length)

        def numbers_of(step: int) -> AbstractContextManager[None]:
            return reproducible(stream_key(seed, step, _LOADING) + ranks.rank)

        while True:
            with numbers_of(~epoch):
                loaded = iter(self.loader)
            for place in range(length):
                with numbers_of(epoch * length + place):
                    found = next(loaded, None)
                if found is None:
                    raise ValueError(
                        f"the loader of pairs has ended after {place} batches, and its length is {length}; let each "
                        "pass over it give as many."
                    )
                if place >= n_passed:
                    yield _pair(found)
            epoch, n_passed = epoch + 1, 0

    def first_members(self) -> Iterator[Tensor]:
        """Yield the rows ``a``, in the order of the data set if it has one; they are the same in every call."""
        loaded = None
        for number in count():
            with reproducible(number):
                loaded = iter(self._in_order()) if loaded is None else loaded
                found = next(loaded, None)
            if found is None:
                return
            yield _pair(found)[0]

    def _in_order(self) -> Iterable[Any]:
        loader = self.loader
        if not isinstance(loader, torch.utils.data.DataLoader) or not hasattr(loader.dataset, "__len__"):
            return loader
        if loader.batch_sampler is None:  # the data set makes the batches
            return loader
        return torch.utils.data.DataLoader(
            loader.dataset, batch_size=loader.batch_size or 256, collate_fn=loader.collate_fn
        )


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    is_pair = isinstance(batch, (tuple, list)) and len(batch) >= 2
    first, second = (torch.as_tensor(part) for part in batch[:2]) if is_pair else (None, None)
    if first is None or second is None or first.shape != second.shape or first.ndim < 2:
        shapes = [tuple(getattr(part, "shape", ())) for part in batch] if isinstance(batch, (tuple, list)) else ""
        raise ValueError(
            f"each batch of pairs must start with two tensors of the same shape (rows, …), got {type(batch).__name__} "
            f"{shapes}; let the data set return (view_a, view_b, …)."
        )
    return first, second
