"""Positive pairs that a loader yields, such as two augmented views of an image."""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor

from torchdr_cne.hashing import reproducible


class PositivePairs:
    """The data of a fit by pairs: no neighbours are searched, each pair is an edge.

    Parameters
    ----------
    loader : DataLoader or other iterable with a length
        Yields ``(a, b)``, tensors of the same shape (rows, …), or tuples that start so; row i of ``a`` and of ``b``
        belong together. It is gone through once an epoch. Its random numbers are those of the fit's seed as far as
        they are torch's, drawn in this process.
    """

    def __init__(self, loader: Any) -> None:
        try:
            length = len(loader)
        except TypeError:  # also that of a DataLoader, over an IterableDataset
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
        """Return the number of mini-batches."""
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.loader:
            yield _pair(batch)

    def first_members(self) -> Iterator[Tensor]:
        """Yield the rows ``a``, in the data set's order where it has one; the same whenever they are asked for."""
        pairs = None
        for number in count():
            with reproducible(number):
                pairs = iter(PositivePairs(self._in_order())) if pairs is None else pairs
                found = next(pairs, None)
            if found is None:
                return
            yield found[0]

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
